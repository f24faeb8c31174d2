"""Geometry brought onto the photograph's pixel grid.

A point map of the photograph's size is taken as pixel-aligned, as every organised release states.
One of another size is not: it is registered by a calibration, by a stated scale, or, where the
user says that both see the same field of view, by the ratio of the sizes. Anything else would put
the geometry of one place under the colour of another, and is refused.

Points are picked, never averaged: between a part and the table there is no point.
Letters: H, W photograph; h, w geometry; R, t rotation and translation from the geometry's camera
to the photograph's; K the photograph's camera matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File, Limits, read_json


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, in pixels; pixel centres at whole numbers.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: principal point.
        depth_scale: metres per count of a depth map, where the camera's file says so.
        width, height: of its pictures, in pixels, where the file says so.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    depth_scale: float | None = None
    width: int | None = None
    height: int | None = None

    def check(self, file: File, shape: tuple[int, ...]) -> None:
        """Refuse a picture of another size than the camera's; at half of it lengths would double.

        Args:
            file: the picture.
            shape: its rows and columns.

        Raises:
            BadInputError: its size is not the camera's.
        """
        stated = (self.height or shape[0], self.width or shape[1])
        if stated != tuple(shape):
            raise BadInputError(
                f"{shape[0]}×{shape[1]} pixels with a camera of {stated[0]}×{stated[1]}",
                "give the camera as it is at the size that was recorded: its fx, fy, cx and cy",
                path=str(file),
            )


@dataclass(frozen=True)
class CameraCalibration:
    """Where the photograph's camera stands relative to the geometry's.

    Attributes:
        camera: the photograph's camera.
        rotation: R, rows of a 3×3 rotation matrix; p_rgb = R p + t.
        translation: t in metres.
    """

    camera: Intrinsics
    rotation: tuple[tuple[float, float, float], ...]
    translation: tuple[float, float, float]


def read_intrinsics(file: File, limits: Limits) -> Intrinsics:
    """A camera from JSON: fx, fy, cx, cy and, optionally, depth_scale, width and height.

    depth_scale is in metres per count; width and height are those that its pictures must have.
    Also as RealSense writes it (ppx, ppy), as Open3D does (`intrinsic_matrix`, nine numbers or 3×3,
    with its depth_scale in counts per metre), as ROS does (K), and with a leading underscore, as
    Berkeley's perception `.intr` files have them.

    Raises:
        BadInputError: none of these.
    """
    return parse_intrinsics(read_json(file, limits), file)


def parse_intrinsics(document: Any, file: File | Path) -> Intrinsics:
    """`read_intrinsics` of a document at hand; the file is for messages."""
    values: dict[str, Any] = {}
    if isinstance(document, dict):
        values = {str(key).lstrip("_"): value for key, value in document.items()}
    if isinstance(inner := values.get("intrinsic", values.get("intrinsics")), dict):
        values = {**inner, **values}
    values = {_SPELLINGS.get(key, key): value for key, value in values.items()}
    matrix = values.get("intrinsic_matrix", values.get("K", values.get("k")))
    if matrix is not None:
        values = {**_of_matrix(matrix), **values}
        scale = values.get("depth_scale")
        if isinstance(scale, int | float) and scale >= 1:  # Open3D's: counts per metre
            values["depth_scale"] = 1 / scale
    numbers: dict[str, Any] = {
        key: float(values[key])
        for key in ("fx", "fy", "cx", "cy", "depth_scale")
        if isinstance(values.get(key), int | float) and abs(values[key]) < 1e9
    }
    for key in ("width", "height"):
        if size := values.get(key):  # 0 says nothing
            whole = isinstance(size, int | float) and 0 < size < 1e9 and size == int(size)
            numbers[key] = int(size) if whole else None
    right = {"fx", "fy", "cx", "cy"} <= numbers.keys() and min(numbers["fx"], numbers["fy"]) > 0
    if values.get("depth_scale") is not None:
        right = right and 0 < numbers.get("depth_scale", 0.0) < 1
    if not right or None in numbers.values():
        raise BadInputError(
            "expected a camera as {fx, fy, cx, cy} in pixels (or ppx, ppy, or intrinsic_matrix), "
            "focal lengths positive, and, if stated, depth_scale in metres per count, width and "
            "height in whole pixels",
            'write for instance {"fx": 600, "fy": 600, "cx": 320, "cy": 240, "depth_scale": 0.001}',
            path=str(file),
        )
    return Intrinsics(**numbers)


_SPELLINGS = {"ppx": "cx", "ppy": "cy"}


def _of_matrix(matrix: Any) -> dict[str, float]:
    """fx, fy, cx, cy from a camera matrix, row by row or column by column; {} where it is none."""
    try:
        found = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        return {}
    if found.size != 9 or not np.isfinite(found).all():
        return {}
    for each in (found.reshape(3, 3), found.reshape(3, 3).T):
        if np.allclose(each[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
            names = {"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}
            return {name: float(each[place]) for name, place in names.items()}
    return {}


def read_camera_calibration(file: File, limits: Limits) -> CameraCalibration:
    """A calibration from JSON: {"rgb": {fx, fy, cx, cy}, "rotation": 3×3, "translation": metres}.

    Raises:
        BadInputError: not of that form, or the matrix is no rotation.
    """
    document = read_json(file, limits)
    try:
        camera = parse_intrinsics(document["rgb"], file)
        rotation = np.array(document["rotation"], np.float64)
        translation = np.array(document["translation"], np.float64)
        right = rotation.shape == (3, 3) and translation.shape == (3,)
        right = right and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
        right = right and bool(np.linalg.det(rotation) > 0) and bool(np.abs(translation).max() < 10)
    except (KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise BadInputError(
            'expected {"rgb": camera, "rotation": a 3×3 rotation, "translation": 3 metres}',
            "write the pose that takes the geometry camera's points into the photograph's camera",
            path=str(file),
        )
    rows = tuple((float(a), float(b), float(c)) for a, b, c in rotation)
    x, y, z = (float(value) for value in translation)
    return CameraCalibration(camera, rows, (x, y, z))


class Registration:
    """For each pixel of the photograph, the geometry's pixel that belongs to it.

    Args:
        index: flat index into the h·w geometry pixels, -1 where there is none; None where both
            grids are the same.
        pose: R and t to apply to points and directions, or None.
    """

    def __init__(
        self,
        index: Int32[np.ndarray, "H W"] | None,
        pose: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self._index, self._pose = index, pose

    def points(self, xyz: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "H W 3"]:
        """Points in the photograph's camera; zeros (not measured) stay zeros."""
        if self._pose is not None:
            measured = (xyz != 0).any(axis=-1)
            xyz = (xyz @ self._pose[0].T + self._pose[1]).astype(np.float32)
            xyz[~measured] = 0
        return self._picked(xyz)

    def directions(self, normals: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "H W 3"]:
        """Normals in the photograph's camera."""
        if self._pose is not None:
            normals = (normals @ self._pose[0].T).astype(np.float32)
        return self._picked(normals)

    def _picked(self, values: np.ndarray) -> np.ndarray:
        if self._index is None:
            return values
        picked = values.reshape(-1, 3)[self._index]
        picked[self._index < 0] = 0
        return picked


