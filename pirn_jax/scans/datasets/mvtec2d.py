"""MVTec AD (2D), and every dataset in its layout: photographs only.

    <root>/<category>/train/good/000.png
                      test/<defect>/000.png
                      ground_truth/<defect>/000_mask.png

There is no validation split in the release; a `validation/good` folder is used where there is one.
Source: MVTec AD release; Bergmann et al., CVPR 2019.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.listing import files_by_stem, split_categories, subfolders
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.options import Options
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS

_SUFFIX = "_mask"


def open_mvtec2d(root: Path, category: str, *, limits: Limits | None = None) -> Dataset:
    """Open one category.

    Args:
        root: folder of the categories.
        category: for instance "hazelnut".
        limits: what one file may cost.

    Raises:
        BadInputError: a defective photograph without its mask, or a mask without its photograph.
    """
    folder = root / category
    reader = partial(read_entry, options=Options(limits=limits or Limits()))
    splits = [
        Split(_entries(folder, root, split), reader) for split in ("train", "validation", "test")
    ]
    return Dataset(*splits, name="mvtec2d", category=category)


def _entries(folder: Path, root: Path, split: str) -> list[Entry]:
    entries = []
    for defect in subfolders(folder / split, root):
        here = folder / split / defect
        if defect != "good" and split != "test":
            raise BadInputError(
                f"defective parts ({defect}) among the {split} scans, which must all be good",
                f"move them to {folder / 'test'}",
                path=str(here),
            )
        photographs = files_by_stem(here, root, PICTURE_FORMATS)
        masks = _masks(folder / "ground_truth" / defect, root) if defect != "good" else {}
        for stem, file in photographs.items():
            files = {"rgb": file}
            if defect != "good":
                if stem not in masks:
                    raise BadInputError(
                        f"no mask for {file.name}: expected "
                        f"{folder / 'ground_truth' / defect / stem}{_SUFFIX}.png",
                        f"restore it, or remove {file.name}",
                        path=str(file),
                    )
                files["mask"] = masks.pop(stem)
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
