"""Shape-Guided: patches of points by signed distances, and the photograph by what they resemble.

    c_p  = encode(patch p)                            the code of each patch of the scan
    ĉ_p  = pursuit of c_p among its 10 nearest codes of the shots: a sum of 3 of them
    s(i) = min over patches p that hold point i of |field(ĉ_p, i)|
    r(n) = |x_n - pursuit of x_n among 5 tokens, 3|   the nearest of those seen where the shots'
                                                      patches lie that n's patches resemble
    d(n) = max(w r(n) + b, mean over n's points of s(i))

A defect has no code of its own: rebuilt from those of good patches, its field lies where a good
surface would, and the distance to that is how odd it is.

|             | published                                      | here                              |
|-------------|------------------------------------------------|-----------------------------------|
| points      | all of 224²; scaled by the cloud's extent      | every other row and column; one   |
|             |                                                | length for all scans              |
| patches     | 500 points, 10 n / 500 patches; the first      | 125 points, which cover as much;  |
|             | centre is drawn at random                      | `patches` of each scan, from its  |
|             |                                                | first point on                    |
| network     | trained once, on clouds of all categories:     | on the shots and their copies:    |
|             | Adam 1e-4, 1000 epochs, 32 patches a step      | `steps` of 32, Adam from 1e-3     |
|             |                                                | down to 0                         |
| photograph  | WideResNet-50-2, stages 1 and 2, at 28²        | the encoder's tokens              |
| of a patch  | cells up to 2 from its own; beyond the border  | the rectangle of tokens that its  |
|             | those of the other side                        | points lie in                     |
| w, b        | bring mean ± 3 deviations of r to those of s;  | the same; of all shots, 25 at     |
|             | of 25 scans, each without itself               | most, each without its copies too |
| map         | the larger distance, per pixel                 | the larger, per token: all of it  |
|             |                                                | is of that modality               |
| image score | product of the largest r and the largest s     | the map's largest value (`top`)   |

With a single shot the alignment judges it by all of its own memory but the very patch and the very
token asked for. A token in no patch is compared with all of the memory's.

Source: Chu et al. 2023 (Shape-Guided, ICML) and its released code.

Dimension letters: M modalities, B scans, N tokens, C channels of the photograph's, h w points of a
scan, P patches of one, K points of a patch, D channels of a code, I scans in the memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int
from tyro.conf import Suppress

from pirn_jax.decoder import Params, Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.encoder.points import patch_means
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.patches import Patches, cut_patches
from pirn_jax.methods import shape_guided_network as network
from pirn_jax.methods.descent import DescentSettings, Items, Learner, Report, descend
from pirn_jax.methods.layers import product
from pirn_jax.methods.pursuit import closest, pursue
from pirn_jax.methods.scaling import fit, scaled, statistics_shapes
from pirn_jax.methods.settings import Features, Geometry
from pirn_jax.training import TrainingJob

POINTS = 125  # K
REACH = 15  # pixels around a centre that they are looked for in: enough at a corner of the part
CODES, TOKENS = 10, 5  # nearest ones of the memory, of which
ATOMS = 3  # are summed
ALIGNED = 25  # shots, at most, that say how both distances are brought to one scale
USUAL = 3 * 112**2  # coordinates of a scan in 224 px, for which patches are counted
MEASURED = 2048  # patches, at most, that the encoder's moments are measured on


@dataclass(frozen=True)
class ShapeGuidedSettings(DescentSettings):
    """Shape-Guided; the values are its authors' where the module's table does not say otherwise."""

    needs_both: ClassVar[str | None] = "method shape-guided needs photograph and points"

    features: Annotated[Features, Suppress] = "normals"
    """No choice here: the points themselves describe the geometry."""
    learning_rate: float = 1e-3
    """Of Adam, at the first step; it falls to 0."""
    steps: int = 600
    """Gradient steps of the network, whatever the number of shots."""
    batch_size: int = 32
    """Patches a step."""
    patches: int = 256
    """P: patches of a scan seen in 224 px; as many more as a larger picture has more points."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(patches=1)
        if self.features != "normals":
            raise ConfigError(
                f"features {self.features}: method shape-guided takes the points themselves",
                "leave out recipe.features",
            )

    def geometry_features(self) -> Geometry:
        """The points themselves."""
        return "points"

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> ShapeGuided:
        """The method, for tokens of that encoder."""
        self.for_detector(modalities, "auto")
        rgb, widths = modalities.index("rgb"), encoder.widths(modalities)
        own = (widths[rgb], widths[1 - rgb])
        return ShapeGuided(self, len(modalities), encoder.grid, encoder.channels, rgb, own)


