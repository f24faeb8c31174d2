"""Pictures to score in one compiled program; with another runtime for the encoder, in two.

Dimension letters: M modalities, B batch, h w model pixels, N tokens, C channels.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.config import DecoderConfig
from pirn_jax.decoder import Tokens, merge
from pirn_jax.encoder import Encoder
from pirn_jax.scoring import score_tokens
from pirn_jax.training.step import skeleton


@functools.lru_cache(maxsize=4)
def programs(encoder: Encoder, config: DecoderConfig, top: float) -> tuple[Any, Any]:
    """Compiled once for all models of a config: from pictures, and from tokens, to maps."""
    graph, _, _ = skeleton(config, encoder.config.width)
    names = config.modalities

    def from_tokens(
        parameters: Any, statistics: Any, tokens: Float[Array, "M B N C"], valid: Bool[Array, "B N"]
    ) -> tuple[Array, dict[str, Array], Array, Array]:
        given = Tokens(**{name: tokens[place] for place, name in enumerate(names)})
        rebuilt = merge(graph, parameters, statistics)(given, valid)
        target = {name: getattr(rebuilt.target, name) for name in names}
        # What is no part of the object counts as perfectly rebuilt.
        output = {
            name: jnp.where(valid[..., None], getattr(rebuilt, name), target[name])
            for name in names
        }
        maps = score_tokens(target, output, encoder.image_size, grid=encoder.grid, top=top)
        return maps.fused, maps.modalities, maps.score, rebuilt.diagnostics.usage[-1]

    def from_pictures(
        weights: Any,
        parameters: Any,
        statistics: Any,
        pictures: Float[Array, "M B h w 3"],
        valid: Bool[Array, "B N"],
    ) -> tuple[Array, dict[str, Array], Array, Array]:
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
