"""A run folder as the report sees it: what is there, and notes on what is not.

Everything is optional but the folder itself. A file that is missing leaves its part of the report
out; a file that is damaged is named in `Run.notes` and left out likewise, so that one bad file
never costs the report. Nothing is unpickled, and every string found is untrusted. What the files
are called and hold is in `layout`, `schema` and `tables`.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pirn_jax.errors import BadInputError
from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder
from pirn_jax.report.schema import (
    Curve,
    Document,
    Environment,
    Provenance,
    RunMetrics,
    Shots,
    number,
    read_curves,
    read_environment,
    read_figures,
    read_provenance,
    read_run_metrics,
    read_shots,
    read_usage,
)
from pirn_jax.report.tables import ScoreRow, parse_history, parse_scores
from pirn_jax.scans.formats.files import File, Limits, read_bytes
from pirn_jax.storage import LARGEST_JSON, read_object

_LIMITS = Limits(memory=LARGEST_JSON)  # of a file of lines


class Model(NamedTuple):
    """One trained model.

    Attributes:
        folder: its category, seed, and where its files lie.
        metrics: figures by name, numbers only.
        rows: its test scans.
        curves: "roc" and "pro" of the pixels.
        usage: share of the tokens that each prototype answers for, by modality.
        calibration: fields of `scoring.Calibration`, as found; empty without one.
        losses: (epoch, loss), ascending.
    """

    folder: ModelFolder
    metrics: dict[str, float]
    rows: tuple[ScoreRow, ...]
    curves: dict[str, Curve]
    usage: dict[str, list[float]]
    calibration: Document
    losses: list[tuple[float, float]]

    @property
    def category(self) -> str:
        """Name of the folder, untrusted."""
        return self.folder.category

    @property
    def seed(self) -> int:
        """Of the shots and the parameters."""
        return self.folder.seed

    @property
    def threshold(self) -> float | None:
        """Scores > it are called defective."""
        return number(self.calibration.get("threshold"))

    @property
    def known(self) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Scores and labels of the test scans whose truth is known."""
        rows = [row for row in self.rows if row.label is not None]
        scores = np.array([row.score for row in rows], np.float64)
        return scores, np.array([row.label for row in rows], np.int64)


class Run(NamedTuple):
    """A run folder.

    Attributes:
        folder: the folder.
        config: every setting, as found.
        environment: what it was made with, as found.
        made: the same, read.
        shots: of each model.
        metrics: of the whole run.
        provenance: where it came from: the loudest that any file says.
        models: in the order of the run's metrics, then by name and seed.
        notes: files that could not be read, and why.
    """

    folder: Path
    config: Document
    environment: Document
    made: Environment
    shots: list[Shots]
    metrics: RunMetrics
    provenance: Provenance
    models: tuple[Model, ...]
    notes: list[str]

    @property
    def categories(self) -> dict[str, list[Model]]:
        """The models of each category, by seed."""
        found: dict[str, list[Model]] = {}
        for model in self.models:
            found.setdefault(model.category, []).append(model)
        return found


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Args:
        folder: as `pirn_jax.train` writes it.

    Raises:
        BadInputError: it holds neither a config, nor metrics, nor a model.
    """
    folder, notes = Path(folder), []
    config = _object(folder / layout.CONFIG, notes)
    figures = _object(folder / layout.METRICS, notes)
    places = layout.list_models(folder)
    if not (config or figures or places):
        raise BadInputError(
            f"expected a run folder with {layout.CONFIG}, {layout.METRICS} or a model; found none "
            "of them",
            "give the folder that `python -m pirn_jax.train` wrote",
            path=folder,
        )
    metrics = read_run_metrics(figures)
    order = {name: place for place, name in enumerate(metrics.categories)}
    places.sort(key=lambda model: order.get(model.category, len(order)))
    history = _history(folder / layout.HISTORY, notes)
    environment = _object(folder / layout.ENVIRONMENT, notes)
    split = _object(folder / layout.SPLIT, notes)
    return Run(
        folder,
        config,
        environment,
        read_environment(environment),
        read_shots(split),
        metrics,
        read_provenance(metrics.provenance.document(), environment, split),
        tuple(_model(place, metrics, history.get(place.name, []), notes) for place in places),
        notes,
    )


def _model(
    place: ModelFolder,
    metrics: RunMetrics,
    losses: list[tuple[float, float]],
    notes: list[str],
) -> Model:
    figures = read_figures(_object(place.path / layout.METRICS, notes))
    return Model(
        place,
        figures or metrics.categories.get(place.category, {}).get(place.seed, {}),
        _rows(place.path / layout.SCORES, notes),
        read_curves(_object(place.path / layout.CURVES, notes)),
        read_usage(_object(place.path / layout.USAGE, notes)),
        _object(place.path / layout.CALIBRATION, notes),
        losses,
    )


def _rows(path: Path, notes: list[str]) -> tuple[ScoreRow, ...]:
    try:
        rows, bad = parse_scores(_text(path, notes))
    except csv.Error as error:
        notes.append(f"{_short(path)}: {error}")
        return ()
    if bad:
        notes.append(f"{_short(path)}: {bad} lines without a finite score")
    return tuple(rows)


def _history(path: Path, notes: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Epochs and losses by the model's name."""
    lines, bad = parse_history(_text(path, notes))
    if bad:
        notes.append(f"{_short(path)}: {bad} lines without an epoch and a finite loss")
    found: dict[str, dict[float, float]] = {}
    for line in lines:
        found.setdefault(line.job, {})[float(line.epoch)] = line.loss  # a resumed run repeats some
    return {job: sorted(losses.items()) for job, losses in found.items()}


def _object(path: Path, notes: list[str]) -> Document:
    if not path.is_file():  # what is no file, as a pipe, is not waited for
        return {}
    try:
        document = read_object(path)
    except BadInputError as error:
        notes.append(f"{_short(path)}: {error.problem}")
        return {}
    return document


def _text(path: Path, notes: list[str]) -> str:
    if not path.is_file() or not path.stat().st_size:
        return ""
    try:
        return read_bytes(File(path), _LIMITS).decode("utf-8")
    except (BadInputError, UnicodeDecodeError) as error:
        reason = error.problem if isinstance(error, BadInputError) else error
        notes.append(f"{_short(path)}: {reason}")
        return ""


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
