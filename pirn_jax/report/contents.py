"""A run folder as the report sees it: what is there, and notes on what is not.

Everything is optional but the folder itself. A file that is missing leaves its part of the report
out; a file that is damaged is named in `Run.notes` and left out likewise, so that one bad file
never costs the report. Nothing is unpickled, and every string found is untrusted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pirn_jax.errors import BadInputError

_DEEPEST = 50  # levels of a JSON document
_LARGEST = 1e30
_PLAIN = (str, int, float, bool, type(None))
_SEED = re.compile(r"seed(\d{1,9})")


class Row(NamedTuple):
    """One test scan: a line of `scores.csv`.

    Attributes:
        key: of the scan within its category.
        label: 0 good, 1 defective, None unknown.
        defect: the defect's name, "good", or "".
        score: image score, finite.
        pred_label: what the threshold says; None without one.
    """

    key: str
    label: int | None
    defect: str
    score: float
    pred_label: int | None


class Model(NamedTuple):
    """One trained model, `<category>/seed<k>/`.

    Attributes:
        category: name of the folder, untrusted.
        seed: k.
        folder: where its files lie.
        metrics: figures by name, numbers only.
        rows: its test scans.
        curves: "roc" and "pro" of the pixels, each two lists of equal length.
        usage: share of the tokens that each prototype answers for, by modality.
        calibration: fields of `scoring.Calibration`; empty without one.
        losses: (epoch, loss), ascending.
    """

    category: str
    seed: int
    folder: Path
    metrics: dict[str, float]
    rows: tuple[Row, ...]
    curves: dict[str, tuple[list[float], list[float]]]
    usage: dict[str, list[float]]
    calibration: dict[str, Any]
    losses: list[tuple[float, float]]

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
        config: `config.json`, resolved.
        environment: `environment.json`.
        split: `split.json`.
        metrics: `metrics.json` of the whole run.
        models: in the order of `metrics.json`, then by name and seed.
        notes: files that could not be read, and why.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    split: Any
    metrics: dict[str, Any]
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
    config = _object(folder / "config.json", notes)
    metrics = _object(folder / "metrics.json", notes)
    places = [
        (path, int(match[1]))
        for path in folder.glob("*/seed*")
        if path.is_dir() and (match := _SEED.fullmatch(path.name))
    ]
    if not (config or metrics or places):
        raise BadInputError(
            "expected a run folder with config.json, metrics.json or a model; found none of them",
            "give the folder that `python -m pirn_jax.train` wrote",
            path=folder,
        )
    known = mapping(metrics.get("categories"))
    order = {name: place for place, name in enumerate(known)}
    places.sort(key=lambda p: (order.get(p[0].parent.name, len(order)), p[0].parent.name, p[1]))
    history = _history(folder / "history.jsonl", notes)
    models = tuple(_model(path, seed, known, history, notes) for path, seed in places)
    return Run(
        folder,
        config,
        _object(folder / "environment.json", notes),
        _json(folder / "split.json", notes),
        metrics,
        models,
        notes,
    )


def number(value: Any) -> float | None:
    """The value as a float that figures can be drawn of (finite, below 1e30), or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None  # NaN is not below anything


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}


def numbers(value: Any) -> list[float] | None:
    """The value as a list of finite floats, or None."""
    if not isinstance(value, list):
        return None
    found = [number(item) for item in value]
    return None if None in found else [item for item in found if item is not None]


def _model(
    folder: Path,
    seed: int,
    known: dict[str, Any],
    history: dict[str, list[tuple[float, float]]],
    notes: list[str],
) -> Model:
    category = folder.parent.name
    figures = _object(folder / "metrics.json", notes) or mapping(
        mapping(known.get(category)).get(folder.name)
    )
    curves = {}
    for name, curve in _object(folder / "curves.json", notes).items():
        across = numbers(mapping(curve).get("fpr"))
        up = numbers(mapping(curve).get("tpr" if name == "roc" else name))
        if across and up and len(across) == len(up):
            curves[name] = (across, up)
    usage = {
        name: shares
        for name, values in _object(folder / "usage.json", notes).items()
        if (shares := numbers(values))
    }
    return Model(
        category,
        seed,
        folder,
        {name: v for name, value in figures.items() if (v := number(value)) is not None},
        _rows(folder / "scores.csv", notes),
        curves,
        usage,
        _object(folder / "calibration.json", notes),
        history.get(f"{category}/{folder.name}", []),
    )


def _rows(path: Path, notes: list[str]) -> tuple[Row, ...]:
    text = _text(path, notes)
    if text is None:
        return ()
    rows, bad = [], 0
    try:
        for line in csv.DictReader(io.StringIO(text, newline="")):
            try:
                score = number(float(line["score"]))
            except (KeyError, TypeError, ValueError):
                score = None
            if score is None:
                bad += 1
                continue
            label, verdict = (_label(line.get(name)) for name in ("label", "pred_label"))
            rows.append(Row(line.get("key") or "", label, line.get("defect") or "", score, verdict))
    except csv.Error as error:
        notes.append(f"{_short(path)}: {error}")
    if bad:
        notes.append(f"{_short(path)}: {bad} lines without a finite score")
    return tuple(rows)


def _label(text: str | None) -> int | None:
    return {"0": 0, "1": 1}.get(text or "")


def _history(path: Path, notes: list[str]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, dict[float, float]] = {}
    bad = 0
    for line in (_text(path, notes) or "").splitlines():
        try:
            entry = mapping(json.loads(line))
        except (ValueError, RecursionError):
            entry = {}
        epoch, loss = number(entry.get("epoch")), number(entry.get("loss"))
        if epoch is None or loss is None:
            bad += 1
            continue
        found.setdefault(str(entry.get("job")), {})[epoch] = loss  # a resumed run repeats some
    if bad:
        notes.append(f"{_short(path)}: {bad} lines without an epoch and a finite loss")
    return {job: sorted(losses.items()) for job, losses in found.items()}


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    document = _json(path, notes)
    if document is not None and not isinstance(document, dict):
        notes.append(f"{_short(path)}: expected an object, got {type(document).__name__}")
    return mapping(document)


def _json(path: Path, notes: list[str]) -> Any:
    text = _text(path, notes)
    if text is None:
        return None
    try:
        document = json.loads(text)
        level, depth = [document], 0
        while level:  # what is printed later is printed recursively
            if (depth := depth + 1) > _DEEPEST:
                raise ValueError(f"nested more than {_DEEPEST} levels deep")
            inner = [i.values() if isinstance(i, dict) else i for i in level]
            level = [v for i in inner if not isinstance(i, _PLAIN) for v in i]
    except (ValueError, RecursionError) as error:
        notes.append(f"{_short(path)}: {error}")
        return None
    return document


def _text(path: Path, notes: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{_short(path)}: {error}")
        return None


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])
