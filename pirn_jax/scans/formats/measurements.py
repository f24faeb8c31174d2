"""Points and normals from files: decode, convert to metres and the camera's frame, check.

What comes out is what `Scan` promises: points in metres with zeros where nothing was measured,
unit normals towards the sensor with zeros where undefined.

Sensors mark what they did not measure in many ways. It is taken as missing where a point is not
finite, where its z is 0 (x and y kept or not), where a coordinate is beyond any length, and where
the lowest or highest z stands out and repeats: -1, -9999, 65535 counts (`missing_points`). Where
most points lie behind the sensor (z < 0) or one axis is mirrored, the axes are another's, and the
file is refused by name.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.arrays import read_array
from pirn_jax.scans.formats.clouds import read_cloud
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.options import TO_CAMERA, NormalFrame, Options
from pirn_jax.scans.formats.pictures import read_grey16, read_normal_picture
from pirn_jax.scans.formats.registration import Intrinsics

# A part with its surroundings is between a millimetre and ten metres across.
SMALLEST_EXTENT, LARGEST_EXTENT = 1e-3, 10.0
_BEYOND = 1e30  # FLT_MAX and its like
_FAR = 4.0
_SAME_POINTS = 4
_MOST_MARKS = 4
# Unit "auto" goes by the largest coordinate: parts lie within 4 m of the sensor, so up to 4 means
# metres and from 20 on millimetres; in between both are possible and the user must say.
_AUTO_METRES, _AUTO_MILLIMETRES = 4.0, 20.0


def read_points(
    file: File, options: Options, grid: tuple[int, ...] | None = None
) -> Float32[np.ndarray, "h w 3"]:
    """Points in metres; zeros where nothing was measured.

    Args:
        file: TIFF, NPY, NPZ, PLY or PCD.
        options: unit and limits.
        grid: (H, W) of the photograph, for a PLY that does not tell its own.
    """
    if file.suffix in (".ply", ".pcd"):
        points = read_cloud(file, options.limits, None if grid is None else (grid[0], grid[1]))
    elif file.suffix in (".tif", ".tiff", ".npy", ".npz"):
        points = read_array(file, options.limits)
    else:
        raise BadInputError(
            f"extension {file.suffix!r} is no point map",
            "use .tiff, .npy, .npz, .ply or .pcd",
            path=str(file),
        )
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype.kind != "f":
        raise BadInputError(
            f"expected points as floating-point (H, W, 3), got {points.dtype} {points.shape}",
            "save x, y, z of every pixel as float32, channels last",
            path=str(file),
        )
    return points_in_metres(file, points, options)


def read_depth(file: File, options: Options) -> Float32[np.ndarray, "h w 3"]:
    """Points in metres from a depth map and `options.intrinsics`; depth 0 or NaN is not measured.

    16-bit counts are taken in `intrinsics.depth_scale`, else in `options.unit`; never by guess.

    Raises:
        BadInputError: no depth map, or not of this camera's size.
    """
    camera = options.intrinsics
    if camera is None:
        raise BadInputError(
            "a depth map without its camera",
            "put intrinsics.json {fx, fy, cx, cy} beside the data, or pass intrinsics=… "
            "(--intrinsics)",
            path=str(file),
        )
    if file.suffix == ".png":
        depth = read_grey16(file, options.limits)
    elif file.suffix in (".tif", ".tiff", ".npy", ".npz"):
        depth = read_array(file, options.limits, key="depth")
    else:
        raise BadInputError(
            f"extension {file.suffix!r} is no depth map", "use .png, .npy or .tiff", path=str(file)
        )
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or not (depth.dtype.kind == "f" or depth.dtype == np.uint16):
        raise BadInputError(
            f"expected depth as (H, W) float or uint16, got {depth.dtype} {depth.shape}",
            "save one distance per pixel, 0 where nothing was measured",
            path=str(file),
        )
    camera.check(file, depth.shape)
    # Depth, its two products, the points, and the tests on them.
    options.limits.check_memory(file, depth.size * 48)
    if camera.depth_scale is not None and depth.dtype.kind != "f":
        metres = depth * np.float32(camera.depth_scale)
        return points_in_metres(file, back_project(metres, camera), Options(limits=options.limits))
    if options.unit == "auto" and depth.dtype.kind != "f":
        raise BadInputError(
            "a depth map of whole numbers whose scale is not stated: they may be millimetres, "
            "tenths or quarters of them",
            "state depth_scale (metres per count, e.g. 0.0001) in intrinsics.json or intrinsics=… "
            "(--intrinsics); for counts of millimetres say unit='mm' (--unit mm)",
            path=str(file),
        )
    return points_in_metres(file, back_project(depth.astype(np.float32), camera), options)


def back_project(
    depth: Float32[np.ndarray, "h w"], camera: Intrinsics
) -> Float32[np.ndarray, "h w 3"]:
    """Depth along the optical axis → points in the camera frame (x right, y down, z away)."""
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(camera.cx)) / np.float32(camera.fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(camera.cy)) / np.float32(camera.fy)
    with np.errstate(invalid="ignore", over="ignore"):  # inf · 0 is NaN: not measured
        return np.stack([depth * x[None, :], depth * y[:, None], depth], axis=-1)


def points_in_metres(
    file: File, points: np.ndarray, options: Options
) -> Float32[np.ndarray, "h w 3"]:
    """Points in metres, zeros where not measured; the extent must be plausible.

    `points` is changed in place where it is writeable float32, as large ones fill memory.
    """
    with np.errstate(over="ignore"):
        xyz = np.require(points, np.float32, ("C", "W"))
    valid = ~missing_points(xyz)
    xyz[~valid] = 0
    share = float(valid.mean())
    if share < options.limits.valid_share:
        raise BadInputError(
            f"{share:.2%} of the pixels carry a measurement (not NaN, infinite or zero)",
            "check the sensor and the file; to go without geometry leave it out",
            path=str(file),
        )
    # A few hundred thousand points tell the extent; single stray points do not count.
    chosen = np.flatnonzero(valid)
    chosen = chosen[:: max(1, len(chosen) // 200_000)]
    some = xyz.reshape(-1, 3)[chosen].astype(np.float64)
    low, high = np.percentile(some, (1, 99), axis=0)
    extent = float(np.linalg.norm(high - low))
    factor = {"m": 1.0, "mm": 1e-3}.get(options.unit)
    if factor is None:
        factor = _guess_unit(file, float(np.percentile(np.abs(some).max(axis=1), 98)))
    if not SMALLEST_EXTENT <= extent * factor <= LARGEST_EXTENT:
        raise BadInputError(
            f"the points reach over {extent * factor:.3g} m (read as {options.unit}), "
            f"expected {SMALLEST_EXTENT:g} to {LARGEST_EXTENT:g} m",
            "state the file's unit: unit='mm' or unit='m' (--unit)",
            path=str(file),
        )
    _check_axes(file, xyz, valid)
    if factor != 1:
        xyz *= np.float32(factor)
    return xyz


def missing_points(xyz: Float32[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where nothing was measured; see the module's description.

    The lowest and the highest z are in turn compared with the rest. Such a value is a mark, and no
    place, where it is there at least twice and its points are one and the same, or it has the other
    sign than the rest, or is four times as far away as 98 % of them.
    """
    missing = xyz[..., 2] == 0
    with np.errstate(invalid="ignore"):
        for axis in range(3):  # one after the other, as large clouds fill memory
            missing |= ~(np.abs(xyz[..., axis]) < _BEYOND)
    z = xyz[..., 2]
    for _ in range(_MOST_MARKS):
        there = ~missing
        if not there.any():
            break
        ends = z.min(where=there, initial=np.inf), z.max(where=there, initial=-np.inf)
        marks = [value for value in ends if _is_mark(value, there, xyz)]
        if not marks:
            break
        for value in marks:
            missing |= z == value
    return missing


