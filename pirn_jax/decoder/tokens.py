"""Tokens, and the scale they are brought to before they are both input and target.

Raw ViT outputs share a strong mean and a few outlier channels, so their cosines hardly differ.
`token_scale` says what is taken out; the statistics come from the shots and are never trained.

Dimension letters: M modalities, B batch, N tokens, C channels.
Differs from the paper: it says nothing of scale ("none" is its reading); DECISIONS 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from pirn_jax.errors import BadInputError

# Of a channel's standard deviation, or of the largest: less than this is not divided by.
SMALLEST = 1e-4
# Share of the variance that whitening keeps; the directions beyond it are dropped.
KEPT_VARIANCE = 0.99
LAYER_NORM_EPSILON = 1e-6


class Tokens(NamedTuple):
    """Patch tokens per modality, float (B, N, C); None for a stream that is not there."""

    rgb: Float[Array, "B N C"] | None = None
    normals: Float[Array, "B N C"] | None = None


class Statistic(nnx.Variable):
    """State taken from the shots and never trained."""


def stack(tokens: Tokens, modalities: tuple[str, ...]) -> Float[Array, "M B N C"]:
    """The streams named, on a leading axis.

    Raises:
        BadInputError: a stream is missing, or they differ in shape.
    """
    streams = [getattr(tokens, name) for name in modalities]
    shapes = [() if stream is None else stream.shape for stream in streams]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3:
        raise BadInputError(
            f"expected tokens (B, N, C) of one shape for {' and '.join(modalities)}; got "
            + ", ".join(f"{n} {s or None}" for n, s in zip(modalities, shapes, strict=True)),
            "give every stream the model was built for, or build it with fewer modalities",
        )
    return jnp.stack(streams)


def unstack(stacked: Float[Array, "M B N C"], modalities: tuple[str, ...]) -> Tokens:
    """`stack` undone."""
    return Tokens(**{name: stacked[i] for i, name in enumerate(modalities)})


def normalised(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
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
        return normalised(tokens)
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
