"""One scan from its files: decode each, register to one grid, check, assemble.

Every loader ends here, so that a rule about grids and masks exists once.
Letters: H, W the pixels of the scan (the photograph's where there is one).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.datasets.dataset import Entry
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.masks import read_mask
from pirn_jax.scans.formats.measurements import read_depth, read_normals, read_points
from pirn_jax.scans.formats.options import Options
from pirn_jax.scans.formats.pictures import read_rgb
from pirn_jax.scans.formats.registration import nearest_pixels, register
from pirn_jax.scans.scan import Scan


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
    rgb = None
    if "rgb" in sources:
        upright = alone(sources)
        rgb = read_rgb(sources["rgb"], limits, white=options.white, upright=upright)
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


def alone(roles: Mapping[str, object]) -> bool:
    """Whether a photograph has no geometry beside it, and may be turned upright."""
    return not {"xyz", "depth", "normals"} & roles.keys()


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
        normals: unit normals in the camera frame, zeros where undefined. A map of the photograph's
            size is the photograph's own; one of the points' size goes with the points.
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
            limits=options.limits,
        )
    if normals is not None and normals.shape[:2] != grid:
        if registration is None or xyz is None or normals.shape != xyz.shape:
            normals = register(
                files.get("normals") or File(Path(key)),
                normals,
                grid,
                assume_aligned=options.assume_aligned,
                scale=options.scale,
                limits=options.limits,
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
    turned = alone(files)
    mask = _matching(files["mask"], grid, options, turned) if "mask" in files else None
    ignore = None
    if "ignore" in files:
        ignore = _matching(files["ignore"], grid, options, turned) > 0
    if mask is not None and label == 1 and not mask.any():
        mask = None  # it says nothing of where the defect is
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


def _matching(
    file: File, grid: tuple[int, ...], options: Options, upright: bool
) -> UInt8[np.ndarray, "H W"]:
    """A mask on the scan's grid; of another size only where the user vouches for the view."""
    mask = read_mask(file, options.limits, upright=upright)
    if mask.shape == grid:
        return mask
    if not options.assume_aligned:
        raise BadInputError(
            f"a mask of {mask.shape[0]}×{mask.shape[1]} pixels for a scan of {grid[0]}×{grid[1]}",
            "masks must lie on the scan's own pixels; if both show exactly the same field of view, "
            "pass assume_aligned=True (--assume-aligned)",
            path=str(file),
        )
    rows, columns = nearest_pixels(mask.shape, (grid[0], grid[1]))
    return mask[rows[:, None], columns[None, :]]
