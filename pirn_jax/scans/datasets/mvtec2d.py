"""MVTec AD (2D), and every dataset in its layout: photographs only.

    <root>/<category>/train/good/000.png
                      test/<defect>/000.png
                      ground_truth/<defect>/000_mask.png

There is no validation split in the release; a `validation/good` folder is used where there is one.
Masks may be missing: pixel figures are then of the scans that have one.
Source: MVTec AD release; Bergmann et al., CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.left_out import left_out_notes
from pirn_jax.scans.datasets.listing import (
    files_by_stem,
    list_defects,
    split_categories,
    subfolders,
)
from pirn_jax.scans.datasets.names import SPLITS, find_splits
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.options import Options
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS

_SUFFIX = "_mask"


def open_mvtec2d(
    root: Path, category: str, *, white: int | None = None, limits: Limits | None = None
) -> Dataset:
    """Open one category.

    Args:
        root: folder of the categories.
        category: for instance "hazelnut".
        white: the value of white in photographs of more than 8 bits.
        limits: what one file may cost.

    Raises:
        BadInputError: a mask without its photograph.
    """
    folder = root / category
    reader = partial(read_entry, options=Options(white=white, limits=limits or Limits()))
    names = find_splits(subfolders(folder, root), folder)
    entries = {split: _entries(folder, root, names, split) for split in SPLITS}
    every = [entry for listed in entries.values() for entry in listed]
    splits = [Split(listed, reader) for listed in entries.values()]
    return Dataset(*splits, name="mvtec2d", category=category, notes=left_out_notes(folder, every))


def _entries(folder: Path, root: Path, names: Mapping[str, str], split: str) -> list[Entry]:
    entries = []
    for defect, here in list_defects(folder, root, names, split):
        photographs = files_by_stem(here, root, PICTURE_FORMATS)
        masks = {}
        if split == "test":
            masks = _masks(folder / "ground_truth" / here.name, root)
        for stem, file in photographs.items():
            files = {"rgb": file} | ({"mask": masks.pop(stem)} if stem in masks else {})
            entries.append(Entry(f"{split}/{defect}/{stem}", files, int(defect != "good"), defect))
        for stem, mask in masks.items():
            raise BadInputError(
                f"no photograph for {mask.name}: expected {here / stem}.*",
                f"restore it, or remove {mask.name}",
                path=str(mask),
            )
    return entries


def _masks(folder: Path, root: Path) -> dict[str, File]:
    """Masks by the stem of their photograph; the suffix `_mask` may be missing."""
    return {
        stem.removesuffix(_SUFFIX): file
        for stem, file in files_by_stem(folder, root, PICTURE_FORMATS).items()
    }


LAYOUT = DatasetLayout(open_mvtec2d, split_categories, modalities=("rgb",))
