"""Sinkhorn in one launch: a Pallas kernel that keeps a problem in registers for all its iterations.

At a decoder's sizes (256×10) an iteration is a microsecond of work, and on a GPU the solvers that
XLA compiles pay several launches for each. Here a program of the grid is one problem, all problems
of a layer are one launch, and S stays in registers from the first iteration to the last:

    g_1 = log b − logsumexp_n(S + log a),      g_{t+1} = g_t + log b − log c_t,
    c_t = Q_tᵀ a,      Q_t = softmax_k(S + g_t)

the same steps as the other solvers', with the rows eliminated: one exponential for each number and
iteration, none of which can overflow whatever the costs. The backward pass is a second launch. It
keeps the potentials of every iteration (T × K numbers, nothing of size N), makes Q_t anew from
them, and walks back, with w = ḡ_{t+1} / c_t, by

    ḡ_t = Q_tᵀ (a ⊙ Q_t w),      S̄_nk −= a_n Q_nk (w_k − (Q_t w)_n)

and S̄_nk −= ḡ_1k softmax_n(S + log a)_nk for the first. Of first order and in reverse mode only.

For NVIDIA GPUs the kernel goes through Triton, whose blocks have powers of two for sides: problems
are padded with numbers that weigh nothing. Elsewhere the same kernel is interpreted, operation by
operation: exact, and not meant to be fast. Problems too large for a processor's registers are left
to `scaling.py`.

Dimension letters: N tokens, K prototypes, T iterations, P problems.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from pirn_jax.transport.scaling import scaled_potentials

LARGEST = 32 * 1024
"""Numbers of a padded problem: 32 for each of 1024 threads."""
_NOTHING = -1e30  # of padding; less than any S = −C/ε, and finite, so that no inf − inf appears


def fused_potentials(
    scaled: Float[Array, "*batch N K"],
    rows: Float[Array, "*batch N"],
    columns: Float[Array, "*batch K"],
    iterations: int,
) -> Float[Array, "*batch K"]:
    """Column potentials g after so many iterations; the plan is a ⊙ softmax_k(S + g).

    Args:
        scaled: S = −C/ε, (..., N, K).
        rows: (..., N) masses, not all 0; rows without any weigh nothing.
        columns: (..., K) masses of the same total.
        iterations: at least 1.
    """
    *batch, n, k = scaled.shape
    sides = _padded(n), _padded(k)
    if sides[0] * sides[1] > LARGEST:
        return scaled_potentials(scaled, rows, columns, iterations)
    more_n, more_k = sides[0] - n, sides[1] - k
    scaled = jnp.pad(
        scaled.reshape(-1, n, k), ((0, 0), (0, more_n), (0, more_k)), constant_values=_NOTHING
    )
    rows = jnp.pad(rows.reshape(-1, n), ((0, 0), (0, more_n)))
    columns = jnp.pad(columns.reshape(-1, k), ((0, 0), (0, more_k)))
    g: Any = _potentials(iterations, scaled, rows, columns)
    return g[:, :k].reshape(*batch, k)


def _padded(side: int) -> int:
    """The next power of two, at least the 16 that fill a half-warp."""
    return max(16, 1 << (side - 1).bit_length())


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _potentials(
    iterations: int,
    scaled: Float[Array, "P N K"],
    rows: Float[Array, "P N"],
    columns: Float[Array, "P K"],
) -> Float[Array, "P K"]:
    return _launch(_solve, iterations, ("K",), scaled, rows, columns)[0]


def _forward(iterations: int, scaled: Array, rows: Array, columns: Array) -> tuple[Array, tuple]:
    last, passed = _launch(_solve, iterations, ("K", "TK"), scaled, rows, columns)
    return last, (scaled, rows, passed)


def _backward(iterations: int, kept: tuple, g_bar: Array) -> tuple[Array, None, None]:
    scaled, rows, passed = kept
    (scaled_bar,) = _launch(_pull_back, iterations, ("NK",), scaled, rows, passed, g_bar)
    return scaled_bar, None, None


_potentials.defvjp(_forward, _backward)


def _launch(
    kernel: Any, iterations: int, outputs: tuple[str, ...], *given: Array
) -> tuple[Array, ...]:
    """The kernel on every problem: by Triton for an NVIDIA GPU, interpreted elsewhere.

    Args:
        kernel: takes the number of iterations and references to one problem's part of each array.
        iterations: T.
        outputs: the axes of each output behind P.
        given: arrays that lead with P, the first of them S.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    problems, n, k = given[0].shape
    sides = {"N": n, "K": k, "T": iterations}
    made = [(problems, *(sides[axis] for axis in axes)) for axes in outputs]

    def of_problem(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((None, *shape[1:]), lambda p: (p, *[0] * (len(shape) - 1)))

    call = partial(
        pl.pallas_call,
        partial(kernel, iterations),
        grid=(problems,),
        in_specs=[of_problem(x.shape) for x in given],
        out_specs=[of_problem(shape) for shape in made],
        out_shape=[jax.ShapeDtypeStruct(shape, given[0].dtype) for shape in made],
    )
    # 32 numbers of S for each thread, as far as a block's 32 warps go.
    warps = max(1, min(32, n * k // 1024))
    found = jax.lax.platform_dependent(
        *given,
        cuda=call(compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1)),
        default=call(interpret=True),
    )
    return tuple(found)


def _solve(iterations: int, scaled_ref: Any, rows_ref: Any, columns_ref: Any, *out: Any) -> None:
    """Forward: the last potentials and, where there is a second reference, those of all iterations.

    Prototypes that are padding keep potential 0.
    """
    last_ref, passed_ref = out if len(out) == 2 else (out[0], None)
    scaled, rows, columns = scaled_ref[...], rows_ref[...], columns_ref[...]
    tiny = jnp.finfo(scaled.dtype).tiny
    there = scaled.max(0) > 0.5 * _NOTHING
    log_columns = jnp.log(jnp.maximum(columns, tiny))

    def keep(t: Any, g: Array) -> Array:
        g = jnp.where(there, g, 0.0)
        if passed_ref is not None:
            passed_ref[t, :] = g
        return g

    def iteration(t: Any, g: Array) -> Array:
        sums = (rows[:, None] * _conditional(scaled, g)).sum(0)
        return keep(t, g + log_columns - jnp.log(jnp.maximum(sums, tiny)))

    weighted, largest = _first(scaled, rows)
    g = keep(0, log_columns - largest - jnp.log(jnp.maximum(weighted.sum(0), tiny)))
    last_ref[...] = jax.lax.fori_loop(1, iterations, iteration, g)


def _pull_back(
    iterations: int, scaled_ref: Any, rows_ref: Any, passed_ref: Any, g_bar_ref: Any, out_ref: Any
) -> None:
    """Backward: S̄ of ḡ at the last potentials."""
    scaled, rows = scaled_ref[...], rows_ref[...]
    tiny = jnp.finfo(scaled.dtype).tiny

    def iteration(step: Any, bars: tuple[Array, Array]) -> tuple[Array, Array]:
        g_bar, scaled_bar = bars
        plan = _conditional(scaled, passed_ref[iterations - 2 - step, :])
        moved = rows[:, None] * plan
        w = g_bar / jnp.maximum(moved.sum(0), tiny)
        heard = (plan * w[None, :]).sum(1)
        change = moved * (w[None, :] - heard[:, None])
        return (moved * heard[:, None]).sum(0), scaled_bar - change

    start = (g_bar_ref[...], jnp.zeros_like(scaled))
    g_bar, scaled_bar = jax.lax.fori_loop(0, iterations - 1, iteration, start)
    weighted, _ = _first(scaled, rows)
    share = g_bar / jnp.maximum(weighted.sum(0), tiny)
    out_ref[...] = scaled_bar - weighted * share[None, :]


def _first(
    scaled: Float[Array, "N K"], rows: Float[Array, " N"]
) -> tuple[Float[Array, "N K"], Float[Array, " K"]]:
    """Weights a exp(S − m), and the exponent m: each column's largest S over rows with mass."""
    counted = jnp.where(rows[:, None] > 0, scaled, _NOTHING)
    largest = counted.max(0)
    return rows[:, None] * jnp.exp(counted - largest[None, :]), largest


def _conditional(scaled: Float[Array, "N K"], g: Float[Array, " K"]) -> Float[Array, "N K"]:
    """Q = softmax_k(S + g)."""
    logits = scaled + g[None, :]
    weights = jnp.exp(logits - logits.max(1)[:, None])
    return weights * (1.0 / weights.sum(1))[:, None]
