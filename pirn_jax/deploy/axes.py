"""Rules of what is done along axes: sums, products, the largest, look-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pirn_jax.deploy.elementwise import cast
from pirn_jax.deploy.graph import Graph, Value
from pirn_jax.deploy.rules import Params, Rule, Rules, rule_for
from pirn_jax.deploy.shapes import cut, reshape, transpose
from pirn_jax.errors import ConfigError

RULES: Rules = {}
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
        axes, numbers = graph.whole(params["axes"]), cast(graph, inputs[0], np.int32)
        given = [graph.full(numbers), axes]
        found = graph.node(kind, given, outputs[0].shape, np.int32, keepdims=0)
        return [cast(graph, found, bool)]

    return rule


RULES.update({"reduce_or": _any_or_all("ReduceMax"), "reduce_and": _any_or_all("ReduceMin")})


@rule_for(RULES, "argmax")
def _argmax(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    (axis,), value = params["axes"], graph.full(inputs[0])
    shape = outputs[0].shape
    place = graph.node("ArgMax", [value], shape, np.int64, axis=axis, keepdims=0)
    return [cast(graph, place, outputs[0].dtype)]


@rule_for(RULES, "top_k")
def _top_k(
    graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]
) -> list[Value]:
    value, count = graph.full(inputs[0]), graph.whole([params["k"]])
    made = [(outputs[0].shape, outputs[0].dtype), (outputs[1].shape, np.int64)]
    largest, places = graph.nodes_of("TopK", [value, count], made, axis=-1)
    return [largest, cast(graph, places, outputs[1].dtype)]


@rule_for(RULES, "dot_general")
def _dot(graph: Graph, params: Params, inputs: list[Value], outputs: Sequence[Any]) -> list[Value]:
    """A product over some axes, batched over others, as one MatMul.

    Batch axes come first, then rows and what is summed, or what is summed and columns.
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


@rule_for(RULES, "gather")
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
    places = cast(graph, places, np.int64)
    return [
        graph.node(
            "GatherND", [value, places], outputs[0].shape, value.dtype, batch_dims=len(front)
        )
    ]
