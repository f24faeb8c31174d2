"""M3DM: three memories, of the photograph, of the geometry, and of both fused; the three agree.

    d_b(x) = min over bank b of |x_b - m|,      b = rgb, geometry, fused
    d(x)   = Σ_b w_b max(0, d_b(x) - least_b)

A shot is never judged by a bank that holds it: where weights and least distances come from, each
shot is looked up in banks of the others. `decision` says how the weights are found.

|                | published                                       | here                          |
|----------------|-------------------------------------------------|-------------------------------|
| tokens         | DINO ViT-B/8 at 28² and Point-MAE at 56²        | the encoder's, of photograph  |
|                |                                                 | and of normals; or Point-MAE: |
|                |                                                 | `features`                    |
| fusion         | trained on all parts of all categories          | on the shots (`m3dm_fusion`)  |
| scale of banks | all by the mean of geometry's and the deviation | each by its own deviation     |
|                | of the photograph's                             |                               |
| coresets       | 10 % of geometry's bank, and 10 % of *that*     | everything (few shots); or a  |
|                | size of the others                              | `share` of each bank          |
| decision       | two one-class SVMs, fitted to distances of      | z-scores; or such an SVM      |
|                | images to the bank that they fill: all near 0   | (`decision`); of left-out     |
|                |                                                 | shots                         |
| image score    | each bank's largest distance, weighed down      | the map's largest value       |
|                | where its neighbours are far; then the SVM      | (`top`)                       |
| map            | blurred as an 8-bit picture                     | as all methods here           |

The fused bank's part of a distance is shared by the maps of both modalities, half and half.

Source: Wang et al. 2023 (M3DM, arXiv 2303.00601) and its released code.

Dimension letters: M modalities, S shots and their copies, B images, N tokens, C channels, T tokens
of a bank or of the shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError, MissingDependencyError, PirnError
from pirn_jax.methods import m3dm_fusion as fusion
from pirn_jax.methods.coreset import coreset
from pirn_jax.methods.memory import filled, nearest
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import TokenSettings, fit, scaled, statistics_shapes
from pirn_jax.training import HistoryLine, Trained, TrainingJob

BANKS = ("rgb", "geometry", "fused")
LAMBDAS = (1.0, 0.1, 1.0)  # published, of geometry, rgb, fused: what distances are taken times
PARTS = 10  # shots are left out one by one, or, where there are more, in so many parts
_SVM = {"nu": 0.5, "max_iter": 1000}


@dataclass(frozen=True)
class M3dmSettings(TokenSettings):
    """Memories of photograph, geometry and both."""

    needs_both: ClassVar[str | None] = "m3dm fuses photograph and geometry"

    share: float = 1.0
    """Of each bank that is kept: its coreset. A tenth, as published, is a few dozen tokens of five
    shots: the extremes, which leave the usual ones far away."""
    steps: int = 100
    """Gradient steps of the fusion."""
    decision: Literal["z_score", "one_class_svm"] = "z_score"
    """How the three distances become one: z_score: each over the deviation it has among good parts;
    one_class_svm: as published, weights of a one-class SVM, which needs scikit-learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(steps=1)
        if not 0 < self.share <= 1:
            raise ConfigError(f"share: expected a share in (0, 1], got {self.share}", "use 0.1")

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> M3dm:
        """The three memories, for tokens of that encoder."""
        rgb = modalities.index("rgb")
        widths = encoder.widths(modalities)
        return M3dm(self, rgb, encoder.grid, encoder.channels, (widths[rgb], widths[1 - rgb]))


RECIPES = {"default": M3dmSettings()}


