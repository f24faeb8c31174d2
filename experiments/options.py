"""What every table and figure is told on its command line, and what follows from it.

`--quick` is the whole machinery in minutes: two kinds of generated parts, small pictures, few
scans, five shots wherever the paper has ten or more, the demo encoder unless told otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pirn_jax.config import Config
from pirn_jax.errors import ConfigError
from pirn_jax.scans import list_categories

QUICK_CATEGORIES = ("flange", "rope")
QUICK_SHOTS = {5: 5, 10: 5, 50: 5, 0: 5}
"""What numbers of shots become; None: left out."""
_QUICK_SCANS = (("size", 112), ("test", 20), ("train", 10))
_QUICK = {"encoder": "demo", "image_size": 84, "draws": 2, "epochs": 6}
_FULL = {"encoder": "auto", "image_size": 224, "draws": 5, "epochs": 0}


@dataclass(frozen=True)
class Options:
    """Flags of every table and figure."""

    dataset: str = "synthetic"
    """synthetic (generated parts), mvtec3d, eyecandies, real_iad_d3, or folder."""
    data_root: str | None = None
    """Folder that holds the dataset's categories; without it the variable PIRN_DATA."""
    category: tuple[str, ...] = ()
    """Categories; without it all there are, with --quick two."""
    encoder: str | None = None
    """As for pirn_jax.train; with --quick the demo encoder."""
    weights: str | None = None
    """Safetensors file of the encoder."""
    image_size: int | None = None
    """Side of the encoder's pictures; without it 224, with --quick 84 (112 for given weights)."""
    recipes: tuple[str, ...] = ("paper", "default")
    """Recipes, each a row of its own."""
    draws: int | None = None
    """How many draws of the shots, each with a seed of the initialisation of its own; without it 5,
    with --quick 2."""
    quick: bool = False
    """Minutes instead of hours: few scans, draws, epochs and shots."""
    dry_run: bool = False
    """Print the jobs and how long they may take, and do nothing."""
    latex: bool = False
    """Also write the table for LaTeX."""
    out: Path = field(default_factory=lambda: Path("runs") / "experiments")
    """Folder for tables and figures."""
    jobs: Path = field(default_factory=lambda: Path("runs") / "experiments")
    """Folder of the sweep: its jobs/ holds every result, shared by all tables."""
    cache: str | None = None
    """Folder for features and compiled programs; without it PIRN_CACHE, else ~/.cache/pirn_jax."""

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise ConfigError(f"draws: expected 1 or more, got {self.draws}", "use 5")
        if not self.recipes:
            raise ConfigError("no recipes", "give paper, default, or both")

    @property
    def config(self) -> Config:
        """The detector that rows change."""
        given = _QUICK if self.quick else _FULL
        encoder = self.encoder or ("auto" if self.weights else given["encoder"])
        size = self.image_size or given["image_size"]
        if self.quick and self.image_size is None and encoder != "demo":
            size = 112  # a multiple of patches of 8, 14 and 16
        epochs = (f"epochs={given['epochs']}",) if given["epochs"] else ()
        return Config(encoder=encoder, weights=self.weights, image_size=size, change=epochs)

    @property
    def seeds(self) -> range:
        """Draws of the shots."""
        return range(self.draws or (_QUICK if self.quick else _FULL)["draws"])

    @property
    def scans(self) -> tuple[tuple[str, Any], ...]:
        """Options of the dataset."""
        return _QUICK_SCANS if self.quick and self.dataset == "synthetic" else ()

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories to run."""
        if self.category and self.category != ("all",):
            return self.category
        if self.quick and self.dataset == "synthetic":
            return QUICK_CATEGORIES
        root = self.data_root or os.environ.get("PIRN_DATA")
        found = list_categories(self.dataset, None if self.dataset == "synthetic" else root)
        return tuple(found)[:2] if self.quick else tuple(found)

    @property
    def same(self) -> dict[str, Any]:
        """Fields that every job shares."""
        return {"dataset": self.dataset, "data_root": self.data_root, "options": self.scans}

    def under(self, recipe: str, change: Sequence[str] = (), **fields: Any) -> Config:
        """The detector of a recipe, changed."""
        config = self.config
        return replace(config, recipe=recipe, change=(*config.change, *change), **fields)


def command() -> str:
    """How this script was called, without where things are kept."""
    words = sys.argv[1:]
    for flag in ("--out", "--jobs", "--cache"):
        while flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    words = [Path(word).name if os.path.isabs(word) else word for word in words]
    return " ".join(["python", f"experiments/{Path(sys.argv[0]).name}", *words])
