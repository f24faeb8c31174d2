"""Rules of what moves, cuts, joins and repeats numbers without changing any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pirn_jax.deploy.graph import Graph, Value, constant, is_size
from pirn_jax.deploy.rules import Params, Rules, rule_for
from pirn_jax.errors import ConfigError

RULES: Rules = {}


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


@rule_for(RULES, "reshape")
def _reshape(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [reshape(graph, inputs[0], outputs[0].shape)]


@rule_for(RULES, "squeeze", "expand_dims")
def _squeeze(graph: Graph, _: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    return [reshape(graph, inputs[0], outputs[0].shape)]


@rule_for(RULES, "transpose")
def _transpose(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    return [transpose(graph, inputs[0], params["permutation"])]


@rule_for(RULES, "broadcast_in_dim")
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


@rule_for(RULES, "concatenate")
def _concatenate(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    axis, shape = params["dimension"], tuple(outputs[0].shape)
    given = [graph.full(value) for value in inputs]
    return [graph.node("Concat", given, shape, outputs[0].dtype, axis=axis)]


def stack(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Values of one shape along a new axis."""
    first = values[0]
    shape = (*first.shape[:axis], 1, *first.shape[axis:])
    given = [reshape(graph, value, shape) for value in values]
    whole = (*first.shape[:axis], len(values), *first.shape[axis:])
    return graph.node("Concat", given, whole, first.dtype, axis=axis)


@rule_for(RULES, "stack")
def _stack(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    return [stack(graph, inputs, params["axis"])]


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


@rule_for(RULES, "slice")
def _slice(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    steps = params["strides"] or (1,) * len(params["start_indices"])
    return [cut(graph, inputs[0], params["start_indices"], params["limit_indices"], steps)]


@rule_for(RULES, "split")
def _split(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    found, axis, start = [], params["axis"], 0
    for size in map(int, params["sizes"]):
        starts, ends = [0] * len(inputs[0].shape), list(inputs[0].shape)
        starts[axis], ends[axis] = start, start + size
        found.append(cut(graph, inputs[0], starts, ends, [1] * len(starts)))
        start += size
    return found


@rule_for(RULES, "unstack")
def _unstack(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    """A primitive from jax 0.12 on; slices before."""
    found, shape, axis = [], inputs[0].shape, params["axis"]
    for place, output in enumerate(outputs):
        starts, ends = [0] * len(shape), list(shape)
        starts[axis], ends[axis] = place, place + 1
        part = cut(graph, inputs[0], starts, ends, [1] * len(shape))
        found.append(reshape(graph, part, output.shape))
    return found


@rule_for(RULES, "rev")
def _reverse(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    value = graph.full(inputs[0])
    for axis in params["dimensions"]:
        places = constant(np.arange(value.shape[axis])[::-1], np.int64)
        value = graph.node("Gather", [value, places], value.shape, value.dtype, axis=axis)
    return [value]


@rule_for(RULES, "iota")
def _iota(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    shape, axis = tuple(outputs[0].shape), params["dimension"]
    held = [1] * len(shape)
    held[axis] = shape[axis]
    counted = np.arange(shape[axis], dtype=outputs[0].dtype).reshape(held)
    return [Value(shape, counted.dtype, tuple(held), counted)]


@rule_for(RULES, "pad")
def _pad(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    value, filling = graph.full(inputs[0]), inputs[1]
    before, after, inner = zip(*params["padding_config"], strict=True)
    if any(inner) or min(*before, *after) < 0:
        raise ConfigError("a padding that is not around an array cannot be exported")
    widths = graph.whole([*before, *after])
    return [graph.node("Pad", [value, widths, filling], outputs[0].shape, value.dtype)]
