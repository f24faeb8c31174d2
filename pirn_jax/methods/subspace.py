"""The subspace: principal components of the shots' tokens; odd is what they cannot rebuild.

    d(x) = |r|²,  r = (x - m) - V V^T (x - m)

with the mean m and the leading components V (C, R) of the shots' tokens, as many as explain the
given share of their variance.

|                | published                                      | here                          |
|----------------|------------------------------------------------|-------------------------------|
| tokens         | DINOv2-G at 672, mean of seven middle layers   | the encoder's                 |
| shots          | with many turned copies                        | `rotations`, by default none  |
| components     | 99 % of the variance                           | `variance`                    |
| distance       | squared length of the residual                 | that, or 1 - cos of (x - m)   |
|                |                                                | and its projection            |
| image score    | mean of the largest 1 % of the map             | `top`                          |
| modalities     | one                                            | a subspace each, maps summed  |

Source: Lendering et al. 2026 (SubspaceAD, arXiv 2602.23013) and its released settings.

Dimension letters: M modalities, B images, N tokens, C channels, T tokens of the shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.decoder.distance import cosine_distance
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import TokenSettings, fit, scaled, statistics_shapes
from pirn_jax.training import Trained, TrainingJob


@dataclass(frozen=True)
class SubspaceSettings(TokenSettings):
    """Principal components of the shots' tokens."""

    top: float = 0.01
    """Image score: mean of this share of the map's largest values; 0: the largest."""
    variance: float = 0.99
    """Share of the variance that the components kept explain."""
    distance: Literal["cosine", "euclidean"] = "euclidean"
    """Token to its projection: euclidean (the squared length of what is missing), or cosine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance <= 1:
            raise ConfigError(
                f"variance: expected a share in (0, 1], got {self.variance}", "use 0.99"
            )

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Subspace:
        """The subspaces, for tokens of that encoder."""
        return Subspace(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": SubspaceSettings()}


@dataclass(frozen=True)
class Subspace:
    """Residuals of principal components; fields as of `Memory`."""

    settings: SubspaceSettings
    modalities: int
    grid: tuple[int, int]
    channels: int

    def learn(self, jobs: Sequence[TrainingJob], **_: Unpack[LearnOptions]) -> list[Trained]:
        """Mean and components for each job; one decomposition, so there is no history.

        Raises:
            BadInputError: no token of the shots counts.
        """
        trained = []
        for job in jobs:
            statistics, tokens = fit(self.settings, self.grid, job.shots)
            if not tokens.shape[1]:
                raise BadInputError(f"{job.name}: no token of the shots shows the part")
            means, components = zip(
                *(principal(stream, self.settings.variance) for stream in tokens), strict=True
            )
            parameters = {"mean": np.stack(means), "components": np.stack(components)}
            trained.append(Trained(job.name, parameters, statistics, []))
        return trained

    def distances(
        self,
        parameters: Params,
        statistics: Params,
        tokens: Tokens,
    ) -> tuple[Float[Array, "M B N"], None]:
        """Each token's distance to its projection."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        x = x - parameters["mean"][:, None, None]
        components, precise = parameters["components"], jax.lax.Precision.HIGHEST
        inside = jnp.einsum("mbnc,mcr->mbnr", x, components, precision=precise)
        rebuilt = jnp.einsum("mbnr,mcr->mbnc", inside, components, precision=precise)
        if self.settings.distance == "cosine":
            return jax.vmap(cosine_distance)(x, rebuilt), None
        return jnp.sum((x - rebuilt) ** 2, axis=-1), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        count, channels = self.modalities, self.channels
        parameters = {
            "mean": jax.ShapeDtypeStruct((count, channels), jnp.float32),
            "components": jax.ShapeDtypeStruct((count, channels, channels), jnp.float32),
        }
        return parameters, statistics_shapes(self.settings.scale, count, channels)


def principal(
    tokens: Float[np.ndarray, "T C"], variance: float
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C C"]]:
    """The mean, and the leading components that together explain that share of the variance.

    In float64, once per category; columns beyond the components kept are 0, so that shapes do not
    depend on the data.
    """
    exact = tokens.astype(np.float64)
    mean = exact.mean(0)
    centred = exact - mean
    variances, directions = np.linalg.eigh(centred.T @ centred)
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    explained = np.cumsum(variances)
    # As many as are needed to reach the share, the one that reaches it included.
    kept = np.searchsorted(explained, variance * explained[-1]) + 1
    used = np.arange(len(variances)) < kept
    used &= variances > 1e-12 * variances[0]
    return mean.astype(np.float32), (directions * used).astype(np.float32)