def register(
    file: File,
    xyz: Float32[np.ndarray, "h w 3"],
    target: tuple[int, int],
    *,
    assume_aligned: bool = False,
    scale: float | None = None,
    calibration: CameraCalibration | None = None,
    limits: Limits,
) -> Registration:
    """Find the geometry's pixel for each pixel of the photograph.

    Args:
        file: the geometry's file, for messages.
        xyz: points in metres, zeros where not measured.
        target: (H, W) of the photograph.
        assume_aligned: both see the same field of view, whatever their sizes.
        scale: photograph pixels per geometry pixel, from the same corner: row r, column c of the
            geometry covers rows r·scale … (r+1)·scale.
        calibration: the photograph's camera and its pose. It is used whenever it is given.
        limits: caps on the memory taken.

    Raises:
        BadInputError: sizes differ and nothing says how they belong together, the stated scale
            does not fit the sizes, or the photograph's camera is of another size.
    """
    (height, width), source = target, xyz.shape[:2]
    if calibration is not None:
        calibration.camera.check(file, target)
        limits.check_memory(file, 90 * xyz.shape[0] * xyz.shape[1] + 20 * height * width)
        pose = (np.array(calibration.rotation), np.array(calibration.translation))
        return Registration(_project(xyz, pose, calibration.camera, target), pose)
    if source == target:
        return Registration(None)
    limits.check_memory(file, xyz.nbytes + 20 * height * width)  # index, points, tests on them
    if scale is not None:
        if max(abs(source[0] * scale - height), abs(source[1] * scale - width)) > scale:
            raise BadInputError(
                f"{source[0]}×{source[1]} geometry times {scale:g} does not cover the photograph's "
                f"{height}×{width} pixels",
                "state the true scale=… (--scale), or give calibration=… (--calibration)",
                path=str(file),
            )
        rows, columns = (np.arange(size) + 0.5 for size in target)
        rows = np.minimum((rows / scale).astype(np.int32), source[0] - 1)
        columns = np.minimum((columns / scale).astype(np.int32), source[1] - 1)
    elif assume_aligned:
        rows, columns = nearest_pixels(source, target)
    else:
        raise BadInputError(
            f"geometry of {source[0]}×{source[1]} pixels for a photograph of {height}×{width}: "
            "how they lie over each other is not known",
            "if both show exactly the same field of view, say assume_aligned=True "
            "(--assume-aligned); else give scale=… (--scale), photograph pixels per geometry "
            "pixel, or calibration=… (--calibration); to train without geometry: "
            'modalities=("rgb",) (train --modalities rgb)',
            path=str(file),
        )
    return Registration(rows[:, None] * np.int32(source[1]) + columns[None, :])


