"""Pictures of normals as vectors, and back."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32


def vectors_of(
    normals: Float32[np.ndarray, "h w 3"],
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Unit vectors, 0 where there are none, and where they are.

    Args:
        normals: as in `Views`: components mapped from [-1, 1] to [0, 1], black where there is none.
    """
    defined = np.any(normals > 0, axis=-1)
    vectors = np.where(np.expand_dims(defined, -1), 2 * normals - 1, 0)
    return vectors.astype(np.float32), np.asarray(defined)


def picture_of(
    vectors: Float32[np.ndarray, "h w 3"], defined: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """The picture of vectors of any length; black where they are not defined, or as good as 0."""
    length = np.linalg.norm(vectors, axis=-1)
    defined = defined & (length > 1e-3)
    unit = vectors / np.where(defined, length, 1)[..., None]
    return np.where(defined[..., None], np.clip((unit + 1) / 2, 0, 1), 0).astype(np.float32)
