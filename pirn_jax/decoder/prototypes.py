"""Where the prototypes start: random directions, or tokens of the shots.

Dimension letters: T tokens of all shots together, K prototypes, C channels.
Differs from the paper: Algorithm 1 says "randomly initialize". N(0, 1) prototypes have cosines of
0 ± 0.04 with any token, every plan starts uniform, and 60 steps of 1e-4 do not change that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.transport.cost import inverse_length


def init_prototypes(
    key: PRNGKeyArray,
    tokens: Float[Array, "T C"],
    k: int,
    mass: Float[Array, " T"] | None = None,
) -> Float[Array, "K C"]:
    """k-means++: tokens drawn one by one, far from those drawn before.

    A token is drawn with probability proportional to its mass times its squared distance from the
    nearest one already drawn, both on the unit sphere, where the cost is measured. k may exceed
    the number of different tokens: what is drawn then repeats.

    Args:
        key: random key.
        tokens: (T, C), of every shot.
        k: how many.
        mass: (T,); tokens of mass 0 are never drawn, as long as there is another. None: 1 each.
    """
    directions = tokens * inverse_length(tokens)[:, None]
    mass = jnp.ones(tokens.shape[:1], tokens.dtype) if mass is None else mass
    # A little everywhere, so that the draw stays defined once every token coincides with one drawn.
    log_mass = jnp.log(mass + jnp.finfo(tokens.dtype).tiny)

    def draw(distance: Array, key: Array) -> tuple[Array, Array]:
        index = jax.random.categorical(key, log_mass + jnp.log(distance + 1e-12))
        cosine = jnp.matmul(directions, directions[index], precision=jax.lax.Precision.HIGHEST)
        return jnp.minimum(distance, jnp.maximum(1.0 - cosine, 0.0)), index

    start = jnp.ones(tokens.shape[:1], tokens.dtype)
    _, indices = jax.lax.scan(draw, start, jax.random.split(key, k))
    return tokens[indices]
