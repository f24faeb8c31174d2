"""A scan: one part, photographed and measured, on one pixel grid.

Dimension letters: H, W the pixels of the RGB image. Geometry of another size is registered to this
grid when it is read, so that pixel (row, column) means the same place in every field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8


class Scan(NamedTuple):
    """One scan on the RGB grid; at least one of `rgb`, `xyz` and `normals` is there.

    Attributes:
        rgb: photograph, uint8 (H, W, 3), or None for a geometry-only scan.
        xyz: points, float32 (H, W, 3), metres, camera frame (z away from the sensor); zeros where
            nothing was measured; None without geometry or where only a normal map is given.
        valid: bool (H, W): the pixel carries a measurement. All True for an RGB-only scan.
        normals: unit surface normals, float32 (H, W, 3), camera frame, pointing towards the
            sensor, zeros where undefined; None where they are still to be computed from `xyz`.
        mask: uint8 (H, W), 0 good and >0 the defect's id; None where no truth is known,
            as on a defective part whose mask marks nothing.
        ignore: bool (H, W), True where neither training, scoring nor metrics may look; or None.
        label: 0 good, 1 defective, None unknown.
        defect: the defect's name, "good", or "" where unknown.
        key: unique and stable within the category, e.g. "test/crack/003"; "/" on every system.
        paths: the files it came from by role ("rgb", "xyz", "mask", ...).
    """

    rgb: UInt8[np.ndarray, "H W 3"] | None
    xyz: Float32[np.ndarray, "H W 3"] | None
    valid: Bool[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"] | None = None
    mask: UInt8[np.ndarray, "H W"] | None = None
    ignore: Bool[np.ndarray, "H W"] | None = None
    label: int | None = None
    defect: str = ""
    key: str = ""
    paths: Mapping[str, str] = {}
