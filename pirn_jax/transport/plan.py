"""What every assignment returns: the plan, and how far it is from a balanced one.

Dimension letters: N tokens, K prototypes; `*batch` any leading axes (images, modalities, heads).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Shaped


class Plan(NamedTuple):
    """How much of each token goes to each prototype.

    Attributes:
        matrix: float (..., N, K), non-negative. Balanced: row n sums to the token's mass (1 unless
            masses were given, 0 for padding) and every column to N/K, or its share of the mass.
            Assignments that are not balanced state in their docstring what their rows sum to.
        row_error: float (...): largest relative distance of a row's sum from its mass, over the
            rows that have one.
        column_error: float (...): the same for the columns: a balanced plan's convergence, and
            the imbalance of every other.
        iterations: int (): Sinkhorn iterations made; 0 where there is nothing to iterate.
    """

    matrix: Float[Array, "*batch N K"]
    row_error: Float[Array, "*batch"]
    column_error: Float[Array, "*batch"]
    iterations: Int[Array, ""]


def masses(
    cost: Float[Array, "*batch N K"],
    row_mass: Shaped[Array | np.ndarray, "*rows N"] | None = None,
    column_mass: Shaped[Array | np.ndarray, "*columns K"] | None = None,
) -> tuple[Float[Array, "*batch N"], Float[Array, "*batch K"]]:
    """The marginals of a balanced plan: the tokens' masses, and the prototypes' shares of them.

    Args:
        cost: (..., N, K); gives shape and dtype.
        row_mass: (..., N), at least 0, broadcast over leading axes; None: 1 for each token.
        column_mass: (..., K), at least 0, any total: scaled to the total of the rows.
            None: equal shares, N/K where every token counts 1.

    Returns:
        rows (..., N) and columns (..., K) of equal total.
    """
    *batch, n, k = cost.shape
    rows = jnp.ones((n,), cost.dtype) if row_mass is None else jnp.asarray(row_mass, cost.dtype)
    rows = jnp.broadcast_to(rows, (*batch, n))
    shares = (
        jnp.ones((k,), cost.dtype) if column_mass is None else jnp.asarray(column_mass, cost.dtype)
    )
    shares = jnp.broadcast_to(shares, (*batch, k))
    shares = shares / shares.sum(-1, keepdims=True)
    return rows, shares * rows.sum(-1, keepdims=True)


def measured(
    matrix: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int = 0,
) -> Plan:
    """A plan with its marginal errors against `rows` and `columns` worked out."""

    def largest(sums: Array, wanted: Array) -> Array:
        error = jnp.abs(sums - wanted) / jnp.where(wanted > 0, wanted, 1.0)
        return jnp.where(wanted > 0, error, 0.0).max(-1)

    return Plan(
        matrix,
        largest(matrix.sum(-1), rows),
        largest(matrix.sum(-2), columns),
        jnp.asarray(iterations, jnp.int32),
    )
