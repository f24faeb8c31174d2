"""Train a run: shots → models → thresholds → figures → report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import PIRN, fit_models, open_encoder
from pirn_jax.encoder import Encoder
from pirn_jax.errors import PirnError
from pirn_jax.geometry import choose_object
from pirn_jax.manifest import MANIFEST
from pirn_jax.report import layout
from pirn_jax.report.layout import model_folder
from pirn_jax.report.schema import Document, Provenance, environment_document, split_document
from pirn_jax.report.tables import HistoryLine, write_history
from pirn_jax.runs.evaluation import ScanCounter, calibrate_on, evaluate_items
from pirn_jax.runs.folder import (
    Progress,
    check_run_folder,
    environment,
    start_caches,
    stored_config,
)
from pirn_jax.runs.items import (
    RunItem,
    check_items,
    generator_of,
    list_items,
    name_for_shots,
    provenance_of,
    shots_of,
)
from pirn_jax.runs.mirror import Mirror, mirrored
from pirn_jax.runs.outputs import RUN_FORMAT, going_on, is_taken, writing
from pirn_jax.scans import Dataset, Note, write_split
from pirn_jax.scans.datasets.judged import KEPT
from pirn_jax.scans.formats.options import Reading
from pirn_jax.storage import read_object, write_json, write_whole
from pirn_jax.training import HistoryLine as HistoryRecord
from pirn_jax.training import from_first, is_first, join_processes, losing_others

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
    items = check_items(list_items(config), config)  # before any folder is made
    shots = [shots_of(config, item) for item in items]
    for place, keys in enumerate(shots):
        if len(keys) == 1 and not len(items[place].data.validation):
            items[place] = _without_threshold(items[place])
    if config.parallel in ("auto", "sharding"):
        join_processes(config.coordinator, config.processes, config.process)
    folder = Path(config.folder)
    with losing_others(), contextlib.ExitStack() as stack:
        mirrors = [Mirror(folder, folder)]

        def begin() -> bool:
            """Bring what is there; returns whether there is nothing left to do."""
            last = (layout.METRICS, layout.REPORT)
            inputs = [Path(config.data_root)] if config.data_root else []
            mirrors[0] = stack.enter_context(mirrored(folder, last, inputs=inputs))
            return check_run_folder(config, mirrors[0].folder)

        if from_first(begin):
            return folder
        mirror = mirrors[0]
        fresh = is_first() and not is_taken(mirror.folder)
        way = going_on if config.resume else writing
        place = from_first(lambda: str(stack.enter_context(way(mirror.folder, RUN_FORMAT))))
        try:
            train_into(Path(place), config, items, shots, mirror, progress, command)
        except PirnError:
            if fresh:
                _take_back(Path(place))  # so that the next try needs no --overwrite
            raise
    return folder


def _take_back(folder: Path) -> None:
    """Remove what a run has written before it learned anything; nothing where it has."""
    splits = list(folder.glob(f"*/*/{layout.SPLIT}"))
    learned = (layout.HISTORY, f"{layout.CHECKPOINTS}/*", f"*/*/{layout.MODEL}")
    if any(any(folder.glob(one)) for one in learned):
        return
    plan = (layout.CONFIG, layout.ENVIRONMENT, layout.SPLIT, MANIFEST)
    for path in (*(folder / name for name in plan), *splits):
        path.unlink(missing_ok=True)
    models = [path.parent for path in splits]
    for place in (*models, *(model.parent for model in models), folder / layout.CHECKPOINTS):
        with contextlib.suppress(OSError):  # not empty, or gone
            place.rmdir()


def train_into(
    folder: Path,
    config: TrainConfig,
    items: Sequence[RunItem],
    shots: Sequence[Sequence[str]],
    mirror: Mirror,
    progress: Progress | None,
    command: Sequence[str],
    encoder: Encoder | None = None,
) -> None:
    """`train_run`, with the place that everything goes to, what is learned, and by which encoder.

    Args:
        folder: that is free.
        config: the run.
        items: its models, with data that holds their shots.
        shots: the keys of each model's.
        mirror: of the folder: what is learned so far goes where it is kept.
        progress: see `Progress`.
        command: kept in `environment.json`.
        encoder: at hand; None: the one that the config names.
    """
    first = is_first()
    tell = progress if progress and first else (lambda stage, done, total, note: None)
    features, prepared = start_caches(config.cache)
    detector = config.model_config
    from_first(lambda: _say_extents(items, shots, detector))
    encoder = open_encoder(detector) if encoder is None else encoder
    models = [
        PIRN(replace(detector, seed=item.seed), encoder=encoder, prepared=prepared)
        for item in items
    ]
    provenance = provenance_of(config, models[0].random_weights)
    from_first(lambda: _write_plan(folder, config, items, shots, provenance, command))

    encoded, total = 0, sum(map(len, shots))

    def count(number: int) -> None:
        nonlocal encoded
        encoded += number
        tell("shots", encoded, total, "")

    def trained_so_far(done: int, of: int, last: Mapping[str, HistoryRecord]) -> None:
        from_first(mirror.push_so_far)  # the last checkpoint that is whole
        losses = [line["loss"] for line in last.values()]
        tell("training", done, of, f"loss {sum(losses) / len(losses):.4f}" if losses else "")

    trained = fit_models(
        models,
        [item.data.train.select(keys) for item, keys in zip(items, shots, strict=True)],
        [item.name for item in items],
        leave_one_out=[
            not len(item.data.validation) and len(keys) > 1
            for item, keys in zip(items, shots, strict=True)
        ],
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
            calibrate_on(model, item, counter)
        model.origin = {
            "dataset": config.dataset,
            "category": item.category,
            "seed": item.seed,
            "shots": list(keys),
            "reading": _reading(config, item.data),
            **provenance.document(),
        }
        model.save(folder / item.name / layout.MODEL)
    evaluate_items(folder, items, models, config, counter)


def _reading(config: TrainConfig, data: Dataset) -> dict[str, object]:
    """How the scans were read, as `pirn_jax.scans.datasets.judged.options_of` takes it again."""
    usual = Reading()
    found = {n: v for n in KEPT if (v := getattr(config, n)) != getattr(usual, n)}
    camera = {} if data.intrinsics is None else {"intrinsics": asdict(data.intrinsics)}
    return {**found, **camera}


def _say_extents(
    items: Sequence[RunItem], shots: Sequence[Sequence[str]], detector: Config
) -> None:
    for item, keys in zip(items, shots, strict=True):
        _say_extent(item, keys[0], detector)


def _say_extent(item: RunItem, key: str, detector: Config) -> None:
    """The size of the part in the first shot, by which a wrong unit shows at once."""
    scan = item.data.train.select([key])[0]
    if "normals" not in detector.modalities or scan.xyz is None:
        return
    background = "none" if detector.background == "none" else "plane"
    part = choose_object(scan.xyz, scan.valid, background, method="grid").object & scan.valid
    low, high = np.percentile(scan.xyz[part], (0.5, 99.5), axis=0)
    sides = " × ".join(f"{1000 * side:.3g}" for side in high - low)
    _log.info("%s: the part in %s is %s mm in x, y and z", item.name, key, sides)


def _without_threshold(item: RunItem) -> RunItem:
    """The item of one shot and no validation scan, with a note of what that means."""
    words = (
        "one shot and no validation scans: there will be no threshold, so no scan is called good "
        "or defective; --shots 2 or more, or scans in validation/good, give one"
    )
    _log.warning("%s: %s", item.category, words)
    return item._replace(data=replace(item.data, notes=(*item.data.notes, Note(words))))


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
            category=name_for_shots(config, item),
            order=config.shots_order,
        )
        splits[item.category, item.seed] = read_object(path)
    document = split_document(splits, provenance, generator_of(config))
    write_json(folder / layout.SPLIT, document)
