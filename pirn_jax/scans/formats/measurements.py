"""Points and normals from files: decode, convert to metres and the camera's frame, check.

What comes out is what `Scan` promises: points in metres with zeros where nothing was measured,
unit normals towards the sensor with zeros where undefined.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.arrays import read_array
from pirn_jax.scans.formats.clouds import read_cloud
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.options import TO_CAMERA, NormalFrame, Options
from pirn_jax.scans.formats.pictures import read_grey16, read_normal_picture
from pirn_jax.scans.formats.registration import Intrinsics

# A part with its surroundings is between a millimetre and ten metres across.
SMALLEST_EXTENT, LARGEST_EXTENT = 1e-3, 10.0
# Unit "auto" goes by the largest coordinate: parts lie within 4 m of the sensor, so up to 4 means
# metres and from 20 on millimetres; in between both are possible and the user must say.
_AUTO_METRES, _AUTO_MILLIMETRES = 4.0, 20.0


def read_points(
    file: File, options: Options, grid: tuple[int, ...] | None = None
) -> Float32[np.ndarray, "h w 3"]:
    """Points in metres; zeros where nothing was measured (NaN, infinite, or all three zero).

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

    16-bit counts are taken in `intrinsics.depth_scale`, else in `options.unit`.
    """
    camera = options.intrinsics
    if camera is None:
        raise BadInputError(
            "a depth map without its camera",
            "put intrinsics.json {fx, fy, cx, cy} beside the data, or pass intrinsics=…",
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
    # Depth, its two products, the points, and the tests on them.
    options.limits.check_memory(file, depth.size * 48)
    if camera.depth_scale is not None and depth.dtype.kind != "f":
        metres = depth * np.float32(camera.depth_scale)
        return points_in_metres(file, back_project(metres, camera), Options(limits=options.limits))
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
    valid = np.isfinite(xyz).all(axis=-1)
    valid &= (xyz != 0).any(axis=-1)
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
    if factor != 1:
        xyz *= np.float32(factor)
    return xyz


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
