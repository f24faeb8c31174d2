"""MVTec 3D-AD, and every dataset in its layout.

    <root>/<category>/train/good/{rgb/000.png, xyz/000.tiff}
                      validation/good/{rgb, xyz}
                      test/<defect>/{rgb, xyz, gt/000.png}
                      class_ids.json                        grey value in gt → defect

Points are float32 in metres, zeros where not measured, one per photograph pixel. Masks hold the
grey values of `class_ids.json` (253–255 in the release), which `Scan.mask` keeps. Good test parts
come with all-zero masks. Masks may be missing: pixel figures are then of the scans that have one.
Source: MVTec 3D-AD release; Bergmann et al., VISAPP 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.left_out import left_out_notes
from pirn_jax.scans.datasets.listing import (
    check_modalities,
    check_partners,
    files_by_stem,
    list_defects,
    split_categories,
    subfolders,
)
from pirn_jax.scans.datasets.names import SPLITS, find_splits
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import Limits
from pirn_jax.scans.formats.options import Options, Unit
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS
from pirn_jax.scans.formats.registration import CameraCalibration

_KNOWN = {
    "rgb",
    "xyz",
    "gt",
    "class_ids.json",
    "calibration",
}  # of the release, and not always read
_SUFFIXES = {"rgb": tuple(PICTURE_FORMATS), "xyz": (".tif", ".tiff"), "gt": tuple(PICTURE_FORMATS)}


def open_mvtec3d(
    root: Path,
    category: str,
    *,
    modalities: Sequence[str] = ("rgb", "xyz"),
    unit: Unit = "m",
    assume_aligned: bool = False,
    scale: float | None = None,
    calibration: CameraCalibration | None = None,
    white: int | None = None,
    limits: Limits | None = None,
) -> Dataset:
    """Open one category.

    Args:
        root: folder of the categories.
        category: for instance "bagel".
        modalities: "rgb", "xyz" or both; only these are looked for.
        unit: unit of the point maps; metres in the release.
        assume_aligned: point maps of another size show the photograph's field of view.
        scale: photograph pixels per point.
        calibration: the photograph's camera relative to the point maps'.
        white: the value of white in photographs of more than 8 bits.
        limits: what one file may cost.

    Raises:
        BadInputError: a file without its partner (named), or a modality that is not there at all.
    """
    check_modalities(modalities)
    limits = limits or Limits()
    folder = root / category
    options = Options(
        unit=unit,
        assume_aligned=assume_aligned,
        scale=scale,
        calibration=calibration,
        white=white,
        limits=limits,
    )
    reader = partial(read_entry, options=options)
    names = find_splits(subfolders(folder, root), folder)
    entries = {split: _entries(folder, root, names, split, tuple(modalities)) for split in SPLITS}
    every = [entry for listed in entries.values() for entry in listed]
    return Dataset(
        *(Split(listed, reader) for listed in entries.values()),
        name="mvtec3d",
        category=category,
        notes=left_out_notes(folder, every, _KNOWN - set(modalities)),
    )


def _entries(
    folder: Path, root: Path, names: Mapping[str, str], split: str, modalities: tuple[str, ...]
) -> list[Entry]:
    entries = []
    for defect, here in list_defects(folder, root, names, split):
        found = {role: files_by_stem(here / role, root, _SUFFIXES[role]) for role in modalities}
        for role, files in found.items():
            if not files:
                others = tuple(other for other in modalities if other != role)
                raise BadInputError(
                    f"no {role} files",
                    f"restore them, or pass modalities={others!r} to go without",
                    path=str(here / role),
                )
        first = modalities[0]
        for other in modalities[1:]:
            check_partners(first, found[first], other, found[other], here)
        masks = files_by_stem(here / "gt", root, _SUFFIXES["gt"]) if split == "test" else {}
        for stem, mask in masks.items():
            if stem not in found[first]:
                raise BadInputError(
                    f"no {first} file for {mask.name}: expected {here / first / stem}.*",
                    f"restore it, or remove {mask.name}",
                    path=str(mask),
                )
        for stem in found[first]:
            files = {role: found[role][stem] for role in modalities}
            if stem in masks:
                files["mask"] = masks[stem]
            entries.append(Entry(f"{split}/{defect}/{stem}", files, int(defect != "good"), defect))
    return entries


LAYOUT = DatasetLayout(open_mvtec3d, split_categories)
