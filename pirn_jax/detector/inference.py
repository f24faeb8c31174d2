"""Pictures to score in one compiled program; with another runtime for the encoder, in two.

Dimension letters: M modalities, B batch, h w model pixels, N tokens, C channels, K prototypes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.encoder import Encoder
from pirn_jax.methods.method import Method
from pirn_jax.scoring import score_distances

Judgement = tuple[Array, dict[str, Array], Array, Array | None]


@functools.lru_cache(maxsize=4)
def programs(
    encoder: Encoder, method: Method, modalities: tuple[str, ...], top: float
) -> tuple[Any, Any]:
    """Compiled once for all models of a method: from pictures, and from tokens, to maps.

    Both return the fused map (B, h, w), each modality's, the score (B,), and (M, B, K) the share of
    the tokens each prototype answers for, None where there are none.
    """

    def from_tokens(
        parameters: Any, statistics: Any, tokens: Float[Array, "M B N C"], valid: Bool[Array, "B N"]
    ) -> Judgement:
        distance, usage = method.distances(parameters, statistics, tokens, valid)
        # What is no part of the object counts as perfectly rebuilt.
        distance = jnp.where(valid[None], distance, 0.0)
        each = {name: distance[place] for place, name in enumerate(modalities)}
        maps = score_distances(each, encoder.image_size, grid=encoder.grid, top=top)
        return maps.fused, maps.modalities, maps.score, usage

    def from_pictures(
        weights: Any,
        parameters: Any,
        statistics: Any,
        pictures: Float[Array, "M B h w 3"],
        valid: Bool[Array, "B N"],
    ) -> Judgement:
        stacked = pictures.reshape(-1, *pictures.shape[2:])
        tokens = encoder.tokens(weights, stacked)
        tokens = tokens.reshape(*pictures.shape[:2], *tokens.shape[1:])
        return from_tokens(parameters, statistics, tokens, valid)

    scored = jax.jit(from_tokens)
    if encoder.runtime == "jax":
        return jax.jit(from_pictures), scored

    def in_two(
        _: Any,
        parameters: Any,
        statistics: Any,
        pictures: Float[Array | np.ndarray, "M B h w 3"],
        valid: Bool[Array | np.ndarray, "B N"],
    ) -> tuple[Array, dict[str, Array], Array, Array]:
        tokens = encoder(pictures.reshape(-1, *pictures.shape[2:]))
        tokens = tokens.reshape(*pictures.shape[:2], *tokens.shape[1:])
        return scored(parameters, statistics, tokens, valid)

    return in_two, scored
