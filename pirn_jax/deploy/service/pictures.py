"""What the page shows of a part, as files beside its uploads; made again from nothing, never read.

    photograph.jpg   normals.png   heatmap.png (as `predict` draws it)
    heat.png         grey; 128 and above is over the model's threshold, where it has one
    mask.png         white where the verdict says defective, by the rules and zones given
    points.bin       little-endian: uint32 rows, columns; float32 x, y, z of each, 0 0 0 for none

Dimension letters: H, W the scan's pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from pirn_jax.deploy.service.judge import Shown
from pirn_jax.report.heatmap import colour_map

NAMES = {
    "photograph.jpg": "image/jpeg",
    "normals.png": "image/png",
    "heat.png": "image/png",
    "mask.png": "image/png",
    "heatmap.png": "image/png",
    "points.bin": "application/octet-stream",
}
LARGEST = 768
"""Pixels of a picture's longer side."""
_MOST_POINTS = 224  # along a side


def write_pictures(folder: Path, shown: Shown) -> None:
    """Write what there is."""
    grey = np.floor(np.clip(shown.heat, 0, 1) * 255.999).astype(np.uint8)
    # Rounding must not move a pixel over the threshold, which is 128 and above.
    grey = np.where(shown.heat > 0.5, np.maximum(grey, 128), np.minimum(grey, 127))
    colours = colour_map(shown.heat, 0.0, 1.0).astype(np.float32)
    if shown.photograph is not None:
        colours = 0.65 * colours + 0.35 * shown.photograph.mean(-1, keepdims=True)
        _save(folder / "photograph.jpg", shown.photograph, quality=90)
    if shown.normals is not None:
        _save(folder / "normals.png", shown.normals, compress_level=1)
    _save(folder / "heat.png", grey.astype(np.uint8), compress_level=1)
    _save(folder / "mask.png", shown.mask.astype(np.uint8) * np.uint8(255), compress_level=1)
    _save(folder / "heatmap.png", np.rint(colours).astype(np.uint8), compress_level=1)
    if shown.xyz is not None:
        points = _thinned(shown.xyz, _MOST_POINTS).astype("<f4")
        head = np.array(points.shape[:2], "<u4")
        (folder / "points.bin").write_bytes(head.tobytes() + points.tobytes())


def _save(path: Path, picture: Shaped[np.ndarray, "H W *c"], **options: Any) -> None:
    Image.fromarray(_thinned(picture, LARGEST)).save(path, **options)


def _thinned(array: Shaped[np.ndarray, "H W *c"], most: int) -> Shaped[np.ndarray, "h w *c"]:
    """Every n-th pixel of both sides, so that the longer is at most so long."""
    step = -(-max(array.shape[:2]) // most)
    return np.ascontiguousarray(array[::step, ::step])
