"""Cosine cost between tokens and prototypes, whole or head by head.

Dimension letters: N tokens, K prototypes, C channels, H heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

# Below this length a vector has no direction: its cosine with anything is 0, its cost 1.
SHORTEST = 1e-12


def at_least_float32(x: Array) -> Array:
    """bf16, fp16 and integers raised to float32; float32 and float64 left alone."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def inverse_length(x: Float[Array, "*batch C"]) -> Float[Array, "*batch"]:
    """1/|x| along the last axis; 0, with gradient 0, for a vector of length 0."""
    squared = (x * x).sum(-1)
    there = squared > SHORTEST**2
    return jnp.where(there, jax.lax.rsqrt(jnp.where(there, squared, 1.0)), 0.0)


def cosine_cost(
    tokens: Float[Array, "*batch N C"],
    prototypes: Float[Array, "*batch K C"],
    heads: int | None = None,
) -> Float[Array, "*lead N K"]:
    """C_nk = 1 − cos(z_n, p_k), in [0, 2]: paper, section 3.2.

    The product is taken first and divided by the lengths afterwards, so that no normalised copy
    of the tokens is made; at highest precision, because ε = 0.05 multiplies an error by 20
    (a GPU's TF32 product would be wrong by 1e-2 in the exponent).

    Args:
        tokens: (..., N, C).
        prototypes: (..., K, C), the same leading axes.
        heads: None for one cosine over all channels; otherwise the channels are cut into so many
            equal parts and each has its own cost: every assignment works head by head, which is
            multi-head transport.

    Returns:
        (..., N, K), or (..., heads, N, K). Zero vectors cost 1.
    """
    tokens, prototypes = at_least_float32(tokens), at_least_float32(prototypes)
    if heads is not None:
        tokens = tokens.reshape(*tokens.shape[:-1], heads, -1)
        prototypes = prototypes.reshape(*prototypes.shape[:-1], heads, -1)
        dot = jnp.einsum(
            "...nhd,...khd->...hnk", tokens, prototypes, precision=jax.lax.Precision.HIGHEST
        )
        rows = jnp.swapaxes(inverse_length(tokens), -1, -2)
        columns = jnp.swapaxes(inverse_length(prototypes), -1, -2)
    else:
        dot = jnp.einsum(
            "...nc,...kc->...nk", tokens, prototypes, precision=jax.lax.Precision.HIGHEST
        )
        rows, columns = inverse_length(tokens), inverse_length(prototypes)
    return 1.0 - dot * rows[..., :, None] * columns[..., None, :]
