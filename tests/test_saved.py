"""Arrays on disk are the arrays, however they lie in memory."""

import jax
import numpy as np
from safetensors.numpy import save_file

from pirn_jax.storage import fill, flatten, read_tensors


def test_arrays_in_any_memory_order_come_back(tmp_path):
    field = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree = {"a": field, "b": {"c": np.moveaxis(field, 0, 1), "d": field[:, ::2]}}
    save_file(flatten("x", tree), tmp_path / "x.safetensors")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    found = fill("x", shapes, read_tensors(tmp_path / "x.safetensors"), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found, tree)
