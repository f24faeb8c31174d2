"""What a decoder takes from the shots before it is trained: prototypes, principal directions.

Dimension letters: T tokens of all shots together, K prototypes, C channels, R rank.
Differs from the paper: Algorithm 1 says "randomly initialize". N(0, 1) prototypes have cosines of
0 ± 0.04 with any token, every plan starts uniform, and 60 steps of 1e-4 do not change that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder.distance import unit_vectors

_SHRINK = 1.0  # noise's variance, of the tokens' mean variance


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
    directions = unit_vectors(tokens)
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


def principal_directions(
    tokens: Float[Array, "T C"], rank: int, mass: Float[Array, " T"] | None = None
) -> tuple[Float[Array, "C R"], Float[Array, " R"]]:
    """The tokens' main directions, and how much of each the best linear reconstruction keeps.

    Of tokens under noise of variance s the linear map that rebuilds them best (Wiener's) is
    Σ (Σ + s I)^-1, Σ their second moments: a direction of variance λ keeps λ / (λ + s). s is their
    mean variance.

    Args:
        tokens: (T, C), of every shot, at the decoder's scale.
        rank: R, how many directions; at most C.
        mass: (T,); tokens of mass 0 do not count. None: all do.

    Returns:
        Orthonormal columns, from the least of them to the largest, the largest entry of each
        positive, and their shares in [0, 1].
    """
    mass = jnp.ones(tokens.shape[:1], tokens.dtype) if mass is None else mass
    share = (mass / jnp.maximum(mass.sum(), 1e-12)).astype(tokens.dtype)
    weighed = tokens * share[:, None]
    moments = jnp.matmul(tokens.T, weighed, precision=jax.lax.Precision.HIGHEST)
    variances, directions = jnp.linalg.eigh(moments)
    variances = jnp.maximum(variances, 0.0)
    shrink = jnp.maximum(_SHRINK * variances.mean(), jnp.finfo(tokens.dtype).tiny)
    kept, directions = variances[-rank:], directions[:, -rank:]
    # Solvers leave the sign open: the largest entry of each is made positive.
    largest = jnp.take_along_axis(directions, jnp.abs(directions).argmax(0, keepdims=True), 0)
    return directions * jnp.sign(largest), kept / (kept + shrink)
