"""The memory bank: every token of the shots is kept; a token is as odd as its nearest is far.

    d(q) = min over b in bank of 1 - cos(q, b)          (or |q - b|)

|                | published                                         | here                       |
|----------------|---------------------------------------------------|----------------------------|
| bank           | PatchCore: a greedy coreset, 10 % or 1 %;         | everything (few shots)     |
|                | AnomalyDINO: everything                           |                            |
| distance       | PatchCore: euclidean; AnomalyDINO: cosine         | either, by default cosine  |
| tokens         | PatchCore: 3x3 means of two CNN stages;           | the encoder's, `pool` for  |
|                | AnomalyDINO: last layer of DINOv2-S               | 3x3 means                  |
| shots          | AnomalyDINO: turned in 45° steps, where "agnostic"| `rotations=8`              |
| image score    | PatchCore: largest distance, re-weighted by the   | `top`   : largest value of  |
|                | neighbour's own neighbours; AnomalyDINO: mean of  | the map, or mean of its    |
|                | the largest 1 % of the tokens' distances          | largest 1 %; no weights    |
| modalities     | one                                               | a bank each, maps summed   |

Background is in no bank and is no part of the score. Distances are exact: the nearest token is
found by matrix products in full precision, in chunks of the bank, and the distance to it is then
taken by itself, so that a token that is in the bank has distance 0. By the cosine a token of zeros,
as background is of points, is at distance 0 from another and 1 from all others.

Source: Roth et al. 2022 (PatchCore, arXiv 2106.08265); Damm et al. 2025 (AnomalyDINO, arXiv
2405.14529) and its released code.

Dimension letters: M modalities, B images, N tokens, C channels, T tokens of the bank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from pirn_jax.decoder import Params, Tokens
from pirn_jax.decoder.distance import cosine_distance
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import TokenSettings, fit, scaled, statistics_shapes
from pirn_jax.training import Trained, TrainingJob

CHUNK = 1024  # tokens of the bank compared at once; the bank is filled up to a multiple


@dataclass(frozen=True)
class MemorySettings(TokenSettings):
    """The memory of the shots' tokens."""

    distance: Literal["cosine", "euclidean"] = "cosine"
    """To the nearest token: cosine (1 - cos), or euclidean."""

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Memory:
        """The memory, for tokens of that encoder."""
        return Memory(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": MemorySettings()}


@dataclass(frozen=True)
class Memory:
    """Nearest neighbours among the tokens of the shots.

    Attributes:
        settings: see MemorySettings.
        modalities: M, how many streams.
        grid: rows and columns of the tokens.
        channels: C.
    """

    settings: MemorySettings
    modalities: int
    grid: tuple[int, int]
    channels: int

    def learn(self, jobs: Sequence[TrainingJob], **_: Unpack[LearnOptions]) -> list[Trained]:
        """A bank for each job; nothing is trained, so there is no history.

        Raises:
            BadInputError: no token of the shots counts.
        """
        trained = []
        for job in jobs:
            statistics, bank = fit(self.settings, self.grid, job.shots)
            if not bank.shape[1]:
                raise BadInputError(f"{job.name}: no token of the shots shows the part")
            trained.append(Trained(job.name, {"bank": filled(bank)}, statistics, []))
        return trained

    def distances(
        self,
        parameters: Params,
        statistics: Params,
        tokens: Tokens,
    ) -> tuple[Float[Array, "M B N"], None]:
        """Each token's distance to its nearest in the bank."""
        queries = scaled(self.settings, self.grid, statistics, tokens)
        m, b, n, c = queries.shape
        flat = queries.reshape(m, b * n, c)
        found = jax.vmap(self._distances)(flat, parameters["bank"])
        return found.reshape(m, b, n), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics; -1 is any size."""
        count = self.modalities
        bank = jax.ShapeDtypeStruct((count, -1, self.channels), jnp.float32)
        return {"bank": bank}, statistics_shapes(self.settings.scale, count, self.channels)

    def _distances(self, queries: Float[Array, "Q C"], bank: Float[Array, "T C"]) -> Array:
        cosine = self.settings.distance == "cosine"
        found = bank[nearest(queries, bank, cosine=cosine)]
        if cosine:
            equal = _is_zero(queries) & _is_zero(found)
            return jnp.where(equal, 0.0, cosine_distance(queries[None], found[None])[0])
        return jnp.linalg.norm(queries - found, axis=-1)


def filled(bank: Float[np.ndarray, "*M T C"]) -> Float[np.ndarray, "*M F C"]:
    """The bank, filled up with itself to whole chunks.

    The nearest stays the nearest, and few shapes are compiled.
    """
    count = bank.shape[-2]
    return bank[..., np.arange(-(-count // CHUNK) * CHUNK) % count, :]


def nearest(
    queries: Float[Array, "Q C"], bank: Float[Array, "T C"], *, cosine: bool = False
) -> Int[Array, " Q"]:
    """The place in the bank of the token nearest to each query.

    Args:
        queries: tokens.
        bank: what is searched; all of it, a chunk at a time.
        cosine: near is a large cosine, which two tokens of zeros have, and not a small euclidean
            distance.
    """
    left, right = (_unit(queries), _unit(bank)) if cosine else (queries, bank)

    def look(
        best: tuple[Array, Array], chunk: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        start, some = chunk
        near = jnp.matmul(left, some.T, precision=jax.lax.Precision.HIGHEST)
        if cosine:
            near = jnp.where(_is_zero(left)[:, None] & _is_zero(some)[None, :], 1.0, near)
        else:  # largest q·b - |b|²/2 is smallest |q - b|
            near = near - 0.5 * jnp.sum(some * some, -1)[None, :]
        place, value = near.argmax(-1), near.max(-1)
        closer = value > best[0]
        places = jnp.where(closer, start + place.astype(jnp.int32), best[1])
        return (jnp.where(closer, value, best[0]), places), None

    size = math.gcd(CHUNK, len(bank))  # CHUNK, for a bank of our making
    chunks = right.reshape(-1, size, right.shape[-1])
    starts = jnp.arange(len(chunks), dtype=jnp.int32) * size
    count = queries.shape[0]  # may be any: a symbol, where it is exported
    none = (jnp.full(count, -jnp.inf, left.dtype), jnp.zeros(count, jnp.int32))
    (_, places), _ = jax.lax.scan(look, none, (starts, chunks))
    return places


def _unit(x: Float[Array, "T C"]) -> Float[Array, "T C"]:
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(length > 0, length, 1.0)


def _is_zero(x: Float[Array, "T C"]) -> Bool[Array, " T"]:
    return ~x.any(-1)
