"""How far a rebuilt token is from what it should equal: one measure for the loss and for the score.

    cosine    1 − cos(E, Z) = ½ |E/|E| − Z/|Z||²                (paper, "Training and Inference")
    squared   mean over channels of (E − Z)²

The cosine is taken as half the squared distance of the unit vectors, which is the same number but
does not cancel: never negative, and exact to rounding where E and Z nearly agree. Its gradient is 0
where either is a zero vector.

Dimension letters: C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.transport.cost import at_least_float32


def unit_vectors(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """x/|x| along the last axis, at any scale of x; zero vectors stay zero."""
    return _directions(x)[0]


def cosine_distance(
    a: Float[Array, "*batch C"], b: Float[Array, "*batch C"]
) -> Float[Array, "*batch"]:
    """1 − cos along the last axis, in [0, 2]; 1 where either is zero; in float32 or better."""
    (a, a_there), (b, b_there) = _directions(a), _directions(b)
    difference = a - b
    return jnp.where(a_there & b_there, 0.5 * (difference * difference).sum(-1), 1.0)


def squared_distance(
    a: Float[Array, "*batch C"], b: Float[Array, "*batch C"]
) -> Float[Array, "*batch"]:
    """Mean over channels of (a − b)²."""
    difference = a - b
    return (difference * difference).mean(-1)


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "cosine": cosine_distance,
    "squared": squared_distance,
}
"""By the name that `DecoderConfig.distance` gives them."""


def _directions(
    x: Float[Array, "*batch C"],
) -> tuple[Float[Array, "*batch C"], Bool[Array, "*batch"]]:
    """Unit vectors, and whether there is one."""
    x = at_least_float32(x)
    # Divided out first, so that squares neither overflow nor vanish; no direction depends on it.
    largest = jax.lax.stop_gradient(jnp.abs(x).max(-1, keepdims=True))
    there = ~(largest <= 0)  # so that what is not a number stays so
    x = x / jnp.where(there, largest, 1.0)
    length = jnp.sqrt(jnp.where(there, (x * x).sum(-1, keepdims=True), 1.0))
    return x / length, there[..., 0]
