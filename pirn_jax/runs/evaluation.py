"""Evaluate the models of a run, on its own test scans or on others: figures, tables, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pirn_jax.cluster import Cluster
from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import PIRN, Lot
from pirn_jax.encoder import Encoder
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.places import address
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
    environment,
    open_run,
    stored_config,
    trained_models,
)
from pirn_jax.runs.items import RunItem, check_items, open_category, provenance_of
from pirn_jax.runs.mirror import mirrored
from pirn_jax.runs.outputs import EVALUATION_FORMAT, check_free, writing
from pirn_jax.runs.results import write_results
from pirn_jax.runs.sources import ModelSource
from pirn_jax.runs.spread import load_on
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
    allow_code: Sequence[str] = (),
    false_alarm_rate: float | None = None,
    lot: bool = False,
    overwrite: bool = False,
    cache: str | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> Path:
    """Evaluate the models of a run on its own test scans or on others; the run stays as it is.

    Args:
        run: the run folder.
        out: folder for the results, laid out like a run.
        changes: fields of the run's config about its data that differ: dataset, data_root, ….
        categories: only these.
        weights: the encoder's file, where it has moved.
        runtime: of the encoder, where it is to differ from training.
        allow_code: what code the run may name, as for `PIRN.load`.
        false_alarm_rate: thresholds are set anew for it, by the validation scans; None: they are
            the models' own.
        lot: each model's test scans are judged as one lot (`pirn_jax.detector.Lot`); a threshold
            there is only with `false_alarm_rate`, by validation scans that join it.
        overwrite: replace results that are there, once these are whole.
        cache: as in `TrainConfig`; never the run's own.
        cluster: whose workers read and judge; figures and pictures are made here.
        progress: see `Progress`.
        command: kept in `environment.json`.

    Returns:
        `out`.
    """
    if lot and cluster is not None:
        raise ConfigError("a lot is judged whole, by one process", "leave --on ray out")
    with (
        mirrored(run, read_only=True) as trained,
        mirrored(out, (layout.METRICS, layout.REPORT), inputs=[run]) as results,
    ):
        config = open_run(trained.folder, allow_code)
        config = replace(config, **{name: v for name, v in changes.items() if v is not None})
        # One that was stopped before its end is given again.
        may = {"overwrite": overwrite, "last": layout.METRICS}
        check_free(results.folder, EVALUATION_FORMAT, inputs=[trained.folder], **may)
        places = trained_models(trained.folder, categories)
        sole = changes.get("data_root") is not None and len({p.category for p in places}) == 1
        items, models = [], []
        for place in places:
            data = open_category(config, place.category, elsewhere=sole)
            items.append(RunItem(place.category, place.seed, data))
            folder = place.path / layout.MODEL
            source = ModelSource(folder, weights, runtime, tuple(allow_code), cache)
            known = models[-1].encoder if models else None
            here = cluster is None
            model = source.load(known) if here else load_on(cluster, source, known)
            models.append(Lot(model) if lot else model)
        if false_alarm_rate is not None:
            for each in models:
                each.config = replace(each.config, false_alarm_rate=false_alarm_rate)
        items = check_items(items, config)
        provenance = provenance_of(config, models[0].random_weights)
        anew = [item for item in items if false_alarm_rate is not None]
        if none := [item.category for item in anew if not len(item.data.validation)]:
            raise ConfigError(
                f"{none[0]} has no validation scans, by which a threshold could be set",
                "give data with good scans in validation/good, or train with --false-alarm-rate",
            )
        tell = progress or (lambda *_: None)
        total = sum(len(i.data.test) for i in items) + sum(len(i.data.validation) for i in anew)
        counter = ScanCounter(tell, total)
        with writing(results.folder, EVALUATION_FORMAT) as place:
            write_json(place / layout.CONFIG, stored_config(config))
            about = environment_document(environment(command, run=address(run)), provenance)
            write_json(place / layout.ENVIRONMENT, about)
            for model, item in zip(models, anew, strict=False):
                counter.note = item.name
                calibrate_on(model, item, counter)
            evaluate_items(place, items, models, config, counter)
    return out


class ScanCounter:
    """Counts scans for a progress bar, and those that could not be used."""

    def __init__(self, tell: Progress, total: int):
        self.tell, self.total, self.done, self.note = tell, total, 0, ""
        self.left_out = 0

    def advance(self) -> None:
        """One more."""
        self.done += 1
        self.tell("scans", self.done, self.total, self.note)

    def leave_out(self, key: str, error: PirnError) -> Note:
        """What is said of a scan that cannot be used; also in the log."""
        self.left_out += 1
        _log.warning("left out: %s: %s", key, error)
        return Note(f"left out: {key}: {error.problem}", "all")


def calibrate_on(model: PIRN, item: RunItem, counter: ScanCounter) -> None:
    """Set a model's threshold by the validation scans that can be judged, if there are any."""
    model.calibration = None

    def failed(key: str, error: PirnError) -> None:
        counter.leave_out(key, error)
        counter.advance()

    if isinstance(model, Lot):  # once the lot is known
        model.calibrate(item.data.validation, failed=failed)
        return
    scores = model.score_good(item.data.validation, failed, counter.advance)
    if scores:
        model.set_threshold(scores)


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
        place = model_folder(folder, item.category, item.seed)
        notes = list(item.data.notes)

        def failed(key: str, error: PirnError, notes: list[Note] = notes) -> None:
            notes.append(counter.leave_out(key, error))
            counter.advance()

        found = write_results(place, model, item.data.test, provenance, counter.advance, failed)
        if isinstance(model, Lot):
            notes.append(Note(f"seed {item.seed}: judged as one lot of {model.scans} scans"))
        odd[item.category] = tuple(dict.fromkeys((*odd.get(item.category, ()), *notes)))
        if not found.rows:  # the model and its threshold are there, and no figures
            continue
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
        counter.left_out,
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
