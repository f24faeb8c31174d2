"""One scan from its files: decode each, convert to metres, register to one grid, check, assemble.

Every loader ends here, so that a rule about units, masks or missing points exists once.
Letters: H, W the pixels of the scan (the photograph's where there is one).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.arrays import read_array
from pirn_jax.scans.clouds import read_cloud
from pirn_jax.scans.dataset import Entry
from pirn_jax.scans.files import File, Limits
from pirn_jax.scans.pictures import read_grey16, read_mask, read_normal_picture, read_rgb
from pirn_jax.scans.registration import Calibration, Intrinsics, nearest_pixels, register
from pirn_jax.scans.scan import Scan

Unit = Literal["m", "mm", "auto"]
NormalFrame = Literal["opengl", "directx", "camera"]

# A part with its surroundings is between a millimetre and ten metres across.
SMALLEST_EXTENT, LARGEST_EXTENT = 1e-3, 10.0
# Unit "auto" goes by the largest coordinate: parts lie within 4 m of the sensor, so up to 4 means
# metres and from 20 on millimetres; in between both are possible and the user must say.
_AUTO_METRES, _AUTO_MILLIMETRES = 4.0, 20.0
# Signs from a stored normal map to the camera frame (x right, y down, z away from the sensor).
_TO_CAMERA = {"opengl": (1, -1, -1), "directx": (1, 1, -1), "camera": (1, 1, 1)}


@dataclass(frozen=True)
class Options:
    """How files are to be understood; the defaults are those of the released datasets.

    Attributes:
        unit: unit of point and depth files.
        assume_aligned: geometry of another size shows the photograph's field of view.
        scale: photograph pixels per geometry pixel.
        calibration: the photograph's camera relative to the geometry's.
        intrinsics: the depth camera, for depth maps.
        normal_frame: axes of ready normal maps: "opengl" y up and z towards the viewer (bluish
            pictures), "directx" y down and z towards the viewer, "camera" as in `Scan`.
        limits: what one file may cost.
    """

    unit: Unit = "m"
    assume_aligned: bool = False
    scale: float | None = None
    calibration: Calibration | None = None
    intrinsics: Intrinsics | None = None
    normal_frame: NormalFrame = "opengl"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.unit not in ("m", "mm", "auto"):
            raise ConfigError(f"unit must be m, mm or auto, got {self.unit!r}")
        if self.normal_frame not in _TO_CAMERA:
            raise ConfigError(
                f"normal_frame must be one of {', '.join(_TO_CAMERA)}, got {self.normal_frame!r}"
            )
        if self.scale is not None and not 0.01 <= self.scale <= 100:
            raise ConfigError(f"scale must be between 0.01 and 100, got {self.scale!r}")


def read_scan(
    files: Mapping[str, File | str | os.PathLike[str]],
    options: Options | None = None,
    *,
    key: str = "",
    label: int | None = None,
    defect: str = "",
) -> Scan:
    """Read one scan.

    Args:
        files: by role: "rgb"; geometry as "xyz" (TIFF, NPY, NPZ, organised PLY or PCD) or "depth"
            (16-bit PNG, NPY, TIFF, with `options.intrinsics`); "normals"; "mask"; "ignore".
        options: how to understand them.
        key: the scan's name within its category.
        label: 0 good, 1 defective, None unknown.
        defect: the defect's name.

    Raises:
        BadInputError: a file cannot be used, or two do not belong together.
    """
    options = options or Options()
    known = {"rgb", "xyz", "depth", "normals", "mask", "ignore"}
    if unknown := set(files) - known:
        raise ConfigError(f"unknown role {sorted(unknown)}; expected some of {sorted(known)}")
    sources = {
        role: file if isinstance(file, File) else File(Path(file)) for role, file in files.items()
    }
    limits = options.limits
    rgb = read_rgb(sources["rgb"], limits) if "rgb" in sources else None
    grid = None if rgb is None else rgb.shape[:2]
    xyz = None
    if "xyz" in sources:
        xyz = read_points(sources["xyz"], options, grid)
    elif "depth" in sources:
        xyz = read_depth(sources["depth"], options)
    normals = read_normals(sources["normals"], options) if "normals" in sources else None
    return assemble(
        sources, options, rgb=rgb, xyz=xyz, normals=normals, key=key, label=label, defect=defect
    )


def read_entry(entry: Entry, options: Options) -> Scan:
    """Read a listed scan."""
    return read_scan(entry.files, options, key=entry.key, label=entry.label, defect=entry.defect)


def assemble(
    files: Mapping[str, File],
    options: Options,
    *,
    rgb: UInt8[np.ndarray, "H W 3"] | None,
    xyz: Float32[np.ndarray, "h w 3"] | None,
    normals: Float32[np.ndarray, "hn wn 3"] | None,
    key: str = "",
    label: int | None = None,
    defect: str = "",
) -> Scan:
    """Put decoded arrays on one grid and add the masks.

    Args:
        files: by role; "mask" and "ignore" are read here, the others are named in messages.
        options: how geometry of another size is registered.
        rgb: the photograph.
        xyz: points in metres, zeros where not measured.
        normals: unit normals in the camera frame, zeros where undefined.
        key: the scan's name within its category.
        label: 0 good, 1 defective, None unknown.
        defect: the defect's name.

    Raises:
        BadInputError: nothing to look at, sizes that do not fit, or a good part with a defect mask.
    """
    anchor = next((array for array in (rgb, xyz, normals) if array is not None), None)
    if anchor is None:
        raise BadInputError(
            f"scan {key or '(unnamed)'} has neither photograph nor geometry",
            "give at least one of rgb, xyz, depth and normals",
        )
    grid = anchor.shape[:2]
    registration = None
    if xyz is not None:
        source = files.get("xyz") or files.get("depth") or File(Path(key))
        registration = register(
            source,
            xyz,
            grid,
            assume_aligned=options.assume_aligned,
            scale=options.scale,
            calibration=options.calibration,
        )
    if normals is not None and normals.shape[:2] != grid:
        if registration is None or xyz is None or normals.shape != xyz.shape:
            normals = register(
                files.get("normals") or File(Path(key)),
                normals,
                grid,
                assume_aligned=options.assume_aligned,
                scale=options.scale,
            ).directions(normals)
        else:
            normals = registration.directions(normals)
    if xyz is not None and registration is not None:
        xyz = registration.points(xyz)
    if xyz is not None:
        valid = (xyz != 0).any(axis=-1)
    elif normals is not None:
        valid = (normals != 0).any(axis=-1)
    else:
        valid = np.ones(grid, bool)
    if xyz is not None and float(valid.mean()) < options.limits.valid_share:
        raise BadInputError(
            "no measured point falls into the photograph",
            "check the calibration: its direction, and its unit (metres)",
            path=str(files.get("xyz") or files.get("depth") or key),
        )
    mask = _matching(files["mask"], grid, options) if "mask" in files else None
    ignore = _matching(files["ignore"], grid, options) > 0 if "ignore" in files else None
    if mask is None and label == 0:
        mask = np.zeros(grid, np.uint8)
    if mask is not None and label == 0 and mask.any():
        raise BadInputError(
            "a good part whose mask marks a defect",
            "move the scan to the folder of its defect, or mend the mask",
            path=str(files.get("mask", key)),
        )
    return Scan(
        rgb=rgb,
        xyz=xyz,
        valid=valid,
        normals=normals,
        mask=mask,
        ignore=ignore,
        label=label,
        defect=defect,
        key=key,
        paths={role: str(file) for role, file in files.items()},
    )


def _matching(file: File, grid: tuple[int, ...], options: Options) -> UInt8[np.ndarray, "H W"]:
    """A mask on the scan's grid; of another size only where the user vouches for the view."""
    mask = read_mask(file, options.limits)
    if mask.shape == grid:
        return mask
    if not options.assume_aligned:
        raise BadInputError(
            f"a mask of {mask.shape[0]}×{mask.shape[1]} pixels for a scan of {grid[0]}×{grid[1]}",
            "masks must lie on the scan's own pixels; if both show exactly the same field of view, "
            "pass assume_aligned=True",
            path=str(file),
        )
    rows, columns = nearest_pixels(mask.shape, (grid[0], grid[1]))
    return mask[rows[:, None], columns[None, :]]


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
    """Own float32 copy in metres, zeros where not measured; the extent must be plausible."""
    with np.errstate(over="ignore"):
        xyz = np.array(points, dtype=np.float32, order="C")
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
    some = xyz[valid]
    some = some[:: max(1, len(some) // 200_000)].astype(np.float64)
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
    """Bring stored vectors to length 1 and into the camera frame, and check that they are normals.

    Stored lengths below 0.5 are undefined (mid-grey background); 8 bits keep the rest within a
    few per cent of 1, which a photograph under a normal map's name does not.
    """
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals, dtype=np.float64))
    defined = length > 0.5
    unit = defined & (np.abs(length - 1) < 0.15)
    if not defined.any() or unit.sum() < 0.5 * defined.sum():
        raise BadInputError(
            f"{int(unit.sum())} of {defined.size} pixels hold a vector of length 1",
            "check that it is a normal map: n·127.5 + 127.5 as 8-bit RGB, or unit vectors as float",
            path=str(file),
        )
    signs = np.array(_TO_CAMERA[frame], np.float32)
    scaled = normals * signs / np.maximum(length, 0.5)[..., None]
    result = np.where(defined[..., None], scaled, 0.0).astype(np.float32)
    if (result[..., 2] > 0).sum() > 0.5 * defined.sum():
        raise BadInputError(
            f"most normals point away from the sensor when read as {frame!r}",
            "state the map's axes: normal_frame='opengl', 'directx' or 'camera'",
            path=str(file),
        )
    return result
