"""Real-IAD D3: industrial parts with photographs and point maps, as released or unpacked.

    <root>/realiad_d3_jsons/<category>.json     or, still packed, <root>/realiad_d3_jsons.zip
    <root>/realiad_d3_raw/<category>.zip        or unpacked: <root>/realiad_d3_raw/<prefix><path>
    JSON: {"meta": {"prefix": "<category>/"}, "train": […], "validation": […], "test": […]}
    entry: {"anomaly_class": "OK" or a defect, "image_path", "xyz_path", "mask_path", "ps_path"}

Point maps are TIFF in millimetres, NaN where nothing was measured. Photographs and point maps have
different sizes and the release names no calibration we know of, so a scan with both is read only
with `calibration=`, `scale=` or `assume_aligned=True`; each alone needs nothing.
Archives are read in place, never unpacked (the whole release has 259 GB). The photometric-stereo
picture (`ps_path`) is no measurement of geometry and is not read.
Category names differ between copies (hyphens, case, a few spellings); they are matched loosely.
Source: the release's JSON files; the official code ignores them, replaces x and y by pixel numbers
and fills NaN with the smallest z, which we do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pirn_jax.errors import BadInputError
from pirn_jax.places import is_dir, is_file, list_folder
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.listing import check_modalities, files_by_stem
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import (
    File,
    Limits,
    check_inside,
    check_relative,
    join_inside,
    open_archive,
    read_json,
)
from pirn_jax.scans.formats.options import Options, Unit
from pirn_jax.scans.formats.registration import CameraCalibration

# Spellings met in copies and in papers → the release's.
ALIASES = {
    "knob_zap": "knob_cap",
    "purple_clip_pot": "purple_clay_pot",
    "crimp_s_t_cable_mount_box": "crimp_st_cable_mount_box",
}
_JSONS, _RAW = "realiad_d3_jsons", "realiad_d3_raw"
_FIELDS = {"rgb": "image_path", "xyz": "xyz_path"}
_REMEDY = "restore it from the release"


def _documents(root: Path, limits: Limits) -> dict[str, File]:
    """The split of each category, from the folder or from its archive."""
    folder = root / _JSONS
    if is_dir(folder / _JSONS):
        folder = folder / _JSONS
    found = files_by_stem(folder, root, (".json",))
    packed = root / f"{_JSONS}.zip"
    if not found and is_file(packed):
        check_inside(packed, root)
        with open_archive(packed, limits) as archive:
            for name in archive.members:
                file = File(packed, name, root)
                if file.suffix == ".json" and not _apple(name):
                    found[file.stem] = file
    return found


def _apple(name: str) -> bool:
    """Resource forks that macOS adds to archives."""
    return "__MACOSX" in name or PurePosixPath(name).name.startswith("._")


def categories(root: Path) -> list[str]:
    """Categories that have both a split and data."""
    documents = _documents(root, Limits())
    raw = list_folder(root / _RAW) if is_dir(root / _RAW) else {}
    have = {name.removesuffix(".zip") for name, inner in raw.items() if inner or ".zip" in name}
    folded = {_folded(name) for name in have}
    return sorted(name for name in documents if _folded(name) in folded)


def _folded(name: str) -> str:
    plain = name.lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(plain, plain)


def spelled(category: str) -> str:
    """A category name with the known misspellings mended."""
    plain = _folded(category)
    return plain if plain in ALIASES.values() else category


def open_real_iad_d3(
    root: Path,
    category: str,
    *,
    modalities: Sequence[str] = ("rgb", "xyz"),
    unit: Unit = "mm",
    assume_aligned: bool = False,
    scale: float | None = None,
    calibration: CameraCalibration | None = None,
    white: int | None = None,
    limits: Limits | None = None,
) -> Dataset:
    """Open one category.

    Args:
        root: folder with `realiad_d3_jsons` and `realiad_d3_raw`.
        category: for instance "knob-cap".
        modalities: "rgb", "xyz" or both.
        unit: unit of the point maps; millimetres in the release.
        assume_aligned: photograph and point map show the same field of view.
        scale: photograph pixels per point.
        calibration: the photograph's camera relative to the point maps'.
        white: the value of white in photographs of more than 8 bits.
        limits: what one file may cost.

    Raises:
        BadInputError: no split or data, a damaged or unsafe split or archive, or a missing file.
    """
    check_modalities(modalities)
    limits = limits or Limits()
    document_file = _documents(root, limits)[category]
    document = read_json(document_file, limits)
    prefix, lists = _parsed(document, document_file)
    locate = _locator(root, category, document_file, limits)
    options = Options(
        unit=unit,
        assume_aligned=assume_aligned,
        scale=scale,
        calibration=calibration,
        white=white,
        limits=limits,
    )
    reader = partial(read_entry, options=options)
    splits = [
        Split(_entries(split, lists[split], prefix, locate, modalities, document_file), reader)
        for split in ("train", "validation", "test")
    ]
    return Dataset(*splits, name="real_iad_d3", category=category)


def _parsed(document: Any, file: File) -> tuple[str, dict[str, list[Mapping[str, Any]]]]:
    if not isinstance(document, dict):
        raise BadInputError("expected an object with meta, train and test", _REMEDY, path=str(file))
    meta = document.get("meta")
    prefix = meta.get("prefix") if isinstance(meta, dict) else None
    lists = {split: document.get(split) or [] for split in ("train", "validation", "test")}
    right = all(
        isinstance(items, list) and all(isinstance(item, dict) for item in items)
        for items in lists.values()
    )
    if not right or not (lists["train"] or lists["test"]):
        raise BadInputError(
            "expected lists of samples under train, validation and test", _REMEDY, path=str(file)
        )
    if prefix is None:
        prefix = f"{file.stem}/"
    if prefix != "":
        check_relative(prefix, file)
    return prefix, lists


def _locator(
    root: Path, category: str, document: File, limits: Limits
) -> Callable[[str, str], File]:
    """A function from the split's name and a sample's path to the file, packed or unpacked."""
    raw = root / _RAW
    names = list_folder(raw) if is_dir(raw) else {}
    for candidate in (raw / name for name in names if name.endswith(".zip")):
        if _folded(candidate.stem) == _folded(category) and not candidate.name.startswith("._"):
            check_inside(candidate, root)
            with open_archive(candidate, limits) as archive:
                members = frozenset(name for name in archive.members if not _apple(name))
            return partial(_packed, candidate, members, root)
    folders = {name: raw / name for name in names if _folded(name) == _folded(category)}
    if not folders:
        raise BadInputError(
            f"no data of {category}: expected {raw / category}.zip or a folder of that name",
            "download the category's archive into it; it is read packed",
            path=str(raw),
        )
    for folder in folders.values():
        check_inside(folder, root)
    return partial(_unpacked, raw, folders, root, document)


def _packed(archive: Path, members: Iterable[str], root: Path, prefix: str, path: str) -> File:
    for name in (f"{prefix}{path}", path):
        if name in members:
            return File(archive, name, root)
    raise BadInputError(
        "the split names this member, the archive does not have it",
        "download the archive again",
        path=f"{archive}!{prefix}{path}",
    )


def _unpacked(
    raw: Path, folders: Mapping[str, Path], root: Path, document: File, prefix: str, path: str
) -> File:
    places = [join_inside(raw, f"{prefix}{path}", document)]
    places += [join_inside(folder, path, document) for folder in folders.values()]
    for place in places:
        if is_file(place):
            return File(place, root=root)
    raise BadInputError("the split names this file, it is missing", "restore it", path=places[0])


def _entries(
    split: str,
    items: list[Mapping[str, Any]],
    prefix: str,
    locate: Callable[[str, str], File],
    modalities: Sequence[str],
    document: File,
) -> list[Entry]:
    entries = []
    for number, item in enumerate(items):
        defect = item.get("anomaly_class")
        if not isinstance(defect, str) or not defect:
            raise BadInputError(
                f"{split} sample {number} has no anomaly_class", _REMEDY, path=str(document)
            )
        good = defect.upper() == "OK"
        if not good and split == "train":
            raise BadInputError(
                f"train sample {number} is defective ({defect})", _REMEDY, path=str(document)
            )
        files = {}
        for role in modalities:
            name = item.get(_FIELDS[role])
            if not name:
                raise BadInputError(
                    f"{split} sample {number} has no {_FIELDS[role]}",
                    f"restore it from the release, or leave {role!r} out of modalities",
                    path=str(document),
                )
            files[role] = locate(prefix, check_relative(name, document))
        if mask := item.get("mask_path"):
            files["mask"] = locate(prefix, check_relative(mask, document))
        elif not good:
            raise BadInputError(
                f"{split} sample {number} is defective ({defect}) and has no mask_path",
                _REMEDY,
                path=str(document),
            )
        name = check_relative(item.get("image_path") or item.get("xyz_path"), document)
        key = f"{split}/{PurePosixPath(name).with_suffix('')}"
        entries.append(Entry(key, files, int(not good), "good" if good else defect))
    return entries


LAYOUT = DatasetLayout(open_real_iad_d3, categories, marks_background=True, spelled=spelled)
