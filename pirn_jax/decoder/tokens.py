"""Tokens: their one form, and the scale they are brought to before they are input and target.

Raw ViT outputs share a strong mean and a few outlier channels, so their cosines hardly differ.
`token_scale` says what is taken out; the statistics come from the shots and are never trained.

Dimension letters: M modalities, B batch, N tokens, C channels.
Differs from the paper: it says nothing of scale ("none" is its reading); docs/decisions.md, 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

# Of a channel's standard deviation, or of the largest: less than this is not divided by.
SMALLEST = 1e-4
# Share of the variance that whitening keeps; the directions beyond it are dropped.
KEPT_VARIANCE = 0.99
LAYER_NORM_EPSILON = 1e-6


class Tokens(NamedTuple):
    """Patch tokens, in the one form they have from the encoder to the map.

    Stacks of several such (training's jobs) carry their own axis in front of both fields.

    Attributes:
        values: (M, B, N, C), the modalities in the order of the decoder's `modalities`.
        valid: (B, N), False for padding and background. None: all tokens count.
    """

    values: Float[Array | np.ndarray, "*lead M B N C"]
    valid: Bool[Array | np.ndarray, "*lead B N"] | None = None


class Statistic(nnx.Variable):
    """State taken from the shots and never trained."""


def select_scans(tokens: Tokens, places: Int[Array | np.ndarray, " P"]) -> Tokens:
    """A copy of the tokens of the scans at these places, in that order, in memory."""
    valid = None if tokens.valid is None else tokens.valid[places]
    return Tokens(tokens.values[:, places], valid)


def layer_norm(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """LayerNorm without scale and bias: the linear map that follows has its own."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)


def fit_scale(
    kind: str, tokens: Float[Array, "M B N C"], mass: Float[Array, "B N"] | None = None
) -> dict[str, Array]:
    """The statistics `kind` needs, from the shots' tokens.

    Args:
        kind: a `token_scale` of DecoderConfig.
        tokens: (M, B, N, C).
        mass: (B, N); tokens of mass 0 do not count. None: all do.

    Returns:
        "mean" (M, C) for centre, whiten and both ways to standardise; "factor" (M, C) for these
        two; "matrix" (M, C, C) for whiten; nothing for the others.
    """
    if kind not in ("centre", "standardise", "standardise_image", "whiten"):
        return {}
    if kind == "standardise_image":
        tokens = _centre_image(tokens, mass)
    weight = jnp.ones(tokens.shape[1:3], tokens.dtype) if mass is None else mass
    weight = (weight / jnp.maximum(weight.sum(), 1e-12)).astype(tokens.dtype)
    mean = jnp.einsum("mbnc,bn->mc", tokens, weight, precision=jax.lax.Precision.HIGHEST)
    if kind == "centre":
        return {"mean": mean}
    centred = tokens - mean[:, None, None, :]
    if kind.startswith("standardise"):
        deviation = jnp.sqrt(jnp.einsum("mbnc,mbnc,bn->mc", centred, centred, weight))
        floor = SMALLEST * deviation.max(-1, keepdims=True)
        return {"mean": mean, "factor": 1.0 / jnp.maximum(deviation, jnp.maximum(floor, 1e-12))}
    covariance = jnp.einsum(
        "mbnc,mbnd,bn->mcd", centred, centred, weight, precision=jax.lax.Precision.HIGHEST
    )
    variances, directions = jnp.linalg.eigh(covariance)  # ascending
    variances = jnp.maximum(variances, 0.0)
    beyond = jnp.cumsum(variances, -1) <= (1 - KEPT_VARIANCE) * variances.sum(-1, keepdims=True)
    factor = jnp.where(beyond, 0.0, jax.lax.rsqrt(jnp.maximum(variances, 1e-12)))
    matrix = jnp.einsum("mcr,mr,mdr->mcd", directions, factor, directions)
    return {"mean": mean, "matrix": matrix}


def apply_scale(
    kind: str,
    statistics: dict[str, Array],
    tokens: Float[Array, "M B N C"],
    mass: Float[Array, "B N"] | None = None,
) -> Float[Array, "M B N C"]:
    """Tokens at the scale `kind`; each image by itself, whatever the batch."""
    if kind == "none":
        return tokens
    if kind == "layernorm":
        return layer_norm(tokens)
    if kind.endswith("_image"):
        tokens = _centre_image(tokens, mass)
    if kind == "centre_image":
        return tokens
    centred = tokens - statistics["mean"][:, None, None, :]
    if kind.startswith("standardise"):
        return centred * statistics["factor"][:, None, None, :]
    if kind == "whiten":
        return jnp.einsum("mbnc,mcd->mbnd", centred, statistics["matrix"])
    return centred


def _centre_image(
    tokens: Float[Array, "M B N C"], mass: Float[Array, "B N"] | None
) -> Float[Array, "M B N C"]:
    """Each image's tokens from their own mean."""
    if mass is None:
        return tokens - tokens.mean(-2, keepdims=True)
    share = mass / jnp.maximum(mass.sum(-1, keepdims=True), 1e-12)
    return tokens - jnp.einsum("mbnc,bn->mbc", tokens, share)[..., None, :]