@dataclass(frozen=True)
class M3dm:
    """Three memories and their decision.

    Attributes:
        settings: see M3dmSettings; only what judges is compared.
        rgb: place of the photograph among the two modalities.
        grid: rows and columns of the tokens.
        channels: C of the tokens as they come.
        widths: channels of the photograph's and the geometry's tokens; the rest of C is 0.
    """

    settings: M3dmSettings = field(compare=False)
    rgb: int
    grid: tuple[int, int]
    channels: int
    widths: tuple[int, int]
    judges: M3dmSettings = field(init=False)

    def __post_init__(self) -> None:
        judges = replace(self.settings, jitter=0, photometric=0, rotations=1, share=1.0, steps=1)
        object.__setattr__(self, "judges", replace(judges, decision="z_score"))

    def learn(self, jobs: Sequence[TrainingJob], **options: Unpack[LearnOptions]) -> list[Trained]:
        """The fusion, the three coresets and the weights of each job.

        Raises:
            BadInputError: no token of the shots counts.
            MissingDependencyError: a one-class SVM without scikit-learn.
            PirnError: its weights are of no use.
        """
        # Filled up to one number of images, so that one program serves all.
        most = max(job.shots.values.shape[1] for job in jobs)
        progress, steps = options.get("progress"), self.settings.steps
        trained = []
        for place, job in enumerate(jobs, 1):
            result = self._learn(job, most)
            trained.append(result)
            if progress is not None:
                progress(place * steps, len(jobs) * steps, {job.name: result.history[-1]})
        return trained

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """The weighed distances of each token to its nearest in the three banks."""
        streams = self._streams(scaled(self.settings, self.grid, statistics, tokens))
        described = describe(parameters["fusion"], *streams)
        odd = []
        for place, (name, queries) in enumerate(zip(BANKS, described, strict=True)):
            flat = queries.reshape(-1, queries.shape[-1])
            away = to_nearest(flat, jnp.asarray(parameters[name]))
            above = jnp.maximum(away - parameters["least"][place], 0.0)
            odd.append(parameters["weight"][place] * above.reshape(queries.shape[:-1]))
        rgb, geometry = odd[0] + 0.5 * odd[2], odd[1] + 0.5 * odd[2]
        return jnp.stack((geometry, rgb) if self.rgb else (rgb, geometry)), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics; -1 is any size."""
        networks = jax.eval_shape(lambda: fusion.create(0, self.widths))
        for network in networks.values():
            del network["head"]
        shapes = zip(BANKS, (*self.widths, sum(self.widths)), strict=True)
        parameters: Params = {
            name: jax.ShapeDtypeStruct((-1, width), jnp.float32) for name, width in shapes
        }
        three = jax.ShapeDtypeStruct((len(BANKS),), jnp.float32)
        parameters |= {"fusion": networks, "weight": three, "least": three}
        return parameters, statistics_shapes(self.settings.scale, 2, self.channels)

    def _streams(self, tokens: Array) -> tuple[Array, Array]:
        """The photograph's and the geometry's tokens, each with its own channels."""
        of_rgb, of_geometry = self.widths
        return tokens[self.rgb][..., :of_rgb], tokens[1 - self.rgb][..., :of_geometry]

    def _learn(self, job: TrainingJob, most: int) -> Trained:
        settings, shots = self.settings, job.shots
        assert shots.valid is not None
        valid = np.asarray(shots.valid)
        if not valid.any():
            raise BadInputError(f"{job.name}: no token of the shots shows the part")
        statistics, _ = fit(settings, self.grid, shots)
        streams = self._streams(scaled(settings, self.grid, statistics, shots))
        rgb, geometry = (_padded(np.asarray(stream), most) for stream in streams)
        networks, losses = fusion.train(
            job.seed, rgb, geometry, _padded(valid, most), len(valid), settings.steps
        )
        described = [np.asarray(bank)[valid] for bank in describe(networks, *streams)]
        place = np.arange(len(valid)) // (1 + job.copies)
        shot = np.broadcast_to(place[:, None], valid.shape)[valid]
        away = np.stack([left_out(bank, shot, settings.share) for bank in described], -1)
        deviations = np.array([bank.std() for bank in described])
        parameters = {
            name: filled(coreset(bank, settings.share))
            for name, bank in zip(BANKS, described, strict=True)
        }
        parameters |= {
            "fusion": networks,
            "weight": self._weights(away, deviations, job).astype(np.float32),
            "least": away.min(0).astype(np.float32),
        }
        history = [
            HistoryLine(job=job.name, epoch=step, step=step, loss=float(loss))
            for step, loss in enumerate(losses, 1)
        ]
        return Trained(job.name, parameters, statistics, history)

    def _weights(
        self, away: Float[np.ndarray, "T 3"], deviations: Float[np.ndarray, " 3"], job: TrainingJob
    ) -> Float[np.ndarray, " 3"]:
        """What the three distances are taken times.

        Args:
            away: of good tokens, to banks without them.
            deviations: of each bank's values: the scale of its distances, for the SVM.
            job: its seed and name.
        """
        if self.settings.decision == "z_score":
            spread = away.std(0)
            return 1 / np.where(spread > 0, spread, np.maximum(deviations, 1e-12))
        try:
            from sklearn.linear_model import SGDOneClassSVM
        except ImportError as error:
            raise MissingDependencyError(
                "decision one_class_svm needs scikit-learn", "pip install scikit-learn"
            ) from error
        geometry, rgb, fused = LAMBDAS
        scale = np.array([rgb, geometry, fused]) / np.maximum(deviations, 1e-12)
        svm = SGDOneClassSVM(**_SVM, random_state=job.seed).fit(away * scale)
        # A plane w·x = offset with good parts beyond it: w·x itself is what is published as the
        # score, which grows with distances where all of w is positive.
        weights = np.maximum(np.asarray(svm.coef_).reshape(-1), 0) * scale
        if not weights.any():
            raise PirnError(
                f"{job.name}: no weight of the one-class SVM is positive", "use decision z_score"
            )
        return weights


def describe(
    networks: Params, rgb: Float[Array, "*batch C"], geometry: Float[Array, "*batch D"]
) -> tuple[Array, Array, Array]:
    """What the three banks hold of tokens: photograph, geometry, and both fused."""
    halves = (fusion.fuse(networks["geometry"], geometry), fusion.fuse(networks["rgb"], rgb))
    return rgb, geometry, jnp.concatenate(halves, axis=-1)


def left_out(
    tokens: Float[np.ndarray, "T C"], shot: np.ndarray, share: float
) -> Float[np.ndarray, " T"]:
    """Each token's distance to its nearest in the coreset of all other shots' tokens.

    Args:
        tokens: of the shots.
        shot: which shot each is of; of a single shot, its own other tokens are searched.
        share: of the coreset.
    """
    from scipy.spatial.distance import cdist

    known = np.unique(shot)
    if len(known) == 1:
        between = cdist(tokens, tokens)
        np.fill_diagonal(between, np.inf)
        return np.where(np.isfinite(low := between.min(1)), low, 0.0).astype(np.float32)
    found = np.empty(len(tokens), np.float32)
    for part in np.array_split(known, min(len(known), PARTS)):
        own = np.isin(shot, part)
        # Filled up, so that few shapes are compiled.
        given = filled(tokens[own]), filled(coreset(tokens[~own], share))
        found[own] = np.asarray(_to_nearest(*map(jnp.asarray, given)))[: own.sum()]
    return found


def to_nearest(queries: Float[Array, "Q C"], bank: Float[Array, "T C"]) -> Float[Array, " Q"]:
    """Each query's distance to its nearest in a bank."""
    return jnp.linalg.norm(queries - bank[nearest(queries, bank)], axis=-1)


_to_nearest = jax.jit(to_nearest)


def _padded(field: np.ndarray, most: int) -> np.ndarray:
    """With images of zeros at the end, of which nothing is valid."""
    return np.pad(field, [(0, most - len(field))] + [(0, 0)] * (field.ndim - 1))