def nearest_pixels(
    source: tuple[int, ...], target: tuple[int, int]
) -> tuple[Int32[np.ndarray, " H"], Int32[np.ndarray, " W"]]:
    """Source rows and columns under each row and column of a target with the same view."""
    rows = ((np.arange(target[0]) + 0.5) * (source[0] / target[0])).astype(np.int32)
    columns = ((np.arange(target[1]) + 0.5) * (source[1] / target[1])).astype(np.int32)
    return np.minimum(rows, source[0] - 1), np.minimum(columns, source[1] - 1)


def _project(
    xyz: Float32[np.ndarray, "h w 3"],
    pose: tuple[np.ndarray, np.ndarray],
    camera: Intrinsics,
    target: tuple[int, int],
) -> Int32[np.ndarray, "H W"]:
    """Draw each point as a small square into the photograph; the nearest to the camera wins.

    The square is as wide as neighbouring points lie apart in the photograph, so that a denser
    photograph is filled without gaps.
    """
    height, width = target
    flat = xyz.reshape(-1, 3)
    moved = (flat @ pose[0].T + pose[1]).astype(np.float32)
    front = np.flatnonzero((flat != 0).any(axis=-1) & (moved[:, 2] > 1e-6)).astype(np.int32)
    z = moved[front, 2]
    column = np.float32(camera.fx) * moved[front, 0] / z + np.float32(camera.cx)
    row = np.float32(camera.fy) * moved[front, 1] / z + np.float32(camera.cy)
    # Neighbours along a row of the geometry are one apart in `front` but for holes and row ends.
    gaps = np.hypot(np.diff(column), np.diff(row))[np.diff(front) == 1]
    spacing = float(np.median(gaps)) if gaps.size else 1.0
    size = int(np.clip(np.ceil(spacing), 1, 8))
    far_first = np.argsort(-z, kind="stable")
    column, row, z, front = column[far_first], row[far_first], z[far_first], front[far_first]
    index = np.full(height * width, -1, np.int32)
    depth = np.full(height * width, np.inf, np.float32)
    offsets = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    for down in offsets:
        for right in offsets:
            r, c = np.rint(row + down), np.rint(column + right)
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            place = r[inside].astype(np.int64) * width + c[inside].astype(np.int64)
            nearer = z[inside] < depth[place]
            place = place[nearer]
            # Of several points in one place the last is stored, which is the nearest.
            depth[place], index[place] = z[inside][nearer], front[inside][nearer]
    return index.reshape(height, width)
