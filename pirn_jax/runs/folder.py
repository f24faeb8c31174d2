"""The folder of a run: everything its figures need to be believed and repeated.

    runs/<name>/
      config.json        every setting; `--config` takes it back
      environment.json   command, packages, devices
      split.json         the shots of each model, with SHA-256 of their files
      history.jsonl      the loss, epoch by epoch
      checkpoints/       to go on from
      metrics.json scores.csv report.html
      <category>/seed<k>/model/           what `PIRN.load` reads
      <category>/seed<k>/…                see `pirn_jax.runs.results`

Nothing is overwritten unasked, every file is there whole or not at all, and a run on generated data
or with a demo encoder says so in each.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jax

from pirn_jax import __version__
from pirn_jax.config import Config, TrainConfig
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.runs.parts import Part
from pirn_jax.storage import read_config, read_object
from pirn_jax.scans import write_split
from pirn_jax.training.compilation import use_compilation_cache

Progress = Callable[[str, int, int, str], None]
"""Called with a stage (shots, training, scans), how much of it is done, of how much, and a note."""

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ott-jax",
    "jraph",
    "numpy",
    "scipy",
)
_NOT_SETTINGS = ("out", "overwrite", "resume", "cache", "parallel", "save_seconds")


def flat(config: TrainConfig) -> dict[str, Any]:
    """The config as one JSON object, the detector's fields beside the run's.

    Without those that say which of several processes this is.
    """
    document = asdict(config)
    detector = document.pop("detector")
    del detector["seed"], document["coordinator"], document["processes"], document["process"]
    return document | detector


def from_flat(document: Mapping[str, Any], path: str) -> TrainConfig:
    """`flat` undone; fields left out have their defaults.

    Raises:
        ConfigError: an unknown field or a value that does not fit.
    """
    if "detector" in document:
        raise ConfigError("no field 'detector'", "its fields stand beside the others", path)
    own = {f.name for f in fields(Config)} - {"seed"}
    detector = {name: value for name, value in document.items() if name in own}
    rest = {name: value for name, value in document.items() if name not in own}
    return read_config(TrainConfig, {**rest, "detector": detector}, path)


def open_run(folder: Path) -> TrainConfig:
    """The config of a run folder.

    Raises:
        BadInputError: it is no run folder.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise BadInputError(
            "expected a run folder with a config.json", "give what --out of a training was", folder
        )
    return replace(from_flat(read_object(path), str(path)), overwrite=False, resume=False)


def model_folders(run: Path, categories: Sequence[str] = ()) -> dict[tuple[str, int], Path]:
    """The models of a run by category and seed, in order.

    Raises:
        BadInputError: none, or a category without one.
    """
    found = {}
    for path in sorted(run.glob("*/seed*/model/config.json")):
        seed = path.parents[1].name.removeprefix("seed")
        if seed.isdigit():
            found[path.parents[2].name, int(seed)] = path.parents[1]
    found = dict(sorted(found.items()))
    known = sorted({category for category, _ in found})
    for category in categories:
        if category not in known:
            raise BadInputError(
                f"no model of category {category!r}; there are {', '.join(known) or 'none'}",
                "name one of them",
                run,
            )
    if not found:
        raise BadInputError("no trained model", "train, or resume the run", run)
    return {key: place for key, place in found.items() if not categories or key[0] in categories}


def claim_folder(config: TrainConfig) -> tuple[Path, bool]:
    """The run folder, empty or to go on with, and whether there is nothing left to do."""
    folder = Path(config.folder)
    there = folder.exists() and (not folder.is_dir() or bool(contents(folder)))
    if there and not (folder / "config.json").is_file():
        raise BadInputError(
            "is there already, and no run folder", "give another with --out", folder
        )
    if there and config.resume:
        stored, wanted = flat(open_run(folder)), flat(config)
        wanted["background"] = config.background
        for name in stored:
            same = json.dumps(stored[name]) == json.dumps(wanted[name])
            if name not in _NOT_SETTINGS and not same:
                raise ConfigError(
                    f"the run was started with {name} = {stored[name]!r}, not {wanted[name]!r}",
                    "resume with the same settings, or start another run with --out",
                )
        return folder, (folder / "metrics.json").is_file() and (folder / "report.html").is_file()
    if there and config.overwrite:
        shutil.rmtree(folder)
    elif there:
        raise BadInputError(
            "there is a run in this folder already",
            "--resume goes on with it, --overwrite removes it, --out names another",
            folder,
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder, False


def contents(folder: Path) -> list[Path]:
    """What is in a folder, without the beginnings of files that a killed process left."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def write_shots(
    folder: Path, config: TrainConfig, part: Part, keys: Sequence[str]
) -> dict[str, Any]:
    """Write a model's `split.json`, its shots with SHA-256 of their files, and return it."""
    place = folder / part.name
    place.mkdir(parents=True, exist_ok=True)
    write_split(
        place / "split.json",
        part.data.train.select(keys),
        seed=part.seed,
        dataset=config.dataset,
        category=part.category,
        order=config.shots_order,
    )
    return read_object(place / "split.json")


def environment(command: Sequence[str] = ()) -> dict[str, Any]:
    """Command, packages and devices."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": list(command),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "pirn_jax": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.local_devices()],
    }


def start_caches(folder: str | None) -> Path:
    """Where features are kept; compiled programs are kept there too, from now on."""
    path = Path(folder or os.environ.get("PIRN_CACHE") or Path.home() / ".cache" / "pirn_jax")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        use_compilation_cache(path / "xla")
    return path