RECIPES = {"default": ShapeGuidedSettings()}


class Seen(NamedTuple):
    """What one scan shows, or, with an axis in front, many.

    Attributes:
        tokens: scaled ones of the photograph.
        counted: which show the part.
        points: metres; zeros where none was measured.
    """

    tokens: Float[Array, "*B N C"]
    counted: Bool[Array, "*B N"]
    points: Float[Array, "*B h w 3"]


class Barred(NamedTuple):
    """What of the memory is not looked at, for patches and tokens of one scan.

    Attributes:
        codes: one row for all patches or one for each, and the same of the memory's.
        tokens: the same.
    """

    codes: Bool[Array, "p I q"]
    tokens: Bool[Array, "n I m"]


def cells_of(places: Int[Array, "P K"], width: int, grid: tuple[int, int]) -> Int[Array, "P K"]:
    """The token that each point lies in, of a cloud that is so wide."""
    side = width // grid[1]
    return places // width // side * grid[1] + places % width // side


def boxes_of(cells: Int[Array, "P K"], columns: int) -> Float[Array, "P 4"]:
    """First and last row, first and last column of the tokens that patches lie in."""
    row, column = cells // columns, cells % columns
    edges = (row.min(-1), row.max(-1), column.min(-1), column.max(-1))
    return jnp.stack(edges, -1).astype(jnp.float32)


