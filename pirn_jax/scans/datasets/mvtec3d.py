"""MVTec 3D-AD, and every dataset in its layout.

    <root>/<category>/train/good/{rgb/000.png, xyz/000.tiff}
                      validation/good/{rgb, xyz}
                      test/<defect>/{rgb, xyz, gt/000.png}
                      class_ids.json                        grey value in gt → defect

Points are float32 in metres, zeros where not measured, one per photograph pixel. Masks hold the
grey values of `class_ids.json` (253–255 in the release), which `Scan.mask` keeps. Good test parts
come with all-zero masks, which may be missing.
Source: MVTec 3D-AD release; Bergmann et al., VISAPP 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.listing import (
    check_modalities,
    check_partners,
    files_by_stem,
    split_categories,
    subfolders,
)
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import Limits
from pirn_jax.scans.formats.options import Options, Unit
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS

_SUFFIXES = {"rgb": tuple(PICTURE_FORMATS), "xyz": (".tif", ".tiff"), "gt": tuple(PICTURE_FORMATS)}


def open_mvtec3d(
    root: Path,
    category: str,
    *,
    modalities: Sequence[str] = ("rgb", "xyz"),
    unit: Unit = "m",
    assume_aligned: bool = False,
    limits: Limits | None = None,
) -> Dataset:
    """Open one category.

    Args:
        root: folder of the categories.
        category: for instance "bagel".
        modalities: "rgb", "xyz" or both; only these are looked for.
        unit: unit of the point maps; metres in the release.
        assume_aligned: point maps of another size show the photograph's field of view.
        limits: what one file may cost.

    Raises:
        BadInputError: a file without its partner (named), or a modality that is not there at all.
    """
    check_modalities(modalities)
    limits = limits or Limits()
    folder = root / category
    reader = partial(
        read_entry, options=Options(unit=unit, assume_aligned=assume_aligned, limits=limits)
    )
    splits = {
        split: Split(_entries(folder, root, split, tuple(modalities)), reader)
        for split in ("train", "validation", "test")
    }
    return Dataset(
        splits["train"],
        splits["validation"],
        splits["test"],
        name="mvtec3d",
        category=category,
    )


def _entries(folder: Path, root: Path, split: str, modalities: tuple[str, ...]) -> list[Entry]:
    entries = []
    for defect in subfolders(folder / split, root):
        if defect != "good" and split != "test":
            raise BadInputError(
                f"defective parts ({defect}) among the {split} scans, which must all be good",
                f"move them to {folder / 'test'}",
                path=str(folder / split / defect),
            )
        here = folder / split / defect
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
        if masks or defect != "good":
            check_partners(first, found[first], "gt", masks, here)
        for stem in found[first]:
            files = {role: found[role][stem] for role in modalities}
            if stem in masks:
                files["mask"] = masks[stem]
            entries.append(Entry(f"{split}/{defect}/{stem}", files, int(defect != "good"), defect))
    return entries


LAYOUT = DatasetLayout(open_mvtec3d, split_categories)
