"""Evaluate the models of a run, on its own test scans or on others: figures, tables, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import PIRN
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.report import layout, write_report
from pirn_jax.report.layout import model_folder
from pirn_jax.report.schema import (
    EncoderFacts,
    RecipeFacts,
    RunMetrics,
    environment_document,
    run_metrics_document,
)
from pirn_jax.report.tables import join_scores, write_scores
from pirn_jax.runs.folder import (
    Progress,
    contents,
    environment,
    open_run,
    start_caches,
    stored_config,
    trained_models,
)
from pirn_jax.runs.items import RunItem, check_items, open_category, provenance_of
from pirn_jax.runs.results import write_results
from pirn_jax.scans import Note
from pirn_jax.storage import write_json, write_whole

_log = logging.getLogger("pirn_jax")


def evaluate_run(
    run: Path,
    out: Path,
    changes: Mapping[str, object],
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
    places = trained_models(run, categories)
    sole = changes.get("data_root") is not None and len({p.category for p in places}) == 1
    _, prepared = start_caches(config.cache)
    items, models = [], []
    for place in places:
        data = open_category(config, place.category, elsewhere=sole)
        items.append(RunItem(place.category, place.seed, data))
        models.append(
            PIRN.load(
                place.path / layout.MODEL,
                weights=weights,
                encoder=models[-1].encoder if models else None,
                runtime=runtime,
                prepared=prepared,
            )
        )
    items = check_items(items, config)
    provenance = provenance_of(config, models[0].random_weights)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / layout.CONFIG, stored_config(config))
    about = environment_document(environment(command, run=str(run)), provenance)
    write_json(out / layout.ENVIRONMENT, about)
    tell = progress or (lambda *_: None)
    counter = ScanCounter(tell, sum(len(item.data.test) for item in items))
    evaluate_items(out, items, models, config, counter)
    return out


def left_out_scan(key: str, error: PirnError) -> Note:
    """What is said of a scan that cannot be used; also in the log."""
    _log.warning("left out: %s: %s", key, error)
    return Note(f"left out: {key}: {error.problem}", "all")


class ScanCounter:
    """Counts scans for a progress bar."""

    def __init__(self, tell: Progress, total: int):
        self.tell, self.total, self.done, self.note = tell, total, 0, ""

    def advance(self) -> None:
        """One more."""
        self.done += 1
        self.tell("scans", self.done, self.total, self.note)


def evaluate_items(
    folder: Path,
    items: Sequence[RunItem],
    models: Sequence[PIRN],
    config: TrainConfig,
    counter: ScanCounter,
) -> None:
    """Evaluate each model on its test scans, and write the run's tables and report.

    Args:
        folder: the run's.
        items: of the run.
        models: of each, trained.
        config: of the run.
        counter: told of each scan.
    """
    provenance = provenance_of(config, models[0].random_weights)
    figures: dict[str, dict[int, dict[str, float]]] = {}
    tables, odd = [], {item.category: item.data.notes for item in items}
    for model, item in zip(models, items, strict=True):
        counter.note = item.name
        if not len(item.data.test):
            continue
        place = model_folder(folder, item.category, item.seed)
        notes = list(item.data.notes)

        def failed(key: str, error: PirnError, notes: list[Note] = notes) -> None:
            notes.append(left_out_scan(key, error))
            counter.advance()

        found = write_results(place, model, item.data.test, provenance, counter.advance, failed)
        odd[item.category] = tuple(dict.fromkeys((*odd.get(item.category, ()), *notes)))
        figures.setdefault(item.category, {})[item.seed] = found.figures
        first = {"category": item.category, "seed": item.seed}
        tables.append(write_scores(found.rows, provenance, first))
    write_whole(folder / layout.SCORES, join_scores(tables))
    metrics = RunMetrics(
        figures,
        mean_figures(figures),
        encoder_facts(models[0].encoder),
        recipe_facts(config.detector),
        provenance,
        {category: notes for category, notes in odd.items() if notes},
    )
    write_json(folder / layout.METRICS, run_metrics_document(metrics))
    write_report(folder)


def encoder_facts(encoder: Encoder) -> EncoderFacts:
    """Which encoder it is."""
    source = encoder.source
    return EncoderFacts(
        encoder.config.name, source.sha256, encoder.layers, encoder.image_size[0], source.about
    )


def recipe_facts(config: Config) -> RecipeFacts:
    """Which recipe a detector learned by."""
    return RecipeFacts(config.recipe_name, config.changed)


def mean_figures(figures: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, float]:
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
