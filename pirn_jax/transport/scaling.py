"""Sinkhorn by matrix scaling: the fast solver, with a backward pass of its own.

In place of 2 N K exponentials an iteration costs two products of one (K, N) matrix with a vector.
Bare scaling overflows; here the scalings go back into the potentials g every few iterations. A
stretch starts from the conditional plan Q = softmax_k(S + g), whose rows sum to 1 and whose
columns, after a first log-domain iteration, to between 1/K and N; one more iteration then moves a
scaling by a factor max(N, K) at most. So 80/log(max(N, K)) iterations are safe whatever the costs
(exp(80) is within float32), and what underflows meanwhile weighs less than 1e-10.

With a, b the masses and Q_t = softmax_k(S + g_t), an iteration is

    c = Q_tᵀ a,    g_{t+1} = g_t + log b − log c

and its transpose, with w = ḡ_{t+1} / c,

    ḡ_t = Q_tᵀ (a ⊙ Q_t w),    S̄_nk −= a_n Q_nk (w_k − (Q_t w)_n).

Inside a stretch Q_t = u_n P_nk v_k with one P, so a backward iteration is two products again, and
S̄ is one product of the stacked vectors after the loop: a fifth of what differentiating the loop
costs. The gradient is of first order and in reverse mode only; solver "scan" has all the others.

Dimension letters: N tokens, K prototypes, T iterations of a stretch.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

HIGHEST = jax.lax.Precision.HIGHEST


def scaled_potentials(
    scaled: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int,
) -> Float[Array, "*batch K"]:
    """Column potentials g after so many iterations; the plan is a ⊙ softmax_k(S + g).

    Args:
        scaled: S = −C/ε, (..., N, K).
        rows: (..., N) masses; rows without any weigh nothing.
        columns: (..., K) masses of the same total.
        iterations: at least 1.
    """
    n, k = scaled.shape[-2:]
    scaled = jnp.swapaxes(scaled, -1, -2)  # tokens last: both products run along memory
    tiny = jnp.finfo(scaled.dtype).tiny
    log_rows = jnp.log(jnp.maximum(rows, tiny))
    log_columns = jnp.log(jnp.maximum(columns, tiny))
    g = log_columns - jax.nn.logsumexp(scaled + log_rows[..., None, :], axis=-1)
    left = iterations - 1
    if left == 0:
        return g
    safe = max(1, int(80 / math.log(max(n, k, 2))))  # exp(80) = 5e34: float32 ends at 3e38
    length = -(-left // -(-left // safe))  # equal stretches, none longer than is safe
    g, _ = jax.lax.scan(
        lambda g, _: (_stretch(length, scaled, g, rows, columns), None),
        g,
        None,
        length=left // length,
    )
    return _stretch(left % length, scaled, g, rows, columns) if left % length else g


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _stretch(
    length: int,
    scaled: Float[Array, "*batch K N"],
    g: Float[Array, "*batch K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
) -> Float[Array, "*batch K"]:
    """`length` iterations from potentials g with one matrix."""
    plan = jax.nn.softmax(scaled + g[..., :, None], axis=-2)
    tiny = jnp.finfo(scaled.dtype).tiny

    def iteration(scalings: tuple, _: None) -> tuple[tuple, None]:
        u, _ = scalings
        v = columns / jnp.maximum(_onto_columns(plan, rows * u), tiny)
        return (1.0 / _onto_rows(plan, v), v), None

    start = (jnp.ones_like(rows), jnp.ones_like(columns))
    (_, v), _ = jax.lax.scan(iteration, start, None, length=length, unroll=2)
    return g + jnp.log(jnp.maximum(v, tiny))


def _onto_columns(plan: Array, x: Array) -> Array:
    return jnp.einsum("...kn,...n->...k", plan, x, precision=HIGHEST)


def _onto_rows(plan: Array, x: Array) -> Array:
    return jnp.einsum("...kn,...k->...n", plan, x, precision=HIGHEST)


def _forward(
    length: int, scaled: Array, g: Array, rows: Array, columns: Array
) -> tuple[Array, tuple]:
    plan = jax.nn.softmax(scaled + g[..., :, None], axis=-2)
    tiny = jnp.finfo(scaled.dtype).tiny

    def iteration(scalings: tuple, _: None) -> tuple[tuple, tuple]:
        u, _ = scalings
        v = columns / jnp.maximum(_onto_columns(plan, rows * u), tiny)
        return (1.0 / _onto_rows(plan, v), v), scalings

    start = (jnp.ones_like(rows), jnp.ones_like(columns))
    (_, v), before = jax.lax.scan(iteration, start, None, length=length, unroll=2)
    return g + jnp.log(jnp.maximum(v, tiny)), (plan, rows, columns, before, v)


def _backward(length: int, kept: tuple, g_bar: Array) -> tuple[Array, Array, None, None]:
    plan, rows, columns, (us, vs), last = kept
    columns = jnp.maximum(columns, jnp.finfo(plan.dtype).tiny)
    after = jnp.concatenate([vs[1:], last[None]])

    def iteration(g_bar: Array, scalings: tuple) -> tuple[Array, tuple]:
        u, v, v_next = scalings
        x = g_bar * v_next / columns  # v ⊙ w
        mass = rows * u
        y = u * _onto_rows(plan, x)  # Q w
        return v * _onto_columns(plan, mass * y), (mass, mass * y, x)

    g_bar, (mass, moved, x) = jax.lax.scan(
        iteration, g_bar, (us, vs, after), reverse=True, unroll=2
    )
    outer = partial(jnp.einsum, "t...k,t...n->...kn", precision=HIGHEST)
    return plan * (outer(vs, moved) - outer(x, mass)), g_bar, None, None


_stretch.defvjp(_forward, _backward)
