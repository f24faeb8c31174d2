"""An ONNX graph in the making: values, nodes, constants, and what is kept of them at the end.

A value broadcast along an axis is held with length 1 there, as ONNX broadcasts by itself wherever
operators are elementwise; it is expanded only for those that are not. Of the batch, which may be
any number, sizes are linear expressions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from pirn_jax.deploy.description import Stored
from pirn_jax.errors import PirnError

OPSET, IR = 18, 10
BATCH = "B"
"""The symbol of the number of scans in shapes."""
_LINEAR = re.compile(rf"(?:(\d+)\*)?{BATCH}(?: \+ (\d+))?")
_LARGE = 1 << 12  # numbers in a matrix from which on it is stored in fewer bits
_HUGE = 1 << 18  # numbers in any other constant from which on int8 means half precision for it


class Value(NamedTuple):
    """What an equation works on: a constant, or the output of a node.

    Attributes:
        shape: as JAX has it; sizes are ints, or expressions of the batch.
        dtype: of its numbers.
        held: the sizes it really has: 1 where it is broadcast.
        array: its numbers, of the sizes held; None where they are not known before it runs.
        name: in the graph; "" for a constant that no node has asked for.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype
    held: tuple[Any, ...]
    array: np.ndarray | None = None
    name: str = ""


def constant(array: Any, dtype: Any = None) -> Value:
    """A value that is known."""
    known = np.asarray(array, dtype)
    return Value(known.shape, known.dtype, known.shape, known)


def is_size(size: Any) -> bool:
    """Whether it is known, and does not depend on the batch."""
    return isinstance(size, int | np.integer)


def is_known(value: Value) -> bool:
    """Whether all of a value's numbers are there, whatever the batch."""
    return value.array is not None and all(is_size(size) for size in value.shape)