def _is_mark(
    value: np.float32, there: Bool[np.ndarray, "h w"], xyz: Float32[np.ndarray, "h w 3"]
) -> bool:
    z = xyz[..., 2]
    same = z == value
    count = int((same & there).sum())
    if count < 2 or count == int(there.sum()):
        return False
    points = xyz[same]
    if len(points) >= _SAME_POINTS and (points == points[0]).all():
        return True
    rest = z[there & ~same]
    rest = rest[:: max(1, len(rest) // 50_000)]
    behind = (np.sign(rest) != np.sign(value)).mean() > 0.98
    return bool(behind or abs(value) > _FAR * np.percentile(np.abs(rest), 98))


def _check_axes(
    file: File, xyz: Float32[np.ndarray, "h w 3"], valid: Bool[np.ndarray, "h w"]
) -> None:
    """Refuse points that do not lie as a camera sees them: x right, y down, z away from it."""
    behind = float((xyz[..., 2] < 0).mean(where=valid))
    if behind > 0.5:
        raise BadInputError(
            f"z is negative at {behind:.0%} of the points: they lie behind the sensor, as "
            "in axes with y up and z towards the viewer",
            "turn the axes before saving: xyz[..., 1:] *= -1",
            path=str(file),
        )
    step = max(1, math.isqrt(valid.size // 50_000))  # some tell
    first, following = slice(None, -1, step), slice(1, None, step)
    both = valid[first, first] & valid[following, first] & valid[first, following]
    here = xyz[first, first][both].astype(np.float64)
    right, down = xyz[first, following][both] - here, xyz[following, first][both] - here
    if len(here) and (np.einsum("ni,ni->n", np.cross(right, down), here) < 0).mean() > 0.9:
        raise BadInputError(
            "the axes of the points are flipped: one is mirrored, or z points towards the sensor "
            "and y up",
            "bring them into the camera's axes before saving (x to the right, y down, z away from "
            "the sensor), e.g. xyz[..., 1] *= -1",
            path=str(file),
        )


def _guess_unit(file: File, largest: float) -> float:
    if largest <= _AUTO_METRES:
        return 1.0
    if largest >= _AUTO_MILLIMETRES:
        return 1e-3
    raise BadInputError(
        f"coordinates up to {largest:.3g} could be metres or millimetres",
        "state the unit: unit='mm' or unit='m' (--unit)",
        path=str(file),
    )


def read_normals(file: File, options: Options) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in the camera frame, zeros where undefined, from a picture or a float array.

    Raises:
        BadInputError: most vectors have another length than 1, or point away from the sensor.
    """
    if file.suffix in (".npy", ".npz"):
        stored = read_array(file, options.limits, key="normals")
        if stored.ndim != 3 or stored.shape[2] != 3 or stored.dtype.kind != "f":
            raise BadInputError(
                f"expected normals as float (H, W, 3), got {stored.dtype} {stored.shape}",
                "save unit vectors, zeros where undefined",
                path=str(file),
            )
        with np.errstate(over="ignore"):
            normals = np.array(stored, dtype=np.float32)
        normals[~np.isfinite(normals).all(axis=-1)] = 0
    else:
        normals = read_normal_picture(file, options.limits)
    return finish_normals(file, normals, options.normal_frame)


def finish_normals(
    file: File, normals: Float32[np.ndarray, "h w 3"], frame: NormalFrame
) -> Float32[np.ndarray, "h w 3"]:
    """Bring vectors, in place, to length 1 and into the camera frame; check that they are normals.

    Stored lengths below 0.5 are undefined (mid-grey background); 8 bits keep the rest within a
    few per cent of 1, which a photograph under a normal map's name does not.
    """
    with np.errstate(over="ignore"):
        length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    defined = length > 0.5
    unit = int((np.abs(length - 1) < 0.15).sum())
    if not defined.any() or unit < 0.5 * defined.sum():
        raise BadInputError(
            f"{unit} of {defined.size} pixels hold a vector of length 1",
            "check that it is a normal map: n·127.5 + 127.5 as 8-bit RGB, or unit vectors as float",
            path=str(file),
        )
    result = normals  # a copy of its own already; large maps are changed in place
    result *= np.array(TO_CAMERA[frame], np.float32)
    result /= np.maximum(length, 0.5)[..., None]
    result[~(defined & np.isfinite(length))] = 0
    if (result[..., 2] > 0).sum() > 0.5 * defined.sum():
        raise BadInputError(
            f"most normals point away from the sensor when read as {frame!r}",
            "state the map's axes: normal_frame='opengl', 'directx' or 'camera'",
            path=str(file),
        )
    return result
