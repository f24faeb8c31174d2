"""The family of assignments: every way from a cost to a plan, by name or import path.

An assignment is any function

    assignment(cost, *, epsilon, iterations, row_mass) -> matrix

with cost (..., N, K) and row_mass (..., N), both float32 or float64, and a matrix like the cost,
whose rows are the weights a token is rebuilt with; a row without mass is zero. It may be given by
name (below), as `"package.module:function"`, or as the function itself: nothing here has to change
to try another one. `cosine_cost(..., heads=H)` makes each of them multi-head.

| name | rows sum to | columns | source |
| --- | --- | --- | --- |
| ot | 1 | N/K | paper Eq. 1 |
| softmax | 1 | free | Table 9; softmax attention at temperature ε |
| linear | 1 | free | Table 9; weights 1 + cos, no exponential |
| sigmoid | 0 to K | free | Table 9; Ramapuram et al. 2024, bias −log K |
| unbalanced | near 1 | near N/K | Chizat et al. 2018, both marginals at a KL price (τ) |
| semi_relaxed | 1 | near N/K | only the columns at a KL price |
| partial | 0 to 1 | share·N/K | Caffarelli and McCann 2010: the costliest mass stays at home |
| sparsemax | 1, most weights 0 | free | Martins and Astudillo 2016 |
| annealed | 1 | N/K | ot, ε falling from 1 to its value over the first half |

Dimension letters: N tokens, K prototypes.
Differs from the paper: it names softmax, linear and sigmoid attention without equations; these
take the same cosine cost as balanced transport, so that Table 9 changes one thing at a time.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Shaped

from pirn_jax.errors import ConfigError
from pirn_jax.transport.cost import at_least_float32
from pirn_jax.transport.plan import Plan, masses, measured
from pirn_jax.transport.sinkhorn import balanced_plan, log_sinkhorn, safe_log


@runtime_checkable
class Assignment(Protocol):
    """Cost → matrix of weights."""

    def __call__(self, cost: Array, *, epsilon: float, iterations: int, row_mass: Array) -> Array:
        """Weights (..., N, K) of every token over the prototypes."""
        ...


def balanced(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """Balanced optimal transport with its fastest solver: rows 1, columns N/K."""
    plan = balanced_plan(
        cost, epsilon=epsilon, iterations=iterations, solver="auto", row_mass=row_mass
    )
    return plan.matrix


def softmax(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """exp(−C/ε) over its row: balanced transport before its first column update."""
    return row_mass[..., None] * jax.nn.softmax(-cost / epsilon, axis=-1)


def linear(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """2 − C = 1 + cos over its row; costs above 2 weigh nothing, ε has no part."""
    weights = jnp.maximum(2.0 - cost, 0.0)
    tiny = jnp.finfo(cost.dtype).tiny
    return row_mass[..., None] * weights / jnp.maximum(weights.sum(-1, keepdims=True), tiny)


def sigmoid(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """σ((1 − C)/ε − log K): each prototype on its own; rows sum to about 1 where cosines are 0."""
    return row_mass[..., None] * jax.nn.sigmoid((1.0 - cost) / epsilon - math.log(cost.shape[-1]))


def unbalanced(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
    row_relaxation: float = 0.9,
    column_relaxation: float = 0.9,
) -> Float[Array, "*batch N K"]:
    """Marginals at a price: τ = ρ/(ρ + ε), 1 keeps one exactly, 0 ignores it.

    Solved with total mass 1, where KL prices have their usual meaning, and scaled back. Rows are
    not normalised: that a token no prototype wants keeps little mass is the point.
    """
    rows, columns = masses(cost, row_mass)
    total = jnp.maximum(rows.sum(-1, keepdims=True), jnp.finfo(cost.dtype).tiny)
    f, g = log_sinkhorn(
        cost,
        jnp.full((iterations,), epsilon, cost.dtype),
        safe_log(rows / total),
        safe_log(columns / total),
        row_relaxation,
        column_relaxation,
    )
    plan = jnp.exp((f[..., :, None] + g[..., None, :] - cost) / epsilon)
    return jnp.where(rows[..., None] > 0, plan * total[..., None], 0.0)


def semi_relaxed(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
    column_relaxation: float = 0.9,
) -> Float[Array, "*batch N K"]:
    """Every token is shared out whole, but prototypes may be used unequally, at a KL price."""
    return unbalanced(
        cost,
        epsilon=epsilon,
        iterations=iterations,
        row_mass=row_mass,
        row_relaxation=1.0,
        column_relaxation=column_relaxation,
    )


def partial(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
    share: float = 0.9,
) -> Float[Array, "*batch N K"]:
    """Only `share` of the mass is moved: the costliest tokens (anomalies) stay unassigned.

    One more column, at no cost, takes the rest and is left out of the result. Rows sum to
    between 0 and 1, columns to share·N/K.
    """
    k = cost.shape[-1]
    home = jnp.zeros_like(cost[..., :1])
    plan = balanced_plan(
        jnp.concatenate([cost, home], axis=-1),
        epsilon=epsilon,
        iterations=iterations,
        solver="auto",
        row_mass=row_mass,
        column_mass=jnp.array([share / k] * k + [1.0 - share], cost.dtype),
    )
    return plan.matrix[..., :k]


def sparsemax(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """The point of the simplex nearest to −C/ε: softmax with exact zeros."""
    logits = -cost / epsilon
    ordered = -jnp.sort(-logits, axis=-1)
    count = jnp.arange(1, cost.shape[-1] + 1).astype(cost.dtype)
    count = count.reshape((1,) * (cost.ndim - 1) + (-1,))
    running = jnp.cumsum(ordered, axis=-1)
    support = (1.0 + count * ordered > running).sum(-1, keepdims=True)
    threshold = (jnp.take_along_axis(running, support - 1, axis=-1) - 1.0) / support.astype(
        cost.dtype
    )
    return row_mass[..., None] * jnp.maximum(logits - threshold, 0.0)


def annealed(
    cost: Float[Array, "*batch N K"],
    *,
    epsilon: float,
    iterations: int,
    row_mass: Float[Array, "*batch N"],
) -> Float[Array, "*batch N K"]:
    """Balanced transport reached from a smooth problem: ε falls geometrically from 1."""
    rows, columns = masses(cost, row_mass)
    fall = jnp.clip(jnp.arange(iterations) / max(1, iterations // 2), 0, 1).astype(cost.dtype)
    epsilons = jnp.exp(jnp.log(jnp.asarray(epsilon, cost.dtype)) * fall)
    _, g = log_sinkhorn(cost, epsilons, safe_log(rows), safe_log(columns))
    logits = (g[..., None, :] - cost) / jnp.asarray(epsilon, cost.dtype)
    return rows[..., None] * jax.nn.softmax(logits, axis=-1)


FAMILY: dict[str, Assignment] = {
    "ot": balanced,
    "softmax": softmax,
    "linear": linear,
    "sigmoid": sigmoid,
    "unbalanced": unbalanced,
    "semi_relaxed": semi_relaxed,
    "partial": partial,
    "sparsemax": sparsemax,
    "annealed": annealed,
}

_IMPORT_PATH = re.compile(r"([^\W\d]\w*\.)*[^\W\d]\w*:[^\W\d]\w*")


def find_assignment(name: str) -> Assignment:
    """The assignment of that name, or at that import path "package.module:function".

    Raises:
        ConfigError: no such name, module or function.
    """
    if name in FAMILY:
        return FAMILY[name]
    if ":" in name:
        remedy = "write it as package.module:function, with the module on sys.path"
        if not _IMPORT_PATH.fullmatch(name):
            raise ConfigError(f"assignment {name!r} is no import path", remedy)
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a module that is run raises anything
            raise ConfigError(f"cannot import assignment {name!r}: {error}", remedy) from error
        if not isinstance(found, Callable):
            raise ConfigError(f"assignment {name!r} is not a function", "name a function")
        return found
    near = difflib.get_close_matches(name, FAMILY, 1)
    raise ConfigError(
        f"unknown assignment {name!r}; expected one of {', '.join(FAMILY)} or an import path",
        f"did you mean {near[0]!r}?" if near else "use 'ot'",
    )


def assign(
    cost: Shaped[Array | np.ndarray, "*batch N K"],
    assignment: str | Assignment = "ot",
    *,
    epsilon: float = 0.05,
    iterations: int = 50,
    solver: str = "auto",
    gradient: str = "unroll",
    row_mass: Shaped[Array | np.ndarray, "*rows N"] | None = None,
) -> Plan:
    """The plan of any assignment, its errors measured against balanced marginals.

    Args:
        cost: (..., N, K).
        assignment: a name of the family, an import path, or a function.
        epsilon: temperature or regularisation, in units of the cost.
        iterations: of those that iterate.
        solver: of "ot": see `balanced_plan`.
        gradient: "unroll" or "stop"; "implicit" for "ot" only.
        row_mass: (..., N), at least 0; None: 1 each.

    Raises:
        ConfigError: no such assignment; "implicit" with another than "ot".
    """
    if assignment == "ot":
        return balanced_plan(
            cost,
            epsilon=epsilon,
            iterations=iterations,
            solver=solver,
            gradient=gradient,
            row_mass=row_mass,
        )
    if gradient not in ("unroll", "stop"):
        raise ConfigError(
            f"gradient {gradient!r} is for assignment 'ot'; here it is {assignment!r}",
            "use gradient 'unroll' or 'stop'",
        )
    find = find_assignment(assignment) if isinstance(assignment, str) else assignment
    cost = at_least_float32(jnp.asarray(cost))
    rows, columns = masses(cost, row_mass)
    try:
        matrix = find(cost, epsilon=epsilon, iterations=iterations, row_mass=rows)
    except TypeError as error:
        raise ConfigError(
            f"assignment {assignment!r} cannot be called as one: {error}",
            "take (cost, *, epsilon, iterations, row_mass)",
        ) from error
    shape = getattr(matrix, "shape", None)
    if shape != cost.shape:
        raise ConfigError(
            f"assignment {assignment!r} returned {type(matrix).__name__} of shape {shape} for a "
            f"cost of {cost.shape}",
            "return one weight per token and prototype",
        )
    if gradient == "stop":
        matrix = jax.lax.stop_gradient(matrix)
    return measured(matrix, rows, columns)
