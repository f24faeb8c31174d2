"""Train a run, or judge again with the models of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pirn_jax.config import TrainConfig
from pirn_jax.detector import PIRN, fit_models
from pirn_jax.errors import BadInputError
from pirn_jax.judging import open_encoder
from pirn_jax.runs.folder import (
    Progress,
    claim_folder,
    contents,
    environment,
    flat,
    model_folders,
    open_run,
    start_caches,
    write_shots,
)
from pirn_jax.runs.parts import Part, generator_of, list_parts, open_category, shots_of
from pirn_jax.runs.results import Row, scores_table, write_results
from pirn_jax.storage import write_json
from pirn_jax.storage import write_whole
from pirn_jax.training import FeatureCache, from_first, is_first, join_processes

_log = logging.getLogger("pirn_jax")


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
    parts = list_parts(config)  # before any folder is made
    shots = [shots_of(config, part) for part in parts]
    detector = replace(config.detector, background=config.background)
    if config.parallel in ("auto", "sharding"):
        join_processes(config.coordinator, config.processes, config.process)
    first, folder = is_first(), Path(config.folder)
    tell = progress if progress and first else (lambda stage, done, total, note: None)
    if from_first(lambda: claim_folder(config)[1]):
        return folder
    cache = start_caches(config.cache)
    encoder = open_encoder(detector)
    models = [PIRN(replace(detector, seed=part.seed), encoder=encoder) for part in parts]
    marks = {
        "data": "generated" if config.dataset == "synthetic" else "real",
        "demo_encoder": models[0].demo,
    }
    if first:
        _write_plan(folder, config, parts, shots, marks, command)

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
        save_seconds=config.save_seconds,
        encoded=count,
        progress=trained_so_far,
    )
    if not first:
        return folder
    lines = [json.dumps({**line, **marks}) for result in trained for line in result.history]
    write_whole(folder / "history.jsonl", "".join(f"{line}\n" for line in lines).encode())

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


def _write_plan(
    folder: Path,
    config: TrainConfig,
    parts: Sequence[Part],
    shots: Sequence[Sequence[str]],
    marks: Mapping[str, Any],
    command: Sequence[str],
) -> None:
    """What is known before training."""
    write_json(folder / "config.json", {**flat(config), "background": config.background})
    write_json(folder / "environment.json", {**environment(command), **marks})
    splits: dict[str, Any] = {}
    for part, keys in zip(parts, shots, strict=True):
        document = write_shots(folder, config, part, keys)
        splits.setdefault(part.category, {})[f"seed{part.seed}"] = document
    write_json(folder / "split.json", {**splits, **marks} | generator_of(config))


def evaluate_run(
    run: Path,
    out: Path,
    changes: Mapping[str, Any],
    *,
    categories: Sequence[str] = (),
    weights: str | None = None,
    runtime: str | None = None,
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
        runtime: of the encoder, where it is to differ from training.
        progress: see `Progress`.
        command: kept in `environment.json`.

    Returns:
        `out`.
    """
    config = open_run(run)
    config = replace(config, **{name: v for name, v in changes.items() if v is not None})
    if out.exists() and (not out.is_dir() or contents(out)):
        raise BadInputError("the folder is there already", "give another with --out", out)
    places = model_folders(run, categories)
    start_caches(config.cache)
    parts, models = [], []
    for (category, seed), place in places.items():
        data = open_category(config, category)
        encoder = models[-1].encoder if models else None
        parts.append(Part(category, seed, data))
        models.append(PIRN.load(place / "model", weights=weights, encoder=encoder, runtime=runtime))
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
    write_whole(folder / "scores.csv", head + b"\n" + b"".join(table))
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