def fingerprint(array: Any) -> str:
    """SHA-256 of a constant's numbers."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


class Graph:
    """Collects nodes.

    Args:
        stored: how `matrices` are stored; int8: column by column.
        matrices: fingerprints of constants; all others are stored as they are, but with int8 those
            of many numbers in half precision.
    """

    def __init__(self, stored: Stored = "float32", matrices: Collection[str] = ()):
        self.stored, self.matrices = stored, frozenset(matrices)
        self.inputs: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._known: dict[Any, str] = {}
        self._count = 0
        self._batch: Value | None = None

    def input(self, name: str, shape: tuple[Any, ...], dtype: Any) -> Value:
        """A value that is given when the graph runs."""
        from onnx import helper

        sizes = [int(size) if is_size(size) else BATCH for size in shape]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, sizes))
        return Value(shape, np.dtype(dtype), shape, None, name)

    def node(
        self,
        kind: str,
        inputs: Sequence[Value],
        shape: Sequence[Any],
        dtype: Any,
        held: Sequence[Any] | None = None,
        **attributes: Any,
    ) -> Value:
        """The one output of a new node; shape, dtype and sizes held are the caller's to know."""
        return self.nodes_of(kind, inputs, [(shape, dtype)], held, **attributes)[0]

    def nodes_of(
        self,
        kind: str,
        inputs: Sequence[Value],
        outputs: Sequence[tuple[Sequence[Any], Any]],
        held: Sequence[Any] | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """The outputs of a new node."""
        from onnx import helper

        found = []
        for shape, dtype in outputs:
            sizes = tuple(shape)
            there = sizes if held is None else tuple(held)
            found.append(Value(sizes, np.dtype(dtype), there, None, self._fresh(kind.lower())))
        names = [self.name(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [v.name for v in found], **attributes))
        return found

    def name(self, value: Value) -> str:
        """A value's name, under which a constant is stored once it is asked for."""
        if value.array is None:
            return value.name
        array = np.asarray(value.array, value.dtype)
        content = fingerprint(array)
        key = (array.dtype.str, array.shape, content)
        if key not in self._known:
            name = self._fresh("constant")
            self.constants[name] = array
            self._known[key] = self._in_full(name, array, content in self.matrices)
        return self._known[key]

    def whole(self, numbers: Sequence[int | np.integer]) -> Value:
        """Whole numbers, as sizes and axes are given to nodes."""
        return constant(numbers, np.int64)

    def sizes(self, shape: Sequence[Any]) -> Value:
        """A shape as a value, whatever the batch."""
        if all(is_size(size) for size in shape):
            return self.whole([int(size) for size in shape])
        parts = [
            self.whole([int(size)]) if is_size(size) else self._of_batch(size) for size in shape
        ]
        return self.node("Concat", parts, (len(parts),), np.int64, axis=0)

    def full(self, value: Value) -> Value:
        """The value with all the sizes it says it has."""
        if value.held == value.shape:
            return value
        if value.array is not None and is_known(value):
            return constant(np.broadcast_to(value.array, value.shape))
        return self.node("Expand", [value, self.sizes(value.shape)], value.shape, value.dtype)

    def _in_full(self, name: str, array: np.ndarray, matrix: bool) -> str:
        """The name to use of a constant that may be stored in fewer bits."""
        stored = self.stored
        if not matrix:
            stored = "float16" if stored == "int8" and array.size >= _HUGE else "float32"
        if stored == "float32" or array.dtype != np.float32 or array.size < _LARGE:
            return name
        if stored == "int8":
            return self._by_columns(name, array)
        if np.abs(array).max() > np.finfo(np.float16).max:
            return name
        self.constants[name] = array.astype(np.float16)
        return self._raised(name)

    def _by_columns(self, name: str, array: np.ndarray) -> str:
        """The constant in 8 bits, each column with a scale of its own."""
        from onnx import helper

        scale = np.maximum(np.abs(array).max(axis=0), 1e-30) / 127
        self.constants[name] = np.rint(array / scale).astype(np.int8)
        self.constants[f"{name}_scale"] = scale
        scaled = self._fresh("scaled")
        factors = [self._raised(name), f"{name}_scale"]
        self.nodes.append(helper.make_node("Mul", factors, [scaled]))
        return scaled

    def _raised(self, name: str) -> str:
        """The constant as float32, which it is not stored as; runtimes do it once, at the start."""
        from onnx import TensorProto, helper

        raised = self._fresh("raised")
        self.nodes.append(helper.make_node("Cast", [name], [raised], to=TensorProto.FLOAT))
        return raised

    def _of_batch(self, size: Any) -> Value:
        found = _LINEAR.fullmatch(str(size))
        if found is None:
            raise PirnError(f"a size of {size}, which is not linear in the batch of {BATCH} scans")
        if self._batch is None:
            from onnx import helper

            every = self._fresh("shape")
            given = self.inputs[0].name
            self.nodes.append(helper.make_node("Shape", [given], [every], start=0, end=1))
            self._batch = Value((1,), np.dtype(np.int64), (1,), None, every)
        many, more = int(found[1] or 1), int(found[2] or 0)
        value = self._batch
        if many > 1:
            value = self.node("Mul", [value, self.whole([many])], (1,), np.int64)
        return self.node("Add", [value, self.whole([more])], (1,), np.int64) if more else value

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"

    def finish(self, outputs: dict[str, Value], name: str, metadata: dict[str, str]) -> Any:
        """The model: outputs under their names, and of all else what they need."""
        from onnx import helper, numpy_helper

        described = []
        for label, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [self.name(self.full(value))], [label]))
            sizes = [int(size) if is_size(size) else BATCH for size in value.shape]
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            described.append(helper.make_tensor_value_info(label, kind, sizes))
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        stored = [
            numpy_helper.from_array(np.ascontiguousarray(array), label)
            for label, array in self.constants.items()
            if label in needed
        ]
        graph = helper.make_graph(kept[::-1], name, self.inputs, described, stored)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pirn_jax"
        )
        model.ir_version = IR
        helper.set_model_props(model, metadata)
        return model
