"""What memory and subspace share: tokens of the shots, pooled, centred and scaled.

Dimension letters: M modalities, B images, N tokens on a grid of g_h x g_w, C channels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.decoder.tokens import apply_scale, fit_scale
from pirn_jax.recipes import TokenOptions
from pirn_jax.training import Features


def prepare(
    options: TokenOptions,
    grid: tuple[int, int],
    tokens: Float[Array, "M B N C"],
    valid: Bool[Array, "B N"],
) -> Float[Array, "M B N C"]:
    """Pooled and centred as the options say; each image by itself."""
    mass = valid.astype(tokens.dtype)
    if options.pool:
        tokens = pool(tokens, mass, grid)
    return apply_scale("centre_image", {}, tokens, mass) if options.centre_image else tokens


def pool(
    tokens: Float[Array, "M B N C"], mass: Float[Array, "B N"], grid: tuple[int, int]
) -> Float[Array, "M B N C"]:
    """The mean over 3x3 neighbours, of those there are and that count; alone, a token stays."""
    m, b, n, c = tokens.shape

    def total(field: Float[Array, "_ N D"]) -> Float[Array, "_ N D"]:
        square = field.reshape(-1, *grid, field.shape[-1])
        padded = jnp.pad(square, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]).reshape(field.shape)

    weighed = (tokens * mass[None, :, :, None]).reshape(m * b, n, c)
    count = total(mass[..., None])[None]
    mean = total(weighed).reshape(tokens.shape) / jnp.maximum(count, 1.0)
    return jnp.where(count > 0, mean, tokens)


def fit(
    options: TokenOptions, grid: tuple[int, int], modalities: tuple[str, ...], shots: Features
) -> tuple[dict[str, Array], Float[np.ndarray, "M T C"]]:
    """The scale's statistics, and the scaled tokens of all shots that count, one after the other.

    Args:
        options: how.
        grid: of the tokens.
        modalities: which streams, in this order.
        shots: features of the shots and their copies.
    """
    tokens = jnp.stack([jnp.asarray(getattr(shots, name)) for name in modalities])
    valid = jnp.asarray(shots.valid)
    statistics, scaled = _fit(options, grid, tokens, valid)
    return statistics, np.asarray(scaled)[:, np.asarray(shots.valid)]


@jax.jit(static_argnums=(0, 1))
def _fit(options: TokenOptions, grid: tuple[int, int], tokens: Array, valid: Array) -> Any:
    prepared = prepare(options, grid, tokens, valid)
    mass = valid.astype(tokens.dtype)
    statistics = fit_scale(options.scale, prepared, mass)
    return statistics, apply_scale(options.scale, statistics, prepared, mass)


def scaled(
    options: TokenOptions,
    grid: tuple[int, int],
    statistics: dict[str, Array],
    tokens: Float[Array, "M B N C"],
    valid: Bool[Array, "B N"],
) -> Float[Array, "M B N C"]:
    """Tokens of new images, as those of the shots were prepared."""
    prepared = prepare(options, grid, tokens, valid)
    return apply_scale(options.scale, statistics, prepared, valid.astype(tokens.dtype))


def statistics_shapes(scale: str, modalities: int, channels: int) -> dict[str, Any]:
    """What `fit_scale` would give, as shapes."""
    tokens = jax.ShapeDtypeStruct((modalities, 1, 1, channels), jnp.float32)
    return jax.eval_shape(lambda x: fit_scale(scale, x), tokens)
