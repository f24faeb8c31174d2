"""What every table and figure is told on its command line, and what follows from it.

`--quick` is the whole machinery in minutes: two kinds of generated parts, small pictures, few
scans, five shots wherever the paper has ten or more, and pirn-tiny, the encoder in the package,
unless told otherwise.

Geometry: recipe paper computes normals and background by Open3D, which takes seconds a scan. On
generated parts and with --quick every row uses the grid instead; a table's head says which it was.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.changes import Change, Pairs
from pirn_jax.cluster import Where
from pirn_jax.config import Config, with_settings
from pirn_jax.errors import ConfigError, check_name
from pirn_jax.methods import METHODS
from pirn_jax.scans import find_layout, list_categories

QUICK_CATEGORIES = ("flange", "rope")
QUICK_SHOTS = {5: 5, 10: 5, 50: 5, 0: 5}
"""What numbers of shots become; None: left out."""
_QUICK_SCANS = (("size", 112), ("test", 20), ("train", 10))
_QUICK_CHANGE: Pairs = (("epochs", 6),)
_QUICK_METHODS: dict[str, Change] = {
    "inp-former": {"augment": False, "epochs": 20},
    "simplenet": {"steps": 40},
    "cflow": {"steps": 20, "blocks": 2},
    "cfm": {"steps": 40},
    "ast": {"steps": 20, "width": 32},
    "shape-guided": {"steps": 20, "patches": 16},
}
_QUICK_SIZE, _QUICK_SIZE_OF_GIVEN = 84, 112  # the latter a multiple of patches of 8, 14 and 16
_SIZE = 224
_QUICK_DRAWS, _DRAWS = 2, 5


@dataclass(frozen=True)
class Options(Where):
    """Flags of every table and figure."""

    dataset: str = "synthetic"
    """synthetic (generated parts), mvtec3d, eyecandies, real_iad_d3, or folder."""
    data_root: str | None = None
    """Folder that holds the dataset's categories; without it the variable PIRN_DATA."""
    category: tuple[str, ...] = ()
    """Categories; without it all there are, with --quick two."""
    encoder: str | None = None
    """As for pirn_jax.train; with --quick pirn-tiny, else the recipe's own."""
    weights: str | None = None
    """Safetensors file of the encoder."""
    image_size: int | None = None
    """Side of the encoder's pictures; without it 224, with --quick 84 (112 for given weights)."""
    recipes: tuple[str, ...] = ("paper", "default")
    """Recipes, each a row of its own."""
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != "pirn")
    """Other methods that Tables 1, 8 and 11 measure, each by its own recipe."""
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
        super().__post_init__()
        if self.draws is not None and self.draws < 1:
            raise ConfigError(f"draws: expected 1 or more, got {self.draws}", "use 5")
        if not self.recipes:
            raise ConfigError("no recipes", "give paper, default, or both")
        for name in self.methods:
            check_name("methods", name, METHODS)

    @property
    def generated(self) -> bool:
        """Whether the scans are rendered."""
        return find_layout(self.dataset).rendered

    @property
    def geometry(self) -> str | None:
        """How normals and background are computed; None: as each recipe says."""
        return "grid" if self.quick or self.generated else None

    @property
    def change(self) -> Pairs:
        """What all rows of ours change."""
        return _QUICK_CHANGE if self.quick else ()

    @property
    def measured(self) -> dict[str, Change]:
        """Methods to measure, and what is changed of their own recipes."""
        changes = _QUICK_METHODS if self.quick else {}
        return {name: changes.get(name, ()) for name in self.methods}

    @property
    def seeds(self) -> range:
        """Draws of the shots."""
        return range(self.draws or (_QUICK_DRAWS if self.quick else _DRAWS))

    @property
    def scans(self) -> tuple[tuple[str, Any], ...]:
        """Options of the dataset."""
        return _QUICK_SCANS if self.quick and self.generated else ()

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories to run."""
        if self.category and self.category != ("all",):
            return self.category
        if self.quick and self.generated:
            return QUICK_CATEGORIES
        root = self.data_root or os.environ.get("PIRN_DATA")
        found = list_categories(self.dataset, None if self.generated else root)
        return tuple(found)[:2] if self.quick else tuple(found)

    @property
    def same(self) -> dict[str, Any]:
        """Fields that every job shares."""
        return {"dataset": self.dataset, "data_root": self.data_root, "options": self.scans}

    def config(self, recipe: str, shots: int, change: Change = (), **fields: Any) -> Config:
        """Our detector by a recipe, changed.

        Args:
            recipe: paper or default.
            shots: it learns from; 0: all. The recipe says how many epochs that makes.
            change: to its settings, after what the options themselves change.
            **fields: further ones of `Config`.
        """
        config = Config(method="pirn", recipe=recipe, **self._fields, **fields).for_shots(shots)
        return with_settings(config, dict(self.change) | dict(change))

    def baseline(self, method: str, change: Change = (), **fields: Any) -> Config:
        """A measured baseline by its own recipe: what --quick changes of ours is not for it."""
        return with_settings(Config(method=method, **self._fields, **fields), dict(change))

    @property
    def _fields(self) -> dict[str, Any]:
        """Of `Config`, those that are asked for; the others stay the recipe's."""
        encoder = self.encoder
        if encoder is None and self.weights is not None:
            encoder = "auto"  # what the file holds
        if encoder is None and self.quick:
            encoder = "pirn-tiny"
        size = self.image_size or _SIZE
        if self.quick and self.image_size is None:
            size = _QUICK_SIZE if encoder == "pirn-tiny" else _QUICK_SIZE_OF_GIVEN
        asked = {"encoder": encoder, "weights": self.weights, "geometry": self.geometry}
        return {name: value for name, value in asked.items() if value is not None} | {
            "image_size": size
        }


def command() -> str:
    """How this script was called, without where things are kept."""
    words = sys.argv[1:]
    for flag in ("--out", "--jobs", "--cache", "--on", "--address", "--cores"):
        while flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    words = [Path(word).name if os.path.isabs(word) else word for word in words]
    return shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *words])
