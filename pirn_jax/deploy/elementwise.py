"""Rules of what is done to each number by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pirn_jax.deploy.graph import Graph, Value, constant, is_size
from pirn_jax.deploy.rules import Params, Rule, Rules, rule_for
from pirn_jax.errors import ConfigError

RULES: Rules = {}

_BINARY: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("Add", np.add),
    "add_any": ("Add", np.add),
    "sub": ("Sub", np.subtract),
    "mul": ("Mul", np.multiply),
    "div": ("Div", np.divide),
    "max": ("Max", np.maximum),
    "min": ("Min", np.minimum),
    "pow": ("Pow", np.power),
    "gt": ("Greater", np.greater),
    "lt": ("Less", np.less),
    "ge": ("GreaterOrEqual", np.greater_equal),
    "le": ("LessOrEqual", np.less_equal),
    "eq": ("Equal", np.equal),
    "and": ("And", np.logical_and),
    "or": ("Or", np.logical_or),
}
_UNARY: dict[str, tuple[str, Callable[..., Any]]] = {
    "neg": ("Neg", np.negative),
    "exp": ("Exp", np.exp),
    "log": ("Log", np.log),
    "tanh": ("Tanh", np.tanh),
    "sqrt": ("Sqrt", np.sqrt),
    "abs": ("Abs", np.abs),
    "sign": ("Sign", np.sign),
    "not": ("Not", np.logical_not),
    "floor": ("Floor", np.floor),
    "logistic": ("Sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    "erf": ("Erf", np.vectorize(math.erf, otypes=[np.float64])),
}


def elementwise(
    graph: Graph, kind: str, numpy: Callable[..., Any] | None, inputs: Sequence[Value], dtype: Any
) -> Value:
    """One elementwise node; of known inputs, what numpy makes of them."""
    shape = _joined([value.shape for value in inputs])
    if numpy is not None and all(value.array is not None for value in inputs):
        with np.errstate(all="ignore"):
            array = np.asarray(numpy(*(value.array for value in inputs)), dtype)
        return Value(shape, array.dtype, array.shape, array)
    return graph.node(kind, inputs, shape, dtype, _joined([value.held for value in inputs]))


def _joined(shapes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """What they broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_longest(sizes) for sizes in zip(*padded, strict=True))


def _longest(sizes: Sequence[Any]) -> Any:
    return next((size for size in sizes if not (is_size(size) and size == 1)), 1)


def _binary(kind: str, numpy: Callable[..., Any]) -> Rule:
    def rule(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
        return [elementwise(graph, kind, numpy, inputs, outputs[0].dtype)]

    return rule


RULES.update({name: _binary(*made) for name, made in (_BINARY | _UNARY).items()})


def _composed(
    steps: Callable[[Callable[..., Value], Value], Value],
) -> Rule:
    """A rule of one input written in terms of other rules."""

    def rule(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
        dtype = outputs[0].dtype

        def apply(name: str, *values: Any) -> Value:
            kind, numpy = (_BINARY | _UNARY)[name]
            given = [v if isinstance(v, Value) else constant(v, inputs[0].dtype) for v in values]
            of = bool if name in ("lt", "gt", "not") else inputs[0].dtype
            return elementwise(graph, kind, numpy, given, of)

        found = steps(apply, inputs[0])
        return [found if found.dtype == dtype else cast(graph, found, dtype)]

    return rule


RULES["rsqrt"] = _composed(lambda do, x: do("div", 1.0, do("sqrt", x)))
RULES["square"] = _composed(lambda do, x: do("mul", x, x))
RULES["erfc"] = _composed(lambda do, x: do("sub", 1.0, do("erf", x)))
RULES["log1p"] = _composed(lambda do, x: do("log", do("add", x, 1.0)))
RULES["expm1"] = _composed(lambda do, x: do("sub", do("exp", x), 1.0))
RULES["is_finite"] = _composed(lambda do, x: do("lt", do("abs", x), np.inf))


@rule_for(RULES, "integer_pow")
def _integer_pow(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    if params["y"] == 2:
        return RULES["square"](graph, {}, inputs, outputs)
    power = constant(params["y"], inputs[0].dtype)
    return [elementwise(graph, "Pow", np.power, [inputs[0], power], inputs[0].dtype)]


@rule_for(RULES, "ne")
def _ne(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    equal = elementwise(graph, "Equal", np.equal, inputs, bool)
    return [elementwise(graph, "Not", np.logical_not, [equal], bool)]


@rule_for(RULES, "stop_gradient", "copy", "copy_p", "optimization_barrier")
def _same(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return inputs


@rule_for(RULES, "convert_element_type")
def _convert(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [cast(graph, inputs[0], outputs[0].dtype)]


def cast(graph: Graph, value: Value, dtype: Any) -> Value:
    """The value as another type of number."""
    if value.dtype == dtype:
        return value
    if value.array is not None:
        return value._replace(array=value.array.astype(dtype), dtype=np.dtype(dtype))
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return graph.node("Cast", [value], value.shape, dtype, value.held, to=kind)


@rule_for(RULES, "select_n")
def _select(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    which, no, yes = inputs
    if which.dtype != np.bool_:
        raise ConfigError("a choice among more than two cannot be exported")
    return [elementwise(graph, "Where", np.where, [which, yes, no], outputs[0].dtype)]


@rule_for(RULES, "clamp")
def _clamp(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    low, x, high = inputs
    x = elementwise(graph, "Max", np.maximum, [low, x], x.dtype)
    return [elementwise(graph, "Min", np.minimum, [x, high], x.dtype)]
