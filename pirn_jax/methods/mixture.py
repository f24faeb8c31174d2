"""The mixture: Gaussian prototypes in closed form; odd is what defects explain better than they.

Each prototype is a Gaussian of low rank (a mixture of probabilistic principal components):

    p(x) = Σ_k π_k N(x; μ_k, C_k),   C_k = V_k Λ_k V_k^T + s_k (I - V_k V_k^T)
    d(x) = max(0, -log p(x) - floor) / C

with prototypes μ_k, their R principal directions V_k (C, R) of variances Λ_k, and s_k the mean
variance of all others. Modalities add: their likelihoods multiply. `floor` is the least of what
stands before it over the shots' own tokens, so that a token that is as normal as can be has
distance 0. With `balanced` -Σ_k q_k log π_k N(x; μ_k, C_k) stands for -log p(x), with the token's
shares q in the plan; it is the larger one whatever the plan (Jensen): the floor holds for both.

Fitting takes no gradient step: k-means++, then a few rounds of hard EM, in which each covariance is
drawn to that of all tokens by `prior` pseudo-tokens: with 50 prototypes and five shots some own
fewer tokens than channels.

Where points tell the part from what is around it, copies of the shots are spoiled by pseudo-defects
(`pseudo_defects`), and what these did to tokens, D = E[δ δ^T] of the tokens δ that moved, says how
defects move them. In place of -log p(x) then stands how much likelier a token so moved is, and
without them -log p(x) alone:

    log Σ_k π_k N(x; μ_k, C_k + D) - log p(x)

Of all distances half of the picture's own lower quartile is taken off before the map is made
(`own_level`): another light moves all tokens, a defect those that it covers.

|                | here                                        | PIRN                        |
|----------------|---------------------------------------------|-----------------------------|
| prototypes     | 50, with 32 directions each                 | 10, without                 |
| responsibility | posterior; `balanced`: by optimal transport | balanced transport, Eq. 1   |
| adaptation     | each image on its own mean                  | APR, a GRU (Eq. 5-8)        |
| training       | none                                        | 60 epochs of Adam           |

Source: Tipping and Bishop 1999 (mixtures of probabilistic principal component analysers). Why it is
    the default: experiments/RECIPE.md.

Dimension letters: M modalities, B images, N tokens, C channels, K prototypes (2 K where there are
pseudo-defects: each as it is, then widened), P of them as they are, R directions, T tokens of the
shots, S shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32

from pirn_jax.decoder import Params, Tokens, select_scans
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry.augmentation import Augmentations, spoiled
from pirn_jax.methods.gaussians import (
    Gaussians,
    fit_mixture,
    log_joint,
    log_joint_of,
    moves_of,
    widened,
)
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

_SPOILED = 4  # copies of each shot with pseudo-defects


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
    pseudo_defects: Literal["auto", "on", "off"] = "auto"
    """Whether copies of each shot with spoiled patches say how defects move tokens; auto: where
    points tell the part from what is around it, so that patches lie on the part."""
    balanced: bool = False
    """Which prototype answers for a token is decided by balanced optimal transport over the image,
    each taking the share of its tokens that it has of the shots', and not token by token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(prototypes=1, rank=1, rounds=1, prior=0)

    def augmentations(self) -> Augmentations:
        """What all token methods learn from, then copies with pseudo-defects."""
        return super().augmentations() + spoiled(_SPOILED if self.pseudo_defects == "on" else 0)

    def for_parts(self, any_angle: bool, apart: bool) -> dict[str, object]:
        """How often each shot is turned, and whether it is spoiled as well."""
        decided = super().for_parts(any_angle, apart)
        if self.pseudo_defects == "auto":
            known = apart and self.foreground == "mask"  # else patches lie anywhere
            decided["pseudo_defects"] = "on" if known else "off"
        return decided

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
        if judges.pseudo_defects == "auto":  # nobody decided
            judges = replace(judges, pseudo_defects="off")
        object.__setattr__(self, "judges", judges)

    @property
    def rank(self) -> int:
        """R, at most what the channels allow."""
        return min(self.settings.rank, self.channels - 1)

    @property
    def _gaussians(self) -> int:
        """How many: each prototype, and each widened by what defects do, where that is known."""
        return self.settings.prototypes * (2 if self.settings.pseudo_defects == "on" else 1)

    def learn(self, jobs: Sequence[TrainingJob], **_: Unpack[LearnOptions]) -> list[Trained]:
        """A mixture for each job and modality; no gradient step, so there is no history.

        Raises:
            BadInputError: no token of the shots counts; tokens without those of all copies.
        """
        trained = []
        for job in jobs:
            statistics, tokens, moves = self._tokens_of(job)
            if not tokens.shape[1]:
                raise BadInputError(f"{job.name}: no token of the shots shows the part")
            found = [
                fit_mixture(
                    one,
                    prototypes=self.settings.prototypes,
                    rank=self.rank,
                    prior=self.settings.prior,
                    rounds=self.settings.rounds,
                    seed=job.seed,
                )
                for one in tokens
            ]
            if job.spoiled:
                found = [widened(*pair) for pair in zip(found, moves, strict=True)]
            stacked = Gaussians(*(np.stack(part) for part in zip(*found, strict=True)))
            floors = [self._floor(one, own) for one, own in zip(found, tokens, strict=True)]
            parameters = stacked._asdict() | {"floor": np.array(floors, np.float32)}
            trained.append(Trained(job.name, parameters, statistics, []))
        return trained

    def _tokens_of(
        self, job: TrainingJob
    ) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "M T C"], list[Float[np.ndarray, "_ C"]]]:
        """Statistics, the good tokens, and how pseudo-defects moved tokens of each modality."""
        if not job.spoiled:
            return *fit(self.settings, self.grid, job.shots), []
        each, good = 1 + job.copies, 1 + job.copies - job.spoiled
        count = job.shots.values.shape[1]
        if count % each:
            raise BadInputError(
                f"{job.name}: {count} pictures are not whole shots of {each} pictures each",
                "give the shots' tokens with those of all copies, or fit scans",
            )
        place = np.arange(count).reshape(-1, each)
        own = select_scans(job.shots, place[:, :good].reshape(-1))
        statistics, tokens = fit(self.settings, self.grid, own)
        parts = (
            select_scans(job.shots, place[:, 0]),
            select_scans(job.shots, place[:, good:].reshape(-1)),
        )
        before, after = (
            np.asarray(_scaled(self.settings, self.grid, statistics, part)) for part in parts
        )
        m, shots, n, c = before.shape
        moves = (after.reshape(m, shots, -1, n, c) - before[:, :, None]).reshape(m, -1, n, c)
        return statistics, tokens, [moves_of(one, np.asarray(parts[1].valid)) for one in moves]

    def _floor(self, known: Gaussians, tokens: Float32[np.ndarray, "T C"]) -> float:
        """The least that is found of the shots' own tokens."""
        normal, log_moved = self._parted(jnp.asarray(log_joint_of(self._shared(known), tokens)))
        return float((log_moved - jax.nn.logsumexp(normal, -1)).min())

    def _shared(self, known: Gaussians) -> Gaussians:
        """The same, with each prototype once: widened it has the mean that it had."""
        return known._replace(mean=known.mean[..., : self.settings.prototypes, :])

    def _parted(
        self, joint: Float[Array, "*batch K"]
    ) -> tuple[Float[Array, "*batch P"], Float[Array, "*batch"] | float]:
        """Of the prototypes as they are; and how likely a token is that defects moved, or 0."""
        if joint.shape[-1] == self.settings.prototypes:
            return joint, 0.0
        normal, moved = jnp.split(joint, (self.settings.prototypes,), -1)
        return normal, jax.nn.logsumexp(moved, -1)

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"]]:
        """How odd each token is, in nats a channel, and the share of each prototype."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        known = Gaussians(*(jnp.asarray(parameters[name]) for name in Gaussians._fields))
        joint = jax.vmap(log_joint)(self._shared(known), x)
        assert tokens.valid is not None
        assert joint.shape[-1] == self._gaussians
        mass = jnp.broadcast_to(jnp.asarray(tokens.valid).astype(x.dtype)[None], x.shape[:-1])
        normal, log_moved = self._parted(joint)
        if self.settings.balanced:
            log_weight = known.log_weight[:, None, None, : normal.shape[-1]]
            plan = balanced_plan(
                log_weight - normal,
                epsilon=1.0,
                solver="scan",
                row_mass=mass,
                column_mass=jnp.broadcast_to(
                    jax.nn.softmax(log_weight[:, 0], -1), (*x.shape[:2], normal.shape[-1])
                ),
            ).matrix
            unlikely = -(plan * normal).sum(-1)  # never less than -log p, of which the floor is one
        else:
            plan = jax.nn.softmax(normal, -1) * mass[..., None]
            unlikely = -jax.nn.logsumexp(normal, -1)
        floor = jnp.asarray(parameters["floor"])[:, None, None]
        usage = plan.sum(-2) / jnp.maximum(mass.sum(-1), 1.0)[..., None]
        return jnp.maximum(unlikely + log_moved - floor, 0.0) / self.channels, usage

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        m, k, c, r = self.modalities, self._gaussians, self.channels, self.rank
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


_scaled = jax.jit(scaled, static_argnums=(0, 1))
