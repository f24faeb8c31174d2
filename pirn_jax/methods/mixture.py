"""The mixture: Gaussian prototypes in closed form; odd is what none of them explains.

Each prototype is a Gaussian of low rank (a mixture of probabilistic principal components):

    p(x) = Σ_k π_k N(x; μ_k, C_k),   C_k = V_k Λ_k V_k^T + s_k (I - V_k V_k^T)
    d(x) = max(0, -log p(x) - floor) / C

with prototypes μ_k, their R principal directions V_k (C, R) of variances Λ_k, and s_k the mean
variance of all others. Modalities add: their likelihoods multiply. `floor` is the least -log p of
the shots' own tokens, so that a token that is as normal as can be has distance 0. With `balanced`
-Σ_k q_k log π_k N(x; μ_k, C_k) stands for -log p(x), with the token's shares q in the plan; it is
the larger one whatever the plan (Jensen), so that the floor holds for both.

Fitting takes no gradient step: k-means++, then a few rounds of hard EM, in which each covariance is
drawn to that of all tokens by `prior` pseudo-tokens: with 50 prototypes and five shots some own
fewer tokens than channels.

Of these distances half of the picture's own lower quartile is taken off before the map is made
(`own_level`): another light moves all tokens, a defect those that it covers.

|                | here                                        | PIRN                        |
|----------------|---------------------------------------------|-----------------------------|
| prototypes     | 50, with 32 directions each                 | 10, without                 |
| responsibility | posterior; `balanced`: by optimal transport | balanced transport, Eq. 1   |
| adaptation     | each image on its own mean                  | APR, a GRU (Eq. 5-8)        |
| training       | none                                        | 60 epochs of Adam           |

Source: Tipping and Bishop 1999 (mixtures of probabilistic principal component analysers). Why it is
    the default: experiments/RECIPE.md.

Dimension letters: M modalities, B images, N tokens, C channels, K prototypes, R directions,
T tokens of the shots.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

from pirn_jax.decoder import Params, Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import (
    TokenSettings,
    check_widths,
    fit,
    scaled,
    statistics_shapes,
)
from pirn_jax.training import Trained, TrainingJob
from pirn_jax.transport import balanced_plan

_NEVER = -1e30  # log weight of a prototype that stands for nothing
_CLUSTERED = 4000  # tokens, at most, that the first clusters are made from
_SPARE = 8  # directions followed beyond those kept, so that these are found faster
_SMALLEST = 1e-6  # variance of a channel at the tokens' scale


@dataclass(frozen=True)
class MixtureSettings(TokenSettings):
    """Gaussian prototypes of low rank."""

    photometric: int = 4
    """Copies of each shot under another light, so that light which changes is no defect; their
    normals are measured again, with noise."""
    jitter: int = 4
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""
    rotations: int = 0
    """Positions each shot is turned to, in equal steps; 1: its own, 8: every 45 degrees; 0: 8 in
    place of the jittered copies where the shots' silhouettes say that parts lie at any angle, else
    1."""
    normalised: bool = True
    """Each encoder block's tokens are normalised before the blocks are averaged, so that late
    blocks, whose tokens are longer, do not outweigh early ones."""
    centre_image: bool = True
    """Each image's tokens are taken from their own mean."""
    scale: Literal["none", "centre", "standardise", "whiten"] = "standardise"
    """Then, by statistics of all the shots' tokens: none, centre, standardise (per channel),
    whiten."""
    own_level: float = 0.5
    """This share of what a picture has everywhere (the lower quartile of its tokens' distances) is
    taken off all of them, so that another light does not mark the whole part; 0: nothing."""
    prototypes: int = 50
    """K, Gaussians per modality."""
    rank: int = 32
    """R, principal directions of each."""
    prior: float = 35.0
    """Pseudo-tokens with the covariance of all tokens that each Gaussian is given."""
    rounds: int = 5
    """Rounds of EM, at most."""
    balanced: bool = False
    """Which prototype answers for a token is decided by balanced optimal transport over the image,
    each taking the share of its tokens that it has of the shots', and not token by token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(prototypes=1, rank=1, rounds=1, prior=0)

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Mixture:
        """The mixtures, for tokens of that encoder.

        Raises:
            ConfigError: its modalities have different numbers of channels.
        """
        check_widths("mixture", modalities, encoder)
        return Mixture(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": MixtureSettings()}


@dataclass(frozen=True)
class Mixture:
    """A mixture of low-rank Gaussians per modality.

    Attributes:
        settings: see MixtureSettings; only what judges is compared.
        modalities: M, how many streams.
        grid: rows and columns of the tokens.
        channels: C.
    """

    settings: MixtureSettings = field(compare=False)
    modalities: int
    grid: tuple[int, int]
    channels: int
    judges: MixtureSettings = field(init=False)

    def __post_init__(self) -> None:
        judges = replace(self.settings, jitter=0, photometric=0, rotations=1, prior=0.0, rounds=1)
        object.__setattr__(self, "judges", judges)

    @property
    def rank(self) -> int:
        """R, at most what the channels allow."""
        return min(self.settings.rank, self.channels - 1)

    def learn(self, jobs: Sequence[TrainingJob], **_: Unpack[LearnOptions]) -> list[Trained]:
        """A mixture for each job and modality; no gradient step, so there is no history.

        Raises:
            BadInputError: no token of the shots counts.
        """
        trained = []
        for job in jobs:
            statistics, tokens = fit(self.settings, self.grid, job.shots)
            if not tokens.shape[1]:
                raise BadInputError(f"{job.name}: no token of the shots shows the part")
            found = [fit_mixture(one, self.settings, self.rank, job.seed) for one in tokens]
            stacked = Gaussians(*(np.stack(part) for part in zip(*found, strict=True)))
            floors = [_floor(one, own) for one, own in zip(found, tokens, strict=True)]
            parameters = stacked._asdict() | {"floor": np.array(floors, np.float32)}
            trained.append(Trained(job.name, parameters, statistics, []))
        return trained

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"]]:
        """How unlikely each token is, in nats a channel, and the share of each prototype."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        known = Gaussians(*(jnp.asarray(parameters[name]) for name in Gaussians._fields))
        joint = jax.vmap(log_joint)(known, x)
        assert tokens.valid is not None
        mass = jnp.broadcast_to(jnp.asarray(tokens.valid).astype(x.dtype)[None], x.shape[:-1])
        log_weight = known.log_weight[:, None, None]
        if self.settings.balanced:
            plan = balanced_plan(
                log_weight - joint,
                epsilon=1.0,
                solver="scan",
                row_mass=mass,
                column_mass=jnp.broadcast_to(
                    jax.nn.softmax(log_weight[:, 0], -1), (*x.shape[:2], joint.shape[-1])
                ),
            ).matrix
            unlikely = -(plan * joint).sum(-1)  # never less than -log p, of which the floor is one
        else:
            plan = jax.nn.softmax(joint, -1) * mass[..., None]
            unlikely = -jax.nn.logsumexp(joint, -1)
        floor = jnp.asarray(parameters["floor"])[:, None, None]
        usage = plan.sum(-2) / jnp.maximum(mass.sum(-1), 1.0)[..., None]
        return jnp.maximum(unlikely - floor, 0.0) / self.channels, usage

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        m, k, c, r = self.modalities, self.settings.prototypes, self.channels, self.rank
        shapes = {
            "mean": (m, k, c),
            "basis": (m, k, c, r),
            "variance": (m, k, r),
            "rest": (m, k),
            "log_weight": (m, k),
            "floor": (m,),
        }
        parameters = {
            name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()
        }
        return parameters, statistics_shapes(self.settings.scale, m, c)


