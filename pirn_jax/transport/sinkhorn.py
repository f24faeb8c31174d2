"""Balanced optimal transport between tokens and prototypes: paper, Eq. 1.

    T* = argmin <T, C> − ε H(T)   subject to   T 1 = a,   Tᵀ 1 = b,     a = 1_N, b = N/K 1_K

by a fixed number of Sinkhorn iterations: a fixed cost in time, a static graph to differentiate and
to batch. Convergence is measured and returned (`Plan.column_error`), never waited for: the decoder
hands it on with its diagnostics, layer by layer, and `benchmarks/transport.py` reports it.

With S = −C/ε every solver ends in column potentials g, and the plan is T = a ⊙ softmax_k(S + g):
the last half-step is on the rows, so they sum to their mass exactly, however few iterations.
Four solvers find g:

* `ott`: ott-jax, the reference.
* `scan`: the same iterations in the log domain, a dozen lines; differentiable in every mode.
* `kernel`: the same iterations by matrix scaling (`scaling.py`), products in place of exponentials.
* `pallas`: the same iterations as one kernel for an NVIDIA GPU (`fused.py`); interpreted elsewhere.

`auto` is `kernel`, on CPU and GPU alike: within 1e-5 of ott and the fastest of the first three
(`benchmarks/transport.py` measures both and records the device). `pallas` is not measured yet on
the GPUs it is for.

The gradient of the plan is taken through the iterations (`unroll`), by the implicit function
theorem at the potentials reached (`implicit`: right when they have converged), or is zero (`stop`).
`implicit` eliminates the rows and solves K equations in K unknowns directly, which is exact in
float32 where ott's iterative `ImplicitDiff` fails on clustered costs.

Dimension letters: N tokens, K prototypes.
Source: Cuturi 2013; for absorbing the scalings into the potentials, Schmitzer 2019.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Shaped

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.transport.cost import at_least_float32
from pirn_jax.transport.fused import fused_potentials
from pirn_jax.transport.plan import Plan, masses, measured
from pirn_jax.transport.scaling import scaled_potentials

GRADIENTS = ("unroll", "implicit", "stop")


def log_sinkhorn(
    cost: Float[Array, "*batch N K"],
    epsilons: Float[Array, " T"],
    log_rows: Float[Array, "*batch N"],
    log_columns: Float[Array, "*batch K"],
    row_relaxation: float = 1.0,
    column_relaxation: float = 1.0,
) -> tuple[Float[Array, "*batch N"], Float[Array, "*batch K"]]:
    """Log-domain iterations, columns first, one per entry of `epsilons`.

    Args:
        cost: (..., N, K).
        epsilons: (T,), the regularisation of each iteration, in units of the cost.
        log_rows: (..., N), logarithm of the row masses.
        log_columns: (..., K), logarithm of the column masses.
        row_relaxation: 1 keeps the row masses; τ = ρ/(ρ + ε) < 1 pays ρ KL for leaving them.
        column_relaxation: the same for the columns.

    Returns:
        Potentials f (..., N) and g (..., K) in units of the cost; the plan is exp((f + g − C)/ε).
    """

    def iteration(potentials: tuple[Array, Array], epsilon: Array) -> tuple[tuple, None]:
        f, _ = potentials
        free = jax.nn.logsumexp((f[..., :, None] - cost) / epsilon, axis=-2)
        g = column_relaxation * epsilon * (log_columns - free)
        free = jax.nn.logsumexp((g[..., None, :] - cost) / epsilon, axis=-1)
        return (row_relaxation * epsilon * (log_rows - free), g), None

    # f starts where equal costs would leave it, so that rows without mass never count.
    start = (epsilons[0] * log_rows, jnp.zeros_like(log_columns))
    return jax.lax.scan(iteration, start, epsilons)[0]


def safe_log(mass: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(mass), with so little for no mass that it weighs nothing and stays finite."""
    return jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))


def _by_scan(
    scaled: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int,
) -> Float[Array, "*batch K"]:
    ones = jnp.ones((iterations,), scaled.dtype)
    return log_sinkhorn(-scaled, ones, safe_log(rows), safe_log(columns))[1]


