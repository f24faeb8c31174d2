"""Your own files.

Either with splits, or flat (everything is to be judged, nothing is known about it):

    <category>/train/good/…  validation/good/…  test/<defect>/…      ("good/" may be left out)
    <category>/…

and in each of these folders either one folder per role, paired by stem:

    rgb/003.png  xyz/003.tiff  depth/003.png  normals/003.png  gt/003.png  ignore/003.png

or the files side by side, the role at the end of the name or, without it, from the extension
(.npy .npz .ply .pcd .tif .tiff are points, .png .jpg .bmp .webp .gif the photograph):

    003.png  003.tiff  003_mask.png        or   003_rgb.png  003_depth.png  003_ignore.png

Folders may be spelled otherwise: training, val, OK, normal, in any letter case. What belongs to no
scan is named (`Dataset.notes`). Photograph, geometry (xyz or depth) and normals are each optional,
but every scan of a category must have the same ones. Masks (`gt`, 0 good) and `ignore` masks
(pixels that neither training, scoring nor metrics look at) are optional for every scan. In the
category's folder or the root:

    ignore.png          an ignore mask for every scan without its own, for fixtures
    intrinsics.json     the depth camera: {"fx", "fy", "cx", "cy", "depth_scale": metres per count}
    calibration.json    the photograph's camera: {"rgb": {…}, "rotation", "translation" in metres}
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pirn_jax.errors import BadInputError
from pirn_jax.places import exists, is_dir
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.left_out import left_out_notes
from pirn_jax.scans.datasets.listing import (
    check_modalities,
    files_by_stem,
    list_defects,
    subfolders,
)
from pirn_jax.scans.datasets.names import (
    PICTURES,
    POINTS,
    ROLES,
    SPLITS,
    find_splits,
    is_tiff,
    role_of,
)
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.options import NormalFrame, Options, Unit
from pirn_jax.scans.formats.registration import (
    CameraCalibration,
    Intrinsics,
    read_camera_calibration,
    read_intrinsics,
)

_OPTIONAL = {"mask", "ignore"}
_GEOMETRY = {"xyz", "depth", "normals"}
CATEGORY_FILES = ("ignore.png", "intrinsics.json", "calibration.json")
_EVERY = ("rgb", "xyz")
_Scans = dict[str, dict[str, File]]  # stem → role → file


def categories(root: Path) -> list[str]:
    """Folders of the root, or "" where the root itself holds the scans."""
    names = subfolders(root, root)
    own = find_splits(names, root) or set(ROLES) & set(names) or _side_by_side(root, root)
    return [""] if own or not names else names


def open_folder(
    root: Path,
    category: str,
    *,
    modalities: Sequence[str] | None = None,
    unit: Unit = "auto",
    assume_aligned: bool = False,
    scale: float | None = None,
    white: int | None = None,
    calibration: CameraCalibration | None = None,
    intrinsics: Intrinsics | None = None,
    normal_frame: NormalFrame = "opengl",
    limits: Limits | None = None,
) -> Dataset:
    """Open one category.

    Args:
        root: folder of the categories, or the category itself.
        category: a folder's name, or "".
        modalities: "rgb", "xyz" or both: files of other kinds are not read, and with "rgb" alone a
            TIFF is a photograph. None: whatever is there.
        unit: unit of points and depths: "m", "mm", or "auto", which refuses what could be either.
        assume_aligned: geometry of another size shows the photograph's field of view.
        scale: photograph pixels per geometry pixel.
        white: the value of white in photographs of more than 8 bits.
        calibration: the photograph's camera; by default `calibration.json` where there is one.
        intrinsics: the depth camera; by default `intrinsics.json` where there is one.
        normal_frame: axes of ready normal maps.
        limits: what one file may cost.

    Raises:
        BadInputError: nothing there, a file without its partner (named), or scans of one category
            with different modalities.
    """
    limits = limits or Limits()
    here = root / category if category else root
    if calibration is None and (file := _beside("calibration.json", here, root)):
        calibration = read_camera_calibration(file, limits)
    if intrinsics is None and (file := _beside("intrinsics.json", here, root)):
        intrinsics = read_intrinsics(file, limits)
    options = Options(
        unit=unit,
        assume_aligned=assume_aligned,
        scale=scale,
        white=white,
        calibration=calibration,
        intrinsics=intrinsics,
        normal_frame=normal_frame,
        limits=limits,
    )
    if is_dir(here / "ground_truth"):
        raise BadInputError(
            "a ground_truth folder, as MVTec AD (2D) has it: its masks would be overlooked",
            "open it as mvtec2d",
            path=str(here / "ground_truth"),
        )
    if modalities is not None:
        check_modalities(modalities)
    wanted = tuple(modalities or _EVERY)
    names = find_splits(subfolders(here, root), here)
    entries = {split: _split(here, root, names, split, wanted) if names else [] for split in SPLITS}
    if not names:
        entries["test"] = [Entry(stem, files) for stem, files in _scans(here, root, wanted).items()]
    every = [entry for listed in entries.values() for entry in listed]
    if not every:
        raise BadInputError(
            "no scans found",
            "lay the files out as train/good, test/<defect>, or put photographs or point maps "
            "side by side; see pirn_jax.scans.datasets.folder",
            path=str(here),
        )
    notes = left_out_notes(here, every, CATEGORY_FILES)
    for split, listed in entries.items():
        entries[split] = [replace(e, files=_chosen(e.files, wanted)) for e in listed]
    every = [entry for listed in entries.values() for entry in listed]
    _check_same_modalities(every)
    if fixture := _beside("ignore.png", here, root):
        for name, listed in entries.items():
            entries[name] = [
                replace(entry, files={"ignore": fixture, **entry.files}) for entry in listed
            ]
    reader = partial(read_entry, options=options)
    return Dataset(
        *(Split(entries[name], reader) for name in SPLITS),
        name="folder",
        category=category,
        notes=notes,
        intrinsics=intrinsics,
    )


def _chosen(files: Mapping[str, File], modalities: Sequence[str]) -> dict[str, File]:
    """The files of a scan that modalities are made from, and its masks."""
    unwanted = set() if "rgb" in modalities else {"rgb"}
    unwanted |= set() if "xyz" in modalities else _GEOMETRY
    return {role: file for role, file in files.items() if role not in unwanted}


def open_files(paths: Iterable[str | os.PathLike[str]], **options: Any) -> Split:
    """Scans from files named one by one, grouped by stem as in a flat folder.

    Args:
        paths: photographs, points, masks …; `part.png part.tiff other.png` are two scans.
        **options: the fields of `Options`.

    Raises:
        BadInputError: a file of no known kind, or scans with different modalities.
    """
    files = [File(Path(path)) for path in paths]
    found = _by_name(files, _EVERY)
    for file in files:
        if not any(file in roles.values() for roles in found.values()):
            raise BadInputError(
                f"extension {file.suffix!r} is no photograph and no point map",
                f"expected one of {', '.join(sorted({*PICTURES, *POINTS}))}",
                path=str(file),
            )
    entries = [Entry(stem, roles) for stem, roles in found.items()]
    _check_same_modalities(entries)
    return Split(entries, partial(read_entry, options=Options(**{"unit": "auto", **options})))


def _beside(name: str, here: Path, root: Path) -> File | None:
    for folder in (here, root):
        if exists(folder / name):
            return File(folder / name, root=root)
    return None


def _split(
    here: Path, root: Path, names: Mapping[str, str], split: str, modalities: Sequence[str]
) -> list[Entry]:
    folder = here / names.get(split, split)
    known = "" if split == "test" else "good"
    places = [(known, folder)] if _scans(folder, root, modalities) else []
    roles = {folder / role for role in ROLES}
    places += list_defects(here, root, names, split, roles)
    entries = []
    for defect, place in places:
        label = None if not defect else int(defect != "good")
        middle = f"{split}/{defect}" if defect else split
        for stem, files in _scans(place, root, modalities).items():
            entries.append(Entry(f"{middle}/{stem}", files, label, defect))
    return entries


def _scans(folder: Path, root: Path, modalities: Sequence[str]) -> _Scans:
    """The scans of one folder, by stem: role folders, or files side by side."""
    roles = [name for name in ROLES if name in subfolders(folder, root)]
    if not roles:
        return _side_by_side(folder, root, modalities)
    found: _Scans = {}
    for name in roles:
        role, suffixes = ROLES[name]
        for stem, file in files_by_stem(folder / name, root, suffixes).items():
            _add(found, stem, role, file)
    _check_partners(found, folder)
    return dict(sorted(found.items()))


def _side_by_side(folder: Path, root: Path, modalities: Sequence[str] = _EVERY) -> _Scans:
    if not is_dir(folder):
        return {}
    files = []
    for suffix in sorted({*PICTURES, *POINTS}):  # one at a time: 003.png and 003.tiff share a stem
        files += files_by_stem(folder, root, (suffix,)).values()
    found = _by_name([file for file in files if file.name not in CATEGORY_FILES], modalities)
    _check_partners(found, folder)
    return dict(sorted(found.items()))


def _by_name(files: Iterable[File], modalities: Sequence[str]) -> _Scans:
    """Group files by stem, roles from the end of the name or from the extension."""
    found: _Scans = {}
    for file in sorted(files, key=is_tiff):  # points beside a photograph, where only those are read
        if (named := role_of(file, modalities)) is None:
            continue
        stem, role = named
        if is_tiff(file) and role == "rgb" and "rgb" in found.get(stem, {}):
            role = "xyz"
        _add(found, stem, role, file)
    return found


def _add(found: _Scans, stem: str, role: str, file: File) -> None:
    roles = found.setdefault(stem, {})
    if role in roles:
        raise BadInputError(
            f"{roles[role]} and {file.name} are both the {role} of {stem!r}",
            "keep one of them",
            path=str(file),
        )
    roles[role] = file


def _check_partners(found: Mapping[str, Mapping[str, File]], folder: Path) -> None:
    """Every stem of a folder must have the roles that any of them has, but for masks."""
    needed = sorted({role for roles in found.values() for role in roles} - _OPTIONAL)
    for _, roles in sorted(found.items()):
        for role in needed:
            if role not in roles:
                file = next(iter(roles.values()))
                raise BadInputError(
                    f"no {role} file for {file.name} in {folder}",
                    f"restore it, or remove {file.name}",
                    path=str(file),
                )


def _check_same_modalities(entries: list[Entry]) -> None:
    first = set(entries[0].files) - _OPTIONAL if entries else set()
    for entry in entries:
        roles = set(entry.files) - _OPTIONAL
        if roles != first or not roles:
            raise BadInputError(
                f"{entry.key} has {sorted(roles) or 'only masks'}, "
                f"{entries[0].key} has {sorted(first)}",
                "every scan of a category must have the same modalities",
                path=str(next(iter(entry.files.values()))),
            )


LAYOUT = DatasetLayout(open_folder, categories)
