"""What `PIRN.predict` is given, as a scan: one already, files, or arrays at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pirn_jax.errors import BadInputError
from pirn_jax.scans import File, Options, Scan, read_scan
from pirn_jax.scans.datasets.names import role_of
from pirn_jax.scans.formats.measurements import finish_normals, points_in_metres

_STREAMS = {"rgb": "rgb", "normals": "xyz"}


def scan_of(given: object, modalities: Sequence[str]) -> Scan:
    """One scan from what a caller has.

    Args:
        given: a `Scan`; the path of its one file; its photograph as an array; or several of these
            by what they are: {"rgb": …, "xyz": …}, all paths or all arrays.
        modalities: of the model.

    Raises:
        BadInputError: anything else: what was expected and what came.
    """
    if isinstance(given, Scan):
        return given
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        named = role_of(File(path), [_STREAMS[name] for name in modalities])
        return _read({named[1] if named else "rgb": path}, path.stem)
    if isinstance(given, np.ndarray):
        return _of_arrays({"rgb": given})
    if isinstance(given, Mapping) and given:
        if all(isinstance(value, str | os.PathLike) for value in given.values()):
            paths = {str(role): Path(value) for role, value in given.items()}
            return _read(paths, next(iter(paths.values())).stem)
        if all(isinstance(value, np.ndarray) for value in given.values()):
            return _of_arrays(given)
    kind = type(given).__name__
    count = f" of {len(given)}" if isinstance(given, list | tuple) else ""
    raise BadInputError(
        f"expected one scan: a Scan, a path, a uint8 array (H, W, 3), or a dict of these by role; "
        f"got {kind}{count}",
        "of several make several calls, or give a Split to predict_scans",
    )


def _read(paths: Mapping[str, Path], key: str) -> Scan:
    return read_scan(paths, Options(unit="auto"), key=key)


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> Scan:
    if unknown := set(arrays) - {"rgb", "xyz", "normals"}:
        raise BadInputError(f"unknown array {sorted(unknown)}", "give rgb, xyz or normals")
    rgb, xyz, normals = (arrays.get(name) for name in ("rgb", "xyz", "normals"))
    if rgb is not None:
        rgb = _photograph(rgb)
    if xyz is not None:
        if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype.kind != "f":
            raise BadInputError(
                f"expected points as float32 (H, W, 3) in metres, got {xyz.dtype} {xyz.shape}",
                "give x, y, z of every pixel, channels last, zeros where nothing was measured",
            )
        xyz = points_in_metres(File(Path("xyz")), xyz.astype(np.float32), Options(unit="m"))
    if normals is not None:
        if normals.ndim != 3 or normals.shape[2] != 3 or normals.dtype.kind != "f":
            raise BadInputError(
                f"expected normals as float32 (H, W, 3), got {normals.dtype} {normals.shape}",
                "give unit vectors in the camera's axes, zeros where undefined",
            )
        copy = np.nan_to_num(np.array(normals, np.float32), posinf=0, neginf=0)
        normals = finish_normals(File(Path("normals")), copy, "camera")
    shape = next(a for a in (rgb, xyz, normals) if a is not None).shape[:2]
    for name, array in (("points", xyz), ("normals", normals)):
        if array is not None and array.shape[:2] != shape:
            raise BadInputError(
                f"a photograph of {shape} pixels with {name} of {array.shape[:2]}",
                "bring both onto one grid",
            )
    measured = xyz if xyz is not None else normals
    valid = np.ones(shape, bool) if measured is None else (measured != 0).any(axis=-1)
    return Scan(rgb=rgb, xyz=xyz, valid=valid, normals=normals)


def _photograph(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8 and array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return array
    remedies = []
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        remedies.append("put the channels last: array.transpose(1, 2, 0)")
    if array.dtype.kind == "f":
        remedies.append("scale to 0…255 and round: np.rint(255 * array).astype(np.uint8)")
    elif array.dtype != np.uint8:
        remedies.append("scale to 8 bits with one fixed white for all photographs")
    if array.ndim == 4:
        remedies.append("give one photograph at a time")
    raise BadInputError(
        f"expected a photograph as uint8 (H, W, 3), or (H, W) in grey, got {array.dtype} "
        f"{array.shape}",
        "; ".join(remedies) or "leave out the channels that are no colours",
    )
