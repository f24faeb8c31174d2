"""`open_dataset`: from a name, a root and a category to scans."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.dataset import Dataset, did_you_mean

# Each module has `open_<name>(root, category, **options)` and `categories(root)`.
DATASETS = ("mvtec3d", "mvtec2d", "eyecandies", "real_iad_d3", "folder", "synthetic")


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
    module = _module(name)
    opener = getattr(module, f"open_{name}")
    known = [
        parameter
        for parameter in inspect.signature(opener).parameters
        if parameter not in ("root", "category")
    ]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"{name} has no option {option!r}{did_you_mean(option, known)}",
                f"its options are {', '.join(known)}",
            )
    if name == "synthetic":
        return opener(category, **options)
    folder = _folder(name, root)
    if name == "real_iad_d3":
        category = module.spelled(category)
    return opener(folder, _spelled(category, module.categories(folder), folder), **options)


def list_categories(name: str, root: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """The categories found under a root, sorted.

    Raises:
        ConfigError: unknown dataset.
        BadInputError: no such root.
    """
    module = _module(name)
    if name == "synthetic":
        return tuple(module.CATEGORIES)
    return tuple(module.categories(_folder(name, root)))


def _module(name: str) -> Any:
    if name not in DATASETS:
        raise ConfigError(
            f"unknown dataset {name!r}{did_you_mean(name, DATASETS)}",
            f"the datasets are {', '.join(DATASETS)}; for your own files use 'folder'",
        )
    return importlib.import_module(f"pirn_jax.scans.{name}")


def _folder(name: str, root: str | os.PathLike[str] | None) -> Path:
    if root is None or not Path(root).is_dir():
        raise BadInputError(
            f"no folder with {name} data" if root is None else "no such folder",
            "pass the folder that holds the dataset's categories",
            path=root,
        )
    return Path(root)


def _spelled(category: str, known: Sequence[str], folder: Path) -> str:
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
