"""Small arrays inside JSON: zlib, then base64, with type and shape beside."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pirn_jax.errors import BadInputError

_TYPES = ("bool", "int32", "uint32", "int64", "float32", "float64")


def pack(array: np.ndarray) -> dict[str, Any]:
    """A JSON object that holds the array."""
    array = np.ascontiguousarray(array)
    data = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "zlib": data}


def unpack(document: Mapping[str, Any]) -> np.ndarray:
    """`pack` undone.

    Raises:
        BadInputError: not what `pack` wrote.
    """
    try:
        name, shape = document["dtype"], tuple(document["shape"])
        if name not in _TYPES or any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"an array of {name!r} and shape {shape}")
        size = math.prod(shape) * np.dtype(name).itemsize
        inflate = zlib.decompressobj()
        content = inflate.decompress(base64.b64decode(document["zlib"], validate=True), size + 1)
        return np.frombuffer(content, name).reshape(shape).copy()
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise BadInputError(f"not a packed array: {error}", "compute it again") from error