def _ott_potentials(scaled: Array, rows: Array, columns: Array, iterations: int) -> Array:
    """What `_by_ott` computes; only to be called where loose promotion is allowed."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    # inner_iterations = iterations: with ott 0.6.0's default of 10 the backward pass of a fixed
    # number of iterations starts again at iteration 0 and the gradient is 26-46 % wrong.
    solver = sinkhorn.Sinkhorn(
        lse_mode=True,
        inner_iterations=iterations,
        min_iterations=iterations,
        max_iterations=iterations,
        implicit_diff=None,
    )

    def solve(scaled: Array, row: Array, column: Array) -> Array:
        problem = linear_problem.LinearProblem(
            # ε passed, as 1 on the scaled cost: left out, ott takes one that depends on the data.
            geometry.Geometry(cost_matrix=-scaled, epsilon=1.0, relative_epsilon=None),
            a=row,
            b=column,
        )
        # f starts at log a, as everywhere here: from ott's 0 a row without mass, which has no part
        # in the plan, would still move the first iteration.
        return solver(problem, init=(jnp.log(row), jnp.zeros_like(column))).g

    *batch, n, k = scaled.shape
    tiny = jnp.finfo(scaled.dtype).tiny
    total = jnp.maximum(rows.sum(-1, keepdims=True), tiny)
    row = jnp.maximum(rows / total, tiny)
    column = jnp.maximum(columns / total, tiny)
    g = jax.vmap(solve)(scaled.reshape(-1, n, k), row.reshape(-1, n), column.reshape(-1, k))
    return g.reshape(*batch, k)


@contextlib.contextmanager
def _loose_promotion() -> Iterator[None]:
    # ott raises vectors to powers of matrices and mixes ints with floats.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


# Differentiating traces ott once more: a backward pass of our own keeps that under the same rules.
@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_ott(
    scaled: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int,
) -> Float[Array, "*batch K"]:
    with _loose_promotion():
        return _ott_potentials(scaled, rows, columns, iterations)


def _ott_forward(
    scaled: Array, rows: Array, columns: Array, iterations: int
) -> tuple[Array, Callable]:
    with _loose_promotion():
        return jax.vjp(lambda s: _ott_potentials(s, rows, columns, iterations), scaled)


def _ott_backward(iterations: int, pull_back: Callable, g_bar: Array) -> tuple[Array, None, None]:
    with _loose_promotion():
        return pull_back(g_bar)[0], None, None


_by_ott.defvjp(_ott_forward, _ott_backward)


SOLVERS = {
    "ott": _by_ott,
    "scan": _by_scan,
    "kernel": scaled_potentials,
    "pallas": fused_potentials,
}


def _implicit(
    scaled: Float[Array, "*batch N K"],
    g: Float[Array, "*batch K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
) -> Float[Array, "*batch K"]:
    """`g` unchanged in value, with the gradient it has as the root of its own equations.

    The K equations are φ_k(g) = log Σ_n a_n softmax_k(S + g)_nk − log b_k = 0. One Newton step
    from the potentials reached, its matrix held constant, has the implicit gradient; what the
    step would add to the value is taken off again.
    """
    g = jax.lax.stop_gradient(g)
    conditional = jax.nn.softmax(scaled + g[..., None, :], axis=-1)
    weighted = conditional * rows[..., :, None]
    sums = weighted.sum(-2)
    residual = safe_log(sums) - safe_log(columns)
    joint = jnp.einsum(
        "...nk,...nj->...kj", weighted, conditional, precision=jax.lax.Precision.HIGHEST
    )
    tiny = jnp.finfo(scaled.dtype).tiny
    # Adding a constant to g changes nothing: the last term fixes it and leaves the rest alone.
    shares = columns / jnp.maximum(columns.sum(-1, keepdims=True), tiny)
    matrix = (
        jnp.broadcast_to(jnp.eye(g.shape[-1], dtype=g.dtype), joint.shape)
        - joint / jnp.maximum(sums, tiny)[..., :, None]
        + shares[..., None, :]
    )
    step = jnp.linalg.solve(jax.lax.stop_gradient(matrix), residual[..., None])[..., 0]
    return g - (step - jax.lax.stop_gradient(step))


def balanced_plan(
    cost: Shaped[Array | np.ndarray, "*batch N K"],
    *,
    epsilon: float | Float[Array, ""] = 0.05,
    iterations: int = 50,
    solver: str = "ott",
    gradient: str = "unroll",
    row_mass: Shaped[Array | np.ndarray, "*rows N"] | None = None,
    column_mass: Shaped[Array | np.ndarray, "*columns K"] | None = None,
) -> Plan:
    """The balanced plan of Eq. 1, every leading axis a problem of its own.

    Args:
        cost: (..., N, K), finite. bf16 and fp16 are raised to float32; float64 stays.
        epsilon: entropic regularisation in units of the cost, above 0; may be traced.
        iterations: Sinkhorn iterations, at least 1; 50 leave columns of clustered 256×10 cosine
            costs 0.04-2.4 % off at ε = 0.05 (`column_error` says how much).
        solver: "ott", "scan", "kernel", "pallas", or "auto" (the fastest measured that equals ott
            to 1e-5).
        gradient: "unroll", "implicit" or "stop"; see the module's text.
        row_mass: (..., N), at least 0. Padding and background carry 0: their rows of the plan are
            zero, they move no other row, and their gradient is zero. None: 1 each.
        column_mass: (..., K), at least 0, only the proportions count: the total mass of a plan is
            that of its rows. None: equal, so columns sum to N/K.

    Returns:
        The `Plan`. Row n sums to its mass to rounding; columns as far as the iterations came.
        Equal costs (duplicate or zero tokens) give 1/K; K = 1 gives ones; N < K is nothing special.

    Raises:
        ConfigError: unknown solver or gradient, iterations < 1, epsilon ≤ 0.
        BadInputError: the cost is not a matrix, or empty.

    Source: paper Eq. 1; docs/decisions.md, 6 and 7, for ε, iterations and gradient.
    """
    if cost.ndim < 2 or 0 in cost.shape[-2:]:
        raise BadInputError(
            f"expected a cost of shape (..., tokens, prototypes), none of them 0; got {cost.shape}",
            "pass one row per token and one column per prototype",
        )
    if iterations < 1:
        raise ConfigError(f"expected at least 1 Sinkhorn iteration, got {iterations}", "use 50")
    if isinstance(epsilon, int | float) and not epsilon > 0:
        raise ConfigError(f"expected epsilon above 0, got {epsilon}", "use 0.05")
    _known("solver", solver, ("auto", *SOLVERS))
    _known("gradient", gradient, GRADIENTS)

    cost = at_least_float32(jnp.asarray(cost))
    rows, columns = masses(cost, row_mass, column_mass)
    scaled = -cost / jnp.asarray(epsilon, cost.dtype)
    matrix = _solve(
        scaled, rows, columns, iterations, "kernel" if solver == "auto" else solver, gradient
    )
    return measured(matrix, rows, columns, iterations)


# Compiled here so that a call outside `jax.jit` compiles its loops once, not every time.
@partial(jax.jit, static_argnums=(3, 4, 5))
def _solve(
    scaled: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int,
    solver: str,
    gradient: str,
) -> Float[Array, "*batch N K"]:
    """The plan's matrix for S = −C/ε."""
    wanted = rows
    # A problem without any mass (a padded image) has a plan of zeros; solved as one of equal masses
    # it goes through without 0/0.
    empty = rows.sum(-1, keepdims=True) <= 0
    rows, columns = jnp.where(empty, 1.0, rows), jnp.where(empty, 1.0, columns)
    if gradient == "unroll":
        g = SOLVERS[solver](scaled, rows, columns, iterations)
    else:
        g = SOLVERS[solver](jax.lax.stop_gradient(scaled), rows, columns, iterations)
        g = _implicit(scaled, g, rows, columns) if gradient == "implicit" else g
    matrix = wanted[..., :, None] * jax.nn.softmax(scaled + g[..., None, :], axis=-1)
    return jax.lax.stop_gradient(matrix) if gradient == "stop" else matrix


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ConfigError(
            f"unknown {what} {name!r}; expected one of {', '.join(names)}",
            f"did you mean {near[0]!r}?" if near else f"use {names[0]!r}",
        )
