"""A traced JAX program → an ONNX graph, equation by equation.

JAX's trace (jaxpr) of the whole path from pictures to maps has some forty kinds of equation, and
each has its rule (`elementwise.py`, `shapes.py`, `axes.py`). Functions inside it are laid open,
loops of a fixed number of rounds are written out round by round, and what depends on weights alone
is computed here. So nothing of JAX is changed to export, and nothing but the package `onnx` is
needed. A kind of equation without a rule is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from pirn_jax.deploy import axes, elementwise, shapes
from pirn_jax.deploy.graph import Graph, Value, constant, is_known
from pirn_jax.deploy.rules import Rules
from pirn_jax.errors import ConfigError

_RULES: Rules = elementwise.RULES | shapes.RULES | axes.RULES
_OPENED = {  # equations that hold another program, by the parameter that names it
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


def convert(graph: Graph, program: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
    """Write a program into a graph.

    Args:
        graph: to write to.
        program: as `jax.make_jaxpr` gives it; sizes may depend on the batch.
        arguments: its inputs, in order; weights are constants.

    Returns:
        Its outputs.

    Raises:
        ConfigError: an equation that ONNX has no counterpart of here.
    """
    jaxpr = program.jaxpr
    known: dict[Any, Value] = {}
    for variable, value in zip(jaxpr.constvars, program.consts, strict=True):
        known[variable] = constant(np.asarray(value))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Value:
        if isinstance(variable, Literal):
            return constant(variable.val, variable.aval.dtype)  # type: ignore[attr-defined]
        return known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        outputs = _convert_equation(graph, equation, inputs)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _convert_equation(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    if name in _OPENED:
        return convert(graph, _closed(params[_OPENED[name]]), inputs)
    if name == "scan":
        return _unroll(graph, params, inputs)
    rule = _RULES.get(name)
    if rule is None:
        raise ConfigError(
            f"this method has a step ({name}) that cannot be exported",
            "export a model of method mixture, pirn, memory or subspace",
        )
    outputs = [variable.aval for variable in equation.outvars]
    if name in _EXPENSIVE and all(is_known(value) for value in inputs):
        return _compute(graph, equation, inputs)
    return rule(graph, params, inputs, outputs)


# Of constants these are computed once and for all; the rules of all others see to it themselves.
_EXPENSIVE = {"dot_general", "reduce_sum", "reduce_max", "gather", "pad", "concatenate", "erf_inv"}


def _compute(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    given = [graph.full(value).array for value in inputs]
    found = equation.primitive.bind(*map(jax.numpy.asarray, given), **equation.params)
    found = found if equation.primitive.multiple_results else [found]
    return [constant(np.asarray(array)) for array in found]


def _closed(program: Any) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def _unroll(graph: Graph, params: Mapping[str, Any], inputs: list[Value]) -> list[Value]:
    """A scan, round by round."""
    if "ft_in" in params:  # from jax 0.12 on
        constants, carry, sequences = map(list, params["ft_in"].update(inputs).unpack())
    else:
        ends = np.cumsum([params["num_consts"], params["num_carry"]])
        constants, carry, sequences = (inputs[a:b] for a, b in pairwise([0, *ends, len(inputs)]))
    carried, program = len(carry), _closed(params["jaxpr"])
    rounds = range(params["length"])
    collected: dict[int, list[Value]] = {}
    for place in reversed(rounds) if params["reverse"] else rounds:
        each = [_at(graph, sequence, place) for sequence in sequences]
        found = convert(graph, program, [*constants, *carry, *each])
        carry, collected[place] = found[:carried], found[carried:]
    stacked = [
        shapes.stack(graph, list(values), 0)
        for values in zip(*(collected[place] for place in rounds), strict=True)
    ]
    return [*carry, *stacked]


def _at(graph: Graph, value: Value, place: int) -> Value:
    """One element along the first axis."""
    rest, there = value.shape[1:], value.held[1:]
    if value.array is not None:
        array = value.array[place if value.held[0] != 1 else 0]
        return Value(rest, value.dtype, there, array)
    index = constant(place if value.held[0] != 1 else 0, np.int64)
    return graph.node("Gather", [value, index], rest, value.dtype, there, axis=0)
