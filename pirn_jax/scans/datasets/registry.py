"""`open_dataset`: from a name, a root and a category to scans.

A dataset is a module with one constant, `LAYOUT`, and a line in `DATASETS`. Whatever else the
program wants to know of a dataset (which streams it can have, whether it marks its own background,
whether it is rendered) it asks the layout.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pirn_jax.errors import BadInputError, ConfigError, did_you_mean
from pirn_jax.places import is_dir
from pirn_jax.scans.datasets.dataset import Dataset

DATASETS = {
    "mvtec3d": "pirn_jax.scans.datasets.mvtec3d",
    "mvtec2d": "pirn_jax.scans.datasets.mvtec2d",
    "eyecandies": "pirn_jax.scans.datasets.eyecandies",
    "real_iad_d3": "pirn_jax.scans.datasets.real_iad_d3",
    "folder": "pirn_jax.scans.datasets.folder",
    "synthetic": "pirn_jax.scans.synthetic.generator",
}


class DatasetLayout(NamedTuple):
    """A dataset's way of lying in folders.

    Attributes:
        open: `open(root, category, **options)`; of a rendered one `open(category, **options)`.
        categories: the categories under a root, sorted; a rendered one's root is not looked at.
        modalities: which its scans can have.
        marks_background: its scans say themselves which pixels show the part.
        rendered: it lies in no folder, and its scans are made when they are read.
        spelled: a category by another of its names, as the dataset spells it.
    """

    open: Callable[..., Dataset]
    categories: Callable[[Path], Sequence[str]]
    modalities: tuple[str, ...] = ("rgb", "normals")
    marks_background: bool = False
    rendered: bool = False
    spelled: Callable[[str], str] = str

    @property
    def options(self) -> tuple[str, ...]:
        """Names of what `open` takes beside root and category."""
        parameters = inspect.signature(self.open).parameters
        return tuple(name for name in parameters if name not in ("root", "category"))


def find_layout(name: str) -> DatasetLayout:
    """The layout of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in DATASETS:
        raise ConfigError(
            f"unknown dataset {name!r}{did_you_mean(name, DATASETS)}",
            f"the datasets are {', '.join(DATASETS)}; for your own files use 'folder'",
        )
    return importlib.import_module(DATASETS[name]).LAYOUT


def open_dataset(
    name: str, root: str | os.PathLike[str] | None, category: str, **options: Any
) -> Dataset:
    """Open one category of a dataset; no picture or point map is read yet.

    Args:
        name: mvtec3d, mvtec2d, eyecandies, real_iad_d3, folder, or synthetic.
        root: the folder that holds the categories; not used by synthetic.
        category: the category; "" for a folder that is itself the category.
        **options: what the dataset's own `open_…` function takes, for instance
            `modalities=("rgb",)`, `assume_aligned=True`, `limits=Limits(…)`, `seed=1`.

    Returns:
        Dataset with `train`, `validation` and `test`, read lazily.

    Raises:
        ConfigError: unknown name or option.
        BadInputError: no such root or category, or files that do not pair.
    """
    layout = find_layout(name)
    for option in options:
        if option not in layout.options:
            raise ConfigError(
                f"{name} has no option {option!r}{did_you_mean(option, layout.options)}",
                f"its options are {', '.join(layout.options)}",
            )
    if layout.rendered:
        return layout.open(category, **options)
    folder = _folder(name, root)
    known = layout.categories(folder)
    return layout.open(folder, _match(layout.spelled(category), known, folder), **options)


def list_categories(name: str, root: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """The categories found under a root, sorted.

    Raises:
        ConfigError: unknown dataset.
        BadInputError: no such root.
    """
    layout = find_layout(name)
    return tuple(layout.categories(Path() if layout.rendered else _folder(name, root)))


def _folder(name: str, root: str | os.PathLike[str] | None) -> Path:
    if root is None or not is_dir(Path(root)):
        raise BadInputError(
            f"no folder with {name} data" if root is None else "no such folder",
            "pass the folder that holds the dataset's categories",
            path=root,
        )
    return Path(root)


def _match(category: str, known: Sequence[str], folder: Path) -> str:
    """The category as the dataset spells it; letter case and -, _ or space do not matter."""

    def folded(text: str) -> str:
        return text.lower().replace("-", "_").replace(" ", "_")

    for candidate in known:
        if folded(candidate) == folded(category):
            return candidate
    raise BadInputError(
        f"no category {category!r}{did_you_mean(category, known)}",
        f"found here: {', '.join(known) or 'none'}",
        path=str(folder),
    )
