"""Train a run: shots → models → thresholds → figures → report."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pirn_jax.config import TrainConfig
from pirn_jax.detector import PIRN, fit_models, open_encoder
from pirn_jax.report import layout
from pirn_jax.report.layout import model_folder
from pirn_jax.report.schema import Document, Provenance, environment_document, split_document
from pirn_jax.report.tables import HistoryLine, write_history
from pirn_jax.runs.evaluation import ScanCounter, evaluate_items
from pirn_jax.runs.folder import (
    Progress,
    check_run_folder,
    environment,
    start_caches,
    stored_config,
)
from pirn_jax.runs.items import RunItem, generator_of, list_items, provenance_of, shots_of
from pirn_jax.runs.outputs import RUN_FORMAT, going_on, writing
from pirn_jax.scans import write_split
from pirn_jax.storage import read_object, write_json, write_whole
from pirn_jax.training import HistoryLine as HistoryRecord
from pirn_jax.training import from_first, is_first, join_processes


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
    items = list_items(config)  # before any folder is made
    shots = [shots_of(config, item) for item in items]
    if config.parallel in ("auto", "sharding"):
        join_processes(config.coordinator, config.processes, config.process)
    folder = Path(config.folder)
    if from_first(lambda: check_run_folder(config)):
        return folder
    with contextlib.ExitStack() as stack:
        way = going_on if config.resume else writing
        place = from_first(lambda: str(stack.enter_context(way(folder, RUN_FORMAT))))
        _train_into(Path(place), config, items, shots, progress, command)
    return folder


def _train_into(
    folder: Path,
    config: TrainConfig,
    items: Sequence[RunItem],
    shots: Sequence[Sequence[str]],
    progress: Progress | None,
    command: Sequence[str],
) -> None:
    """`train_run`, with the place that everything goes to."""
    first = is_first()
    tell = progress if progress and first else (lambda stage, done, total, note: None)
    features, prepared = start_caches(config.cache)
    detector = config.model_config
    encoder = open_encoder(detector)
    models = [
        PIRN(replace(detector, seed=item.seed), encoder=encoder, prepared=prepared)
        for item in items
    ]
    provenance = provenance_of(config, models[0].random_weights)
    if first:
        _write_plan(folder, config, items, shots, provenance, command)

    encoded, total = 0, sum(map(len, shots))

    def count(number: int) -> None:
        nonlocal encoded
        encoded += number
        tell("shots", encoded, total, "")

    def trained_so_far(done: int, of: int, last: Mapping[str, HistoryRecord]) -> None:
        losses = [line["loss"] for line in last.values()]
        tell("training", done, of, f"loss {sum(losses) / len(losses):.4f}" if losses else "")

    trained = fit_models(
        models,
        [item.data.train.select(keys) for item, keys in zip(items, shots, strict=True)],
        [item.name for item in items],
        leave_one_out=[not len(item.data.validation) for item in items],
        cache=features,
        encoded=count,
        parallel=config.parallel,
        checkpoints=folder.resolve() / layout.CHECKPOINTS,
        resume=config.resume,
        save_seconds=config.save_seconds,
        progress=trained_so_far,
    )
    if not first:
        return
    lines = [HistoryLine(**line) for result in trained for line in result.history]
    write_whole(folder / layout.HISTORY, write_history(lines, provenance))

    scans = sum(len(item.data.validation) + len(item.data.test) for item in items)
    counter = ScanCounter(tell, scans)
    for model, item, keys in zip(models, items, shots, strict=True):
        counter.note = item.name
        if len(item.data.validation):
            model.calibrate(counter.over(item.data.validation))
        model.origin = {
            "dataset": config.dataset,
            "category": item.category,
            "seed": item.seed,
            "shots": list(keys),
            **provenance.document(),
        }
        model.save(folder / item.name / layout.MODEL)
    evaluate_items(folder, items, models, config, counter)


def _write_plan(
    folder: Path,
    config: TrainConfig,
    items: Sequence[RunItem],
    shots: Sequence[Sequence[str]],
    provenance: Provenance,
    command: Sequence[str],
) -> None:
    """What is known before training."""
    write_json(folder / layout.CONFIG, stored_config(config))
    about = environment_document(environment(command), provenance)
    write_json(folder / layout.ENVIRONMENT, about)
    splits: dict[tuple[str, int], Document] = {}
    for item, keys in zip(items, shots, strict=True):
        path = model_folder(folder, item.category, item.seed).path / layout.SPLIT
        write_split(
            path,
            item.data.train.select(keys),
            seed=item.seed,
            dataset=config.dataset,
            category=item.category,
            order=config.shots_order,
        )
        splits[item.category, item.seed] = read_object(path)
    document = split_document(splits, provenance, generator_of(config))
    write_json(folder / layout.SPLIT, document)