def within(boxes: Float[Array, "*B 4"], grid: tuple[int, int]) -> Bool[Array, "*B N"]:
    """Which tokens lie in each rectangle."""
    place = jnp.arange(grid[0] * grid[1], dtype=jnp.int32)
    row, column = (x.astype(boxes.dtype) for x in (place // grid[1], place % grid[1]))

    def one(box: Float[Array, " 4"]) -> Bool[Array, " N"]:
        return (row >= box[0]) & (row <= box[1]) & (column >= box[2]) & (column <= box[3])

    flat = jax.vmap(one)(boxes.reshape(-1, 4))
    return flat.reshape(*boxes.shape[:-1], len(place))


@dataclass(frozen=True)
class ShapeGuided(Learner):
    """A network of signed distances, and a memory of codes and tokens.

    Attributes:
        rgb: place of the photograph among the two modalities.
        widths: channels of the photograph's and the geometry's tokens. Other fields as of
            `Learner`.
    """

    settings: ShapeGuidedSettings
    rgb: int
    widths: tuple[int, int]

    @property
    def patches(self) -> int:
        """P, at this size of the pictures."""
        size = math.prod(self.grid) * self.widths[1] / USUAL
        return self.settings.patches * max(1, math.ceil(size))

    def fit(self, shots: Tokens) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "1 T C"]]:
        """Of the photograph's tokens alone: points are no features."""
        return fit(self.settings, self.grid, self._photograph(shots))

    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "1 T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """The network, then the memory, then the scale of the photograph's distances."""
        if not tokens.shape[1]:
            raise BadInputError(f"{job.name}: no token of the shots shows the part")
        seen = self._seen(jax.tree.map(jnp.asarray, statistics), job.shots)
        patches = _cut_all(seen.points, self.patches)
        apart = patches.points - patches.points[:, :, :1]
        unit = jnp.linalg.norm(apart, axis=-1).max(-1).mean()
        if not unit > 0:
            raise BadInputError(f"{job.name}: no points of the part lie in the shots")
        flat = (patches.points / unit).reshape(-1, POINTS, 3)
        items = Items({"patches": flat}, len(flat))
        loss = network.PullLoss(self.settings.learning_rate, self.settings.steps)
        learned = descend(
            loss, _create(jax.random.key(job.seed)), {}, items, self.settings, job, report
        )
        some = flat[:: -(-len(flat) // MEASURED)]
        known = {"moments": _measure(learned["encoder"], some), "unit": unit}
        memory = _remember(self.grid, learned["encoder"], known, patches, seen)
        parameters = learned | {"memory": memory}
        known |= {"alignment": self._align(parameters, statistics | known, seen, job)}
        return parameters, known

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """The larger of both distances, as that of the modality that has it; the other's is 0."""

        def one(seen: Seen) -> tuple[Array, Array, Array]:
            return self._judge(parameters, statistics, seen, None)

        photograph, shape, _ = jax.lax.map(one, self._seen(statistics, tokens))
        weight, shift = statistics["alignment"]
        photograph = jnp.maximum(weight * photograph + shift, 0.0)
        own = jnp.where(photograph >= shape, photograph, 0.0)
        found = (own, jnp.where(photograph >= shape, 0.0, shape))
        return jnp.stack(found[::-1] if self.rgb else found), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics; -1 is any size."""

        def shaped(*sizes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(sizes, jnp.float32)

        patches, tokens = self.patches, self.grid[0] * self.grid[1]
        memory = {
            "codes": shaped(-1, patches, network.CODE),
            "boxes": shaped(-1, patches, 4),
            "tokens": shaped(-1, tokens, self.widths[0]),
            "counted": shaped(-1, tokens),
        }
        parameters = jax.eval_shape(lambda: network.create(jax.random.key(0)))
        moments = jax.eval_shape(_measure, parameters["encoder"], shaped(1, POINTS, 3))
        known = {"moments": moments, "unit": shaped(), "alignment": shaped(2)}
        scale = statistics_shapes(self.settings.scale, 1, self.widths[0])
        return parameters | {"memory": memory}, scale | known

    def _photograph(self, tokens: Tokens) -> Tokens:
        own = tokens.values[self.rgb : self.rgb + 1, ..., : self.widths[0]]
        return Tokens(own, tokens.valid)

    def _seen(self, statistics: Params, tokens: Tokens) -> Seen:
        x = scaled(self.settings, self.grid, statistics, self._photograph(tokens))[0]
        points = jnp.asarray(tokens.values[1 - self.rgb])[..., : self.widths[1]]
        (rows, columns), side = self.grid, math.isqrt(self.widths[1] // 3)
        points = points.reshape(len(x), rows, columns, side, side, 3).swapaxes(2, 3)
        points = points.reshape(len(x), rows * side, columns * side, 3)
        return Seen(x, jnp.asarray(tokens.valid), points)

    def _judge(
        self, parameters: Params, statistics: Params, seen: Seen, barred: Barred | None
    ) -> tuple[Float[Array, " N"], Float[Array, " N"], Bool[Array, " N"]]:
        """Distances of one scan's photograph and of its shape, and which tokens have the latter."""
        memory = parameters["memory"]
        own = cut_patches(seen.points, self.patches, POINTS, REACH)
        patches = own.points / statistics["unit"]
        codes, _ = network.encode(parameters["encoder"], patches, statistics["moments"])
        out = jnp.zeros((1, *memory["codes"].shape[:2]), bool) | (barred.codes if barred else False)
        bank = memory["codes"].reshape(-1, network.CODE)
        places, atoms = closest(codes, bank, out.reshape(len(out), -1), CODES)
        rebuilt = pursue(codes, atoms, ATOMS)
        away = jnp.abs(network.distance(parameters["field"], rebuilt, patches))
        shape, measured = self._by_token(own.places, away, seen.points)
        cells = cells_of(own.places, seen.points.shape[1], self.grid)
        counted = (memory["counted"][None] > 0) & (True if barred is None else ~barred.tokens)
        allowed = self._guided(memory, cells, places) & counted
        out = ~jnp.where(allowed.any((1, 2), keepdims=True), allowed, counted)
        bank = memory["tokens"].reshape(-1, seen.tokens.shape[-1])
        _, atoms = closest(seen.tokens, bank, out.reshape(len(out), -1), TOKENS)
        missed = seen.tokens - pursue(seen.tokens, atoms, ATOMS)
        return jnp.linalg.norm(missed, axis=-1), shape, measured

    def _guided(
        self, memory: Params, cells: Int[Array, "P K"], places: Int[Array, "P A"]
    ) -> Bool[Array, "N I N"]:
        """Which tokens of the memory lie by patches that a token's own patches resemble.

        Args:
            memory: of the shots.
            cells: the tokens that each patch of the scan lies in.
            places: the patches of the memory that it resembles, among all of them.
        """
        (scans, tokens), patches = memory["counted"].shape, len(cells)
        tied = within(memory["boxes"].reshape(-1, 4)[places], self.grid).astype(jnp.float32)
        scan = jax.nn.one_hot(places // patches, scans, dtype=jnp.float32)
        reached = jnp.einsum("pas,pan->psn", scan, tied).reshape(patches, -1)
        patch = jnp.arange(patches, dtype=jnp.int32)[:, None]
        holds = jnp.zeros((tokens, patches)).at[cells, patch].set(1.0)
        return (product(holds, reached) > 0).reshape(tokens, scans, tokens)

    def _by_token(
        self, places: Int[Array, "P K"], away: Float[Array, "P K"], points: Float[Array, "h w 3"]
    ) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
        """The mean over each token's points of the least distance that a patch gives them."""
        shape = points.shape[:2]
        least = jnp.full(shape[0] * shape[1], jnp.inf).at[places.reshape(-1)].min(away.reshape(-1))
        known = jnp.isfinite(least).reshape(shape) & jnp.any(points != 0, axis=-1)
        values = jnp.stack([jnp.where(known, least.reshape(shape), 0.0), jnp.ones(shape)], -1)
        means = patch_means(values, known, self.grid)
        return means[:, 0], means[:, 1] > 0

    def _align(
        self, parameters: Params, statistics: Params, seen: Seen, job: TrainingJob
    ) -> Float[np.ndarray, " 2"]:
        """Weight and shift that give the photograph's distances mean and deviation of shapes'."""
        scans, each = len(seen.tokens), 1 + job.copies
        rows = []
        for place in range(0, scans, each)[:ALIGNED]:
            barred = self._barred(place, scans, each)
            one = Seen(*(x[place] for x in seen))
            photograph, shape, measured = _judged(self, parameters, statistics, one, barred)
            rows.append(np.stack([photograph, shape])[:, np.asarray(one.counted & measured)])
        known = np.concatenate(rows, 1)
        if not known.shape[1]:
            raise BadInputError(f"{job.name}: no points of the part lie in the shots")
        (mean, target), (deviation, wanted) = known.mean(1), known.std(1)
        weight = wanted / deviation if min(wanted, deviation) > 0 else 1.0
        return np.array([weight, target - weight * mean], np.float32)

    def _barred(self, place: int, scans: int, each: int) -> Barred:
        """What of the memory is not looked at when the shot at that place is judged."""
        if scans > each:
            own = np.arange(scans) // each == place // each
            every = jnp.asarray(own[None, :, None])
            return Barred(every, every)

        def itself(count: int) -> Bool[Array, "n I n"]:
            own = np.zeros((count, scans, count), bool)
            own[:, place] = np.eye(count, dtype=bool)
            return jnp.asarray(own)

        return Barred(itself(self.patches), itself(self.grid[0] * self.grid[1]))


@partial(jax.jit, static_argnums=0)
def _judged(
    method: ShapeGuided, parameters: Params, statistics: Params, seen: Seen, barred: Barred
) -> tuple[Array, Array, Array]:
    return method._judge(parameters, statistics, seen, barred)


_create = jax.jit(network.create)


@partial(jax.jit, static_argnums=1)
def _cut_all(points: Float[Array, "B h w 3"], count: int) -> Patches:
    return jax.lax.map(lambda one: cut_patches(one, count, POINTS, REACH), points)


@jax.jit
def _measure(encoder: Params, patches: Float[Array, "B K 3"]) -> Params:
    """The moments inside the trained encoder."""
    return network.encode(encoder, patches)[1]


@partial(jax.jit, static_argnums=0)
def _remember(
    grid: tuple[int, int], encoder: Params, known: Params, patches: Patches, seen: Seen
) -> Params:
    """Codes and tokens of the shots, and where their patches lie."""
    width = seen.points.shape[2]

    def one(given: tuple[Array, Array]) -> tuple[Array, Array]:
        points, places = given
        codes, _ = network.encode(encoder, points / known["unit"], known["moments"])
        return codes, boxes_of(cells_of(places, width, grid), grid[1])

    codes, boxes = jax.lax.map(one, (patches.points, patches.places))
    counted = seen.counted.astype(jnp.float32)
    return {"codes": codes, "boxes": boxes, "tokens": seen.tokens, "counted": counted}
