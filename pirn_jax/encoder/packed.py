"""Parameters in few buffers, for the call.

A Vision Transformer has four matrices a block and eight vectors, a decoder as many again. A call
hands each array to the device by itself, and where the device answers in a millisecond their number
shows. Here all small arrays lie in one, from which a program takes slices, which XLA fuses into
what uses them. Large ones stay arrays of their own: a product reads a whole buffer, so a slice of a
stack would be copied first, every weight in every call.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

SMALL = 2**16
"""Numbers of the largest array that is joined with others."""


class Layout:
    """What lies where in a `Packed`; one object for all trees of a kind, as every call compares it.

    Attributes:
        tree: its leaves are the others and the parts of the joined.
        shapes: of each leaf that is joined, None of each that is not.
    """

    def __init__(self, tree: Any, shapes: tuple[tuple[int, ...] | None, ...]):
        self.tree, self.shapes = tree, shapes


_layout_of = functools.cache(Layout)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """A tree of arrays, the small ones joined; itself a tree, of fewer arrays.

    Attributes:
        joined: the small float32 arrays, one behind the other, on one axis.
        others: the other arrays, in the order of the tree's leaves.
        layout: of the tree.
    """

    joined: Any
    others: list[Any]
    layout: Layout = field(metadata={"static": True})


def pack(parameters: Any) -> Any:
    """The tree as `Packed`; as it is where it has no two small arrays."""
    leaves, tree = jax.tree.flatten(parameters)
    shapes = tuple(tuple(leaf.shape) if _is_small(leaf) else None for leaf in leaves)
    small = [leaf.reshape(-1) for leaf, shape in zip(leaves, shapes, strict=True) if shape]
    if len(small) < 2:
        return parameters
    others = [leaf for leaf, shape in zip(leaves, shapes, strict=True) if not shape]
    return Packed(jnp.concatenate(small), others, _layout_of(tree, shapes))


def unpack(parameters: Any) -> Any:
    """`pack` undone, inside `jax.jit` by slices; any other tree as it is."""
    if not isinstance(parameters, Packed):
        return parameters
    others, start, leaves = iter(parameters.others), 0, []
    for shape in parameters.layout.shapes:
        if shape:
            end = start + math.prod(shape)
            leaves.append(parameters.joined[start:end].reshape(shape))
            start = end
        else:
            leaves.append(next(others))
    return jax.tree.unflatten(parameters.layout.tree, leaves)


def _is_small(leaf: Any) -> bool:
    return leaf.dtype == jnp.float32 and leaf.ndim > 0 and leaf.size <= SMALL
