"""What each equation of a JAX program is in ONNX.

A rule takes the graph, the equation's parameters, its inputs and the shapes of its outputs, and
returns the outputs. What is known already is computed on the spot, in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pirn_jax.deploy.graph import Graph, Value, constant, is_size
from pirn_jax.errors import ConfigError

Params = Mapping[str, Any]
Rule = Callable[[Graph, Params, list[Value], Sequence[Any]], list[Value]]
RULES: dict[str, Rule] = {}
"""By the name of JAX's primitive."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def keep(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return keep


# --- elementwise ----------------------------------------------------------------------------------

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
    shapes = [value.shape for value in inputs]
    shape = max(shapes, key=len)
    if numpy is not None and all(value.array is not None for value in inputs):
        with np.errstate(all="ignore"):
            array = np.asarray(numpy(*(value.array for value in inputs)), dtype)
        return Value(shape, array.dtype, array.shape, array)
    held = tuple(_longest(sizes) for sizes in zip(*(_padded(v, len(shape)) for v in inputs), strict=True))
    return graph.node(kind, inputs, shape, dtype, held)


def _padded(value: Value, rank: int) -> tuple[Any, ...]:
    return (1,) * (rank - len(value.held)) + value.held


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
        return [found if found.dtype == dtype else _cast(graph, found, dtype)]

    return rule


RULES["rsqrt"] = _composed(lambda do, x: do("div", 1.0, do("sqrt", x)))
RULES["square"] = _composed(lambda do, x: do("mul", x, x))
RULES["erfc"] = _composed(lambda do, x: do("sub", 1.0, do("erf", x)))
RULES["log1p"] = _composed(lambda do, x: do("log", do("add", x, 1.0)))
RULES["expm1"] = _composed(lambda do, x: do("sub", do("exp", x), 1.0))
RULES["is_finite"] = _composed(lambda do, x: do("lt", do("abs", x), np.inf))


