"""Transport problems the tests share: costs as the decoder meets them."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from pirn_jax.transport import assign, balanced_plan, cosine_cost

# Compiled once for all costs of a shape; op by op each call would compile its loops again.
plan_of = jax.jit(balanced_plan, static_argnames=("iterations", "solver", "gradient"))
assigned = jax.jit(assign, static_argnames=("assignment", "epsilon", "iterations", "gradient"))


@lru_cache
def clustered_cost(seed: int, n: int = 256, k: int = 10, channels: int = 64) -> np.ndarray:
    """Cosine costs of tokens in k clusters of very unequal sizes, float64 (n, k)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, channels))
    share = np.exp(-0.5 * np.arange(k))
    which = rng.choice(k, n, p=share / share.sum())
    tokens = centres[which] + 0.3 * rng.normal(size=(n, channels))
    prototypes = centres + 0.5 * rng.normal(size=centres.shape)
    with jax.enable_x64(True):
        cost = np.asarray(cosine_cost(jnp.asarray(tokens), jnp.asarray(prototypes)))
    cost.flags.writeable = False  # it is everyone's
    return cost