class Gaussians(NamedTuple):
    """A mixture; of several modalities with an axis M in front.

    Attributes:
        mean: (K, C), μ: the prototypes.
        basis: (K, C, R), V: orthonormal columns.
        variance: (K, R), Λ.
        rest: (K,), s: variance of every other direction.
        log_weight: (K,), log π.
    """

    mean: Float[Array | np.ndarray, "*M K C"]
    basis: Float[Array | np.ndarray, "*M K C R"]
    variance: Float[Array | np.ndarray, "*M K R"]
    rest: Float[Array | np.ndarray, "*M K"]
    log_weight: Float[Array | np.ndarray, "*M K"]


def log_joint(
    known: Gaussians, x: Float[Array | np.ndarray, "*batch C"]
) -> Float[Array, "*batch K"]:
    """Log π_k + log N(x; μ_k, C_k), without the constant -C/2 log 2π.

    One matrix product gives all tokens' coordinates in all prototypes' directions.
    """
    mean, basis, variance, rest, log_weight = (jnp.asarray(part) for part in known)
    precise, leading = jax.lax.Precision.HIGHEST, (1,) * (x.ndim - 1)

    def each(value: Array) -> Array:  # one for all tokens
        return value.reshape(leading + value.shape)

    inside = jnp.einsum("...c,kcr->...kr", x, basis, precision=precise)
    inside = inside - each(jnp.einsum("kc,kcr->kr", mean, basis, precision=precise))
    cross = jnp.einsum("...c,kc->...k", x, mean, precision=precise)
    squared = (x * x).sum(-1)[..., None] - 2.0 * cross + each((mean * mean).sum(-1))
    beyond = jnp.maximum(squared - (inside * inside).sum(-1), 0.0)
    channels, rank = basis.shape[-2:]
    determinant = jnp.log(variance).sum(-1) + (channels - rank) * jnp.log(rest)
    mahalanobis = (inside * inside / each(variance)).sum(-1) + beyond / each(rest)
    return each(log_weight - 0.5 * determinant) - 0.5 * mahalanobis