@_rule("integer_pow")
def _integer_pow(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    if params["y"] == 2:
        return RULES["square"](graph, {}, inputs, outputs)
    power = constant(params["y"], inputs[0].dtype)
    return [elementwise(graph, "Pow", np.power, [inputs[0], power], inputs[0].dtype)]


@_rule("ne")
def _ne(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    equal = elementwise(graph, "Equal", np.equal, inputs, bool)
    return [elementwise(graph, "Not", np.logical_not, [equal], bool)]


@_rule("stop_gradient", "copy", "copy_p", "optimization_barrier")
def _same(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return inputs


@_rule("convert_element_type")
def _convert(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [_cast(graph, inputs[0], outputs[0].dtype)]


def _cast(graph: Graph, value: Value, dtype: Any) -> Value:
    if value.dtype == dtype:
        return value
    if value.array is not None:
        return value._replace(array=value.array.astype(dtype), dtype=np.dtype(dtype))
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return graph.node("Cast", [value], value.shape, dtype, value.held, to=kind)


@_rule("select_n")
def _select(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    which, no, yes = inputs
    if which.dtype != np.bool_:
        raise ConfigError("a choice among more than two cannot be exported")
    return [elementwise(graph, "Where", np.where, [which, yes, no], outputs[0].dtype)]


@_rule("clamp")
def _clamp(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    low, x, high = inputs
    x = elementwise(graph, "Max", np.maximum, [low, x], x.dtype)
    return [elementwise(graph, "Min", np.minimum, [x, high], x.dtype)]


# --- shapes ---------------------------------------------------------------------------------------


def reshape(graph: Graph, value: Value, shape: Sequence[Any]) -> Value:
    """Another shape of as many numbers; at most one of its sizes depends on the batch."""
    value, sizes = graph.full(value), tuple(shape)
    if value.shape == sizes:
        return value
    if value.array is not None:
        return constant(value.array.reshape(sizes))
    wanted = graph.whole([int(size) if is_size(size) else -1 for size in sizes])
    return graph.node("Reshape", [value, wanted], sizes, value.dtype)


def transpose(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    """The axes in another order; those that are broadcast stay so."""
    if list(order) == list(range(len(order))):
        return value
    shape, held = (tuple(sizes[i] for i in order) for sizes in (value.shape, value.held))
    if value.array is not None:
        return Value(shape, value.dtype, held, value.array.transpose(order))
    return graph.node("Transpose", [value], shape, value.dtype, held, perm=list(order))


@_rule("reshape")
def _reshape(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [reshape(graph, inputs[0], outputs[0].shape)]


@_rule("squeeze", "expand_dims")
def _squeeze(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [reshape(graph, inputs[0], outputs[0].shape)]


@_rule("transpose")
def _transpose(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    return [transpose(graph, inputs[0], params["permutation"])]


@_rule("broadcast_in_dim")
def _broadcast(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    value, shape = inputs[0], tuple(outputs[0].shape)
    held: list[Any] = [1] * len(shape)
    for axis, place in enumerate(params["broadcast_dimensions"]):
        held[place] = value.held[axis]
    if value.array is not None:
        return [Value(shape, value.dtype, tuple(held), value.array.reshape(held))]
    if tuple(held) == value.held:
        return [value._replace(shape=shape)]
    new = [place for place in range(len(shape)) if place not in params["broadcast_dimensions"]]
    axes = graph.whole(new)
    return [graph.node("Unsqueeze", [value, axes], shape, value.dtype, held)]


@_rule("concatenate")
def _concatenate(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    axis, shape = params["dimension"], tuple(outputs[0].shape)
    given = [graph.full(value) for value in inputs]
    return [graph.node("Concat", given, shape, outputs[0].dtype, axis=axis)]


@_rule("stack")
def _stack(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    axis, first = params["axis"], inputs[0]
    shape = (*first.shape[:axis], 1, *first.shape[axis:])
    given = [reshape(graph, value, shape) for value in inputs]
    whole = (*first.shape[:axis], len(inputs), *first.shape[axis:])
    return [graph.node("Concat", given, whole, first.dtype, axis=axis)]


def cut(
    graph: Graph, value: Value, starts: Sequence[int], ends: Sequence[Any], steps: Sequence[int]
) -> Value:
    """Part of a value along the axes of which not everything is wanted."""
    wanted = [
        axis
        for axis, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True))
        if not (start == 0 and end == value.shape[axis] and step == 1)
    ]
    if not wanted:
        return value
    value = graph.full(value)
    if value.array is not None:
        some = tuple(slice(*each) for each in zip(starts, ends, steps, strict=True))
        return constant(value.array[some])
    shape = list(value.shape)
    for axis in wanted:
        shape[axis] = -(-(ends[axis] - starts[axis]) // steps[axis])
    chosen = [graph.whole([each[axis] for axis in wanted]) for each in (starts, ends)]
    chosen += [graph.whole(wanted), graph.whole([steps[axis] for axis in wanted])]
    return graph.node("Slice", [value, *chosen], shape, value.dtype)


@_rule("slice")
def _slice(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    steps = params["strides"] or (1,) * len(params["start_indices"])
    return [cut(graph, inputs[0], params["start_indices"], params["limit_indices"], steps)]


@_rule("split")
def _split(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    found, axis, start = [], params["axis"], 0
    for size in params["sizes"]:
        starts, ends = [0] * len(inputs[0].shape), list(inputs[0].shape)
        starts[axis], ends[axis] = start, start + size
        found.append(cut(graph, inputs[0], starts, ends, [1] * len(starts)))
        start += size
    return found


@_rule("rev")
def _reverse(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    value = graph.full(inputs[0])
    for axis in params["dimensions"]:
        places = constant(np.arange(value.shape[axis])[::-1], np.int64)
        value = graph.node("Gather", [value, places], value.shape, value.dtype, axis=axis)
    return [value]


@_rule("iota")
def _iota(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    shape, axis = tuple(outputs[0].shape), params["dimension"]
    held = [1] * len(shape)
    held[axis] = shape[axis]
    counted = np.arange(shape[axis], dtype=outputs[0].dtype).reshape(held)
    return [Value(shape, counted.dtype, tuple(held), counted)]


@_rule("pad")
def _pad(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    value, filling = graph.full(inputs[0]), inputs[1]
    before, after, inner = zip(*params["padding_config"], strict=True)
    if any(inner) or min(*before, *after) < 0:
        raise ConfigError("a padding that is not around an array cannot be exported")
    widths = graph.whole([*before, *after])
    return [graph.node("Pad", [value, widths, filling], outputs[0].shape, value.dtype)]


# --- over axes ------------------------------------------------------------------------------------

_REDUCED = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}


def _reduction(kind: str) -> Rule:
    def rule(
        graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
    ) -> list[Value]:
        axes, value = graph.whole(params["axes"]), graph.full(inputs[0])
        shape, dtype = outputs[0].shape, outputs[0].dtype
        return [graph.node(kind, [value, axes], shape, dtype, keepdims=0)]

    return rule


RULES.update({name: _reduction(kind) for name, kind in _REDUCED.items()})


def _any_or_all(kind: str) -> Rule:
    def rule(
        graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
    ) -> list[Value]:
        axes, numbers = graph.whole(params["axes"]), _cast(graph, inputs[0], np.int32)
        given = [graph.full(numbers), axes]
        found = graph.node(kind, given, outputs[0].shape, np.int32, keepdims=0)
        return [_cast(graph, found, bool)]

    return rule


RULES |= {"reduce_or": _any_or_all("ReduceMax"), "reduce_and": _any_or_all("ReduceMin")}


@_rule("argmax")
def _argmax(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    (axis,), value = params["axes"], graph.full(inputs[0])
    shape = outputs[0].shape
    place = graph.node("ArgMax", [value], shape, np.int64, axis=axis, keepdims=0)
    return [_cast(graph, place, outputs[0].dtype)]


@_rule("top_k")
def _top_k(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    value, count = graph.full(inputs[0]), graph.whole([params["k"]])
    made = [(outputs[0].shape, outputs[0].dtype), (outputs[1].shape, np.int64)]
    largest, places = graph.nodes_of("TopK", [value, count], made, axis=-1)
    return [largest, _cast(graph, places, outputs[1].dtype)]


@_rule("dot_general")
def _dot(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    """A product over some axes, batched over others, as one MatMul of two- or more-dimensional
    arrays: batch axes first, then rows and what is summed, or what is summed and columns.
    """
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = (graph.full(value) for value in inputs)
    left_free = [i for i in range(len(left.shape)) if i not in (*left_sum, *left_batch)]
    right_free = [i for i in range(len(right.shape)) if i not in (*right_sum, *right_batch)]
    left = transpose(graph, left, [*left_batch, *left_free, *left_sum])
    right = transpose(graph, right, [*right_batch, *right_sum, *right_free])
    batch, shape = left.shape[: len(left_batch)], tuple(outputs[0].shape)
    rows = left.shape[len(batch) : len(batch) + len(left_free)]
    summed = right.shape[len(batch) : len(batch) + len(right_sum)]
    columns = right.shape[len(batch) + len(right_sum) :]
    many = math.prod(summed)
    # Without a batch the rows may stay as they lie: the columns' matrix is one for all.
    plain = not batch and len(rows) > 1
    left = reshape(graph, left, (*batch, *(rows if plain else (math.prod(rows),)), many))
    right = reshape(graph, right, (*batch, many, math.prod(columns)))
    found = graph.node(
        "MatMul", [left, right], (*left.shape[:-1], right.shape[-1]), outputs[0].dtype
    )
    return [reshape(graph, found, shape)]


@_rule("gather")
def _gather(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    """Either a part at a known place, or whole rows at places to be looked up."""
    value, places = inputs
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    lost, aimed = numbers.collapsed_slice_dims, numbers.start_index_map
    batched = numbers.operand_batching_dims
    if places.array is not None and not batched and len(places.shape) == 1:
        at = dict(zip(aimed, places.array.tolist(), strict=True))
        starts = [at.get(axis, 0) for axis in range(len(sizes))]
        ends = [
            value.shape[axis] if sizes[axis] == value.shape[axis] else start + sizes[axis]
            for axis, start in enumerate(starts)
        ]
        part = cut(graph, value, starts, ends, [1] * len(starts))
        return [reshape(graph, part, outputs[0].shape)]
    value, places = graph.full(value), graph.full(places)
    front = tuple(range(len(batched)))
    if batched != front or aimed != (len(front),) or lost != (len(front),):
        raise ConfigError("a look-up other than of whole rows cannot be exported")
    places = _cast(graph, places, np.int64)
    return [
        graph.node(
            "GatherND", [value, places], outputs[0].shape, value.dtype, batch_dims=len(front)
        )
    ]
