"""A run: one folder with everything its figures need to be believed and repeated.

    runs/<name>/
      config.json        every setting; `--config` takes it back
      environment.json   command, packages, devices
      split.json         the shots of each model, with SHA-256 of their files
      history.jsonl      the loss, epoch by epoch
      checkpoints/       to go on from
      metrics.json scores.csv report.html
      <category>/seed<k>/model/           what `PIRN.load` reads
      <category>/seed<k>/…                see `pirn_jax.results`

Nothing is overwritten unasked, every file is there whole or not at all, and a run on generated data
or with a demo encoder says so in each.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jax

from pirn_jax import __version__
from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import PIRN, fit_models, open_encoder
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.parts import Part, generator_of, list_parts, open_category, shots_of
from pirn_jax.results import Row, scores_table, write_results
from pirn_jax.saved import read_config, read_object, replace_file, write_json
from pirn_jax.scans import write_split
from pirn_jax.training import FeatureCache
from pirn_jax.training.compilation import use_compilation_cache

_log = logging.getLogger("pirn_jax")
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
_NOT_SETTINGS = ("out", "overwrite", "resume", "cache", "parallel")


def flat(config: TrainConfig) -> dict[str, Any]:
    """The config as one JSON object, the detector's fields beside the run's."""
    document = asdict(config)
    detector = document.pop("detector")
    del detector["seed"]
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


def train_run(
    config: TrainConfig, progress: Progress | None = None, command: Sequence[str] = ()
) -> Path:
    """Train, calibrate, evaluate and report.

    Args:
        config: the run.
        progress: see `Progress`.
        command: kept in `environment.json`.

    Returns:
        The run folder.

    Raises:
        PirnError: whatever keeps it from being done as asked.
    """
    tell = progress or (lambda stage, done, total, note: None)
    parts = list_parts(config)  # before any folder is made
    shots = [shots_of(config, part) for part in parts]
    detector = replace(config.detector, background=config.background)
    folder, finished = _folder(config)
    if finished:
        return folder
    cache = start_caches(config.cache)
    encoder = open_encoder(detector)
    models = [PIRN(replace(detector, seed=part.seed), encoder=encoder) for part in parts]
    marks = {
        "data": "generated" if config.dataset == "synthetic" else "real",
        "demo_encoder": models[0].demo,
    }
    write_json(folder / "config.json", {**flat(config), "background": config.background})
    write_json(folder / "environment.json", {**environment(command), **marks})
    splits: dict[str, Any] = {}
    for part, keys in zip(parts, shots, strict=True):
        document = _write_split(folder, config, part, keys)
        splits.setdefault(part.category, {})[f"seed{part.seed}"] = document
    write_json(folder / "split.json", {**splits, **marks} | generator_of(config))

    encoded, total = 0, sum(map(len, shots))

    def count(number: int) -> None:
        nonlocal encoded
        encoded += number
        tell("shots", encoded, total, "")

    def trained_so_far(done: int, of: int, last: Mapping[str, Any]) -> None:
        losses = [line["loss"] for line in last.values()]
        tell("training", done, of, f"loss {sum(losses) / len(losses):.4f}" if losses else "")

    trained = fit_models(
        models,
        [part.data.train.select(keys) for part, keys in zip(parts, shots, strict=True)],
        [part.name for part in parts],
        leave_one_out=[not len(part.data.validation) for part in parts],
        cache=FeatureCache(cache / "features"),
        parallel=config.parallel,
        checkpoints=folder.resolve() / "checkpoints",
        resume=config.resume,
        encoded=count,
        progress=trained_so_far,
    )
    lines = [json.dumps({**line, **marks}) for result in trained for line in result.history]
    replace_file(folder / "history.jsonl", "".join(f"{line}\n" for line in lines).encode())

    steps = Steps(tell, sum(len(p.data.validation) + len(p.data.test) for p in parts))
    for model, part, keys in zip(models, parts, shots, strict=True):
        steps.note = part.name
        if len(part.data.validation):
            model.calibrate(steps.over(part.data.validation))
        model.origin = {
            "dataset": config.dataset,
            "category": part.category,
            "seed": part.seed,
            "shots": list(keys),
            **marks,
        }
        model.save(folder / part.name / "model")
    _evaluate(folder, parts, models, config, marks, steps)
    return folder


def evaluate_run(
    run: Path,
    out: Path,
    changes: Mapping[str, Any],
    *,
    categories: Sequence[str] = (),
    weights: str | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> Path:
    """Evaluate the models of a run on its own test scans or on others; the run stays as it is.

    Args:
        run: the run folder.
        out: folder for the results, laid out like a run; must not be there yet.
        changes: fields of the run's config about its data that differ: dataset, data_root, ….
        categories: only these.
        weights: the encoder's file, where it has moved.
        progress: see `Progress`.
        command: kept in `environment.json`.

    Returns:
        `out`.
    """
    config = open_run(run)
    config = replace(config, **{name: v for name, v in changes.items() if v is not None})
    if out.exists() and (not out.is_dir() or _contents(out)):
        raise BadInputError("the folder is there already", "give another with --out", out)
    places = model_folders(run, categories)
    start_caches(config.cache)
    parts, models = [], []
    for (category, seed), place in places.items():
        data = open_category(config, category)
        encoder = models[-1].encoder if models else None
        parts.append(Part(category, seed, data))
        models.append(PIRN.load(place / "model", weights=weights, encoder=encoder))
    marks = {
        "data": "generated" if config.dataset == "synthetic" else "real",
        "demo_encoder": models[0].demo,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", flat(config))
    write_json(out / "environment.json", {**environment(command), "run": str(run), **marks})
    steps = Steps(progress or (lambda *_: None), sum(len(part.data.test) for part in parts))
    _evaluate(out, parts, models, config, marks, steps)
    return out


class Steps:
    """Counts scans for a progress bar."""

    def __init__(self, tell: Progress, total: int):
        self.tell, self.total, self.done, self.note = tell, total, 0, ""

    def advance(self) -> None:
        """One more."""
        self.done += 1
        self.tell("scans", self.done, self.total, self.note)

    def over(self, scans: Any) -> Iterator[Any]:
        """The same scans, each counted."""
        for scan in scans:
            yield scan
            self.advance()


def _evaluate(
    folder: Path,
    parts: Sequence[Part],
    models: Sequence[PIRN],
    config: TrainConfig,
    marks: Mapping[str, Any],
    steps: Steps,
) -> None:
    from pirn_jax.report import write_report

    figures: dict[str, dict[str, dict[str, float]]] = {}
    table, head = [], b""
    for model, part in zip(models, parts, strict=True):
        steps.note = part.name
        if not len(part.data.test):
            continue
        found, rows = write_results(folder / part.name, model, part.data.test, marks, steps.advance)
        figures.setdefault(part.category, {})[f"seed{part.seed}"] = found
        lines = _scores(rows, marks, part)
        head, body = lines.split(b"\n", 1)
        table.append(body)
    encoder = models[0].encoder
    replace_file(folder / "scores.csv", head + b"\n" + b"".join(table))
    write_json(
        folder / "metrics.json",
        {
            "categories": figures,
            "mean": mean_figures(figures),
            "data": marks["data"],
            "encoder": {
                "name": encoder.config.name,
                "sha256": encoder.source.sha256,
                "layers": encoder.layers,
                "image_size": encoder.image_size,
                "demo": marks["demo_encoder"],
            },
            "recipe": config.detector.recipe,
        },
    )
    write_report(folder)


def _scores(rows: list[Row], marks: Mapping[str, Any], part: Part) -> bytes:
    return scores_table(rows, marks, {"category": part.category, "seed": part.seed})


def mean_figures(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The mean over categories of the mean over seeds, of every metric all models have."""
    models = [found for seeds in figures.values() for found in seeds.values()]
    if not models:
        return {}
    names = [
        name
        for name in models[0]
        if name not in ("scans", "defective") and all(name in found for found in models)
    ]
    means = {}
    for name in names:
        each = [[found[name] for found in seeds.values()] for seeds in figures.values()]
        means[name] = sum(sum(values) / len(values) for values in each) / len(each)
    return means


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


def _folder(config: TrainConfig) -> tuple[Path, bool]:
    """The run folder, empty or to go on with, and whether there is nothing left to do."""
    folder = Path(config.folder)
    there = folder.exists() and (not folder.is_dir() or bool(_contents(folder)))
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


def _contents(folder: Path) -> list[Path]:
    """What is in a folder, without the beginnings of files that a killed process left."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _write_split(
    folder: Path, config: TrainConfig, part: Part, keys: Sequence[str]
) -> dict[str, Any]:
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