_log_joint = jax.jit(log_joint)


def fit_mixture(
    tokens: Float32[np.ndarray, "T C"], settings: MixtureSettings, rank: int, seed: int
) -> Gaussians:
    """Hard EM from k-means++.

    Prototypes beyond the number of tokens stand for nothing: their weight is 0.

    Args:
        tokens: of the shots, at the method's scale.
        settings: how many prototypes, and how they are fitted.
        rank: R.
        seed: of the clusters' start.
    """
    count, channels = tokens.shape
    used = min(settings.prototypes, count)
    centre = tokens.mean(0)
    everything = _scatter(tokens - centre) / count
    random = np.random.default_rng(seed)
    start = random.standard_normal((channels, min(rank + _SPARE, channels)))
    basis = np.broadcast_to(start.astype(np.float32), (used, *start.shape))
    owner = _clusters(tokens, used, random)
    for step in range(settings.rounds):
        known, basis = _maximise(tokens, owner, used, settings.prior, everything, basis, rank)
        if step + 1 == settings.rounds or used == 1:
            break
        nearest = _each(known, tokens).argmax(-1)
        if (nearest != owner).mean() < 1e-3:
            break
        owner = nearest
    spare = settings.prototypes - used
    if not spare:
        return known
    filled = (np.concatenate([part, part[:1].repeat(spare, 0)]) for part in known)
    known = Gaussians(*filled)
    known.log_weight[used:] = _NEVER
    return known


def _clusters(
    tokens: Float32[np.ndarray, "T C"], count: int, random: np.random.Generator
) -> Int[np.ndarray, " T"]:
    """The cluster of each token: k-means on some of them, then the nearest centre."""
    from scipy.cluster.vq import kmeans2, vq

    some = tokens
    if len(tokens) > _CLUSTERED:
        some = tokens[random.choice(len(tokens), _CLUSTERED, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster: its centre stays
        centres, _ = kmeans2(some, count, iter=8, minit="++", rng=random)
    return vq(tokens, centres, check_finite=False)[0]


def _maximise(
    tokens: Float32[np.ndarray, "T C"],
    owner: Int[np.ndarray, " T"],
    count: int,
    prior: float,
    everything: Float32[np.ndarray, "C C"],
    start: Float32[np.ndarray, "K C S"],
    rank: int,
) -> tuple[Gaussians, Float32[np.ndarray, "K C S"]]:
    """The Gaussians of the tokens that each owns, and the directions to start from next time."""
    channels = tokens.shape[1]
    own = np.bincount(owner, minlength=count)
    mean = np.empty((count, channels), np.float32)
    covariance = np.empty((count, channels, channels), np.float32)
    for k in range(count):
        members = tokens[owner == k]
        mean[k] = members.mean(0) if len(members) else tokens.mean(0)
        weight = len(members) + prior
        total = _scatter(members - mean[k]) + np.float32(prior) * everything
        covariance[k] = total / weight if weight else everything
    basis = start
    for _ in range(4):  # subspace iteration; the next round goes on from here
        basis, _ = np.linalg.qr(covariance @ basis)
    inner = np.swapaxes(basis, 1, 2) @ covariance @ basis
    variance, turn = np.linalg.eigh(inner)
    basis = basis @ turn
    total = np.trace(covariance, axis1=1, axis2=2)
    kept, directions = variance[:, -rank:], basis[:, :, -rank:]
    rest = np.maximum((total - kept.sum(-1)) / (channels - rank), _SMALLEST)
    known = Gaussians(
        mean=mean,
        basis=directions.astype(np.float32),
        variance=np.maximum(kept, rest[:, None]).astype(np.float32),
        rest=rest.astype(np.float32),
        log_weight=np.log((own + 1) / (len(tokens) + count)).astype(np.float32),
    )
    return known, basis


def _scatter(centred: Float32[np.ndarray, "T C"]) -> Float32[np.ndarray, "C C"]:
    return centred.T @ centred


def _each(known: Gaussians, tokens: Float32[np.ndarray, "T C"]) -> Float32[np.ndarray, "T K"]:
    """`log_joint` of many tokens, a piece at a time, all of one shape."""
    piece = 2048
    parts = math.ceil(len(tokens) / piece)
    padded = np.pad(tokens, ((0, parts * piece - len(tokens)), (0, 0)))
    found = [np.asarray(_log_joint(known, one)) for one in np.split(padded, parts)]
    return np.concatenate(found)[: len(tokens)]


def _floor(known: Gaussians, tokens: Float32[np.ndarray, "T C"]) -> float:
    """The least -log p of the shots' own tokens."""
    joint = _each(known, tokens)
    largest = joint.max(-1, keepdims=True)
    return float(-(largest[:, 0] + np.log(np.exp(joint - largest).sum(-1))).max())
