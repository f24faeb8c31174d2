"""What is otherwise in a new version of a model: its threshold, its scores, its figures.

`changes.json` of the new run holds a `Changes` per model, each number as before and after:

    {"of": "RUN", "models": {"flange/seed0": {"threshold": [6.1, 5.8], "calibration": …, …}}}
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from pirn_jax.detector import PIRN
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder
from pirn_jax.report.schema import Document, read_figures
from pirn_jax.report.tables import ScoreRow, parse_scores
from pirn_jax.scans import Split
from pirn_jax.scoring import Calibration
from pirn_jax.storage import LARGEST_FILE, read_object, read_regular

_log = logging.getLogger("pirn_jax")
_FIGURES = ("i_auroc", "p_auroc", "aupro_0.3", "i_f1max")

Pair = tuple[float | int | None, float | int | None]
"""Before and after; None where it is not known."""


class Changes(NamedTuple):
    """What is otherwise in a model's new version.

    Attributes:
        threshold: of scores.
        calibration: median score of the good scans it was set with.
        calibrated_with: how many those were.
        figures: metrics of the test scans, by name.
        test: scores of the test scans, by key.
        flipped: label of those that have another now, by key; none has one without a threshold.
        added: scores of the scans that joined the shots; the new model has learned them.
        alarms: how many of those are called defective.
    """

    threshold: Pair
    calibration: Pair
    calibrated_with: Pair
    figures: Mapping[str, Pair]
    test: Mapping[str, Pair]
    flipped: Mapping[str, Pair]
    added: Mapping[str, Pair]
    alarms: Pair

    def document(self) -> Document:
        """As plain JSON values."""
        return dict(self._asdict())

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"threshold {_arrow(self.threshold)}"
        yield (
            f"median score of the {_arrow(self.calibrated_with, '.0f')} good scans it was set with "
            f"{_arrow(self.calibration)}"
        )
        many = len(self.added)
        before, after = zip(*self.added.values(), strict=True)
        middle = (_middle(before), _middle(after))
        yield (
            f"{many} scans joined the shots: their median score {_arrow(middle)} "
            f"(learned now), called defective {_arrow(self.alarms, '.0f')}"
        )
        for name, pair in self.figures.items():
            yield f"{name} of the test scans {_arrow(pair, '.3f')}"
        now = {1: [], 0: []}
        for key, (_, after) in self.flipped.items():
            now[int(after or 0)].append(key)
        for label, words in ((1, "now called defective"), (0, "no longer called defective")):
            if keys := now[label]:
                some = ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")
                yield f"{len(keys)} of {len(self.test)} test scans {words}: {some}"


def changes_of(
    before: ModelFolder, old: PIRN, after: ModelFolder, new: PIRN, added: Split
) -> Changes:
    """What is otherwise.

    Args:
        before: where the old model and its results lie.
        old: it.
        after: where the new one's do.
        new: it.
        added: the scans that joined the shots.
    """
    known = (old.calibration, new.calibration)
    rows = [{row.key: row for row in _rows(place)} for place in (before, after)]
    both = [key for key in rows[1] if key in rows[0]]
    scored = [_scores(model, added) for model in (old, new)]
    figures = [_figures(place) for place in (before, after)]
    return Changes(
        threshold=_pair([None if c is None else c.threshold for c in known]),
        calibration=_pair([_middle(() if c is None else c.scores) for c in known]),
        calibrated_with=_pair([None if c is None else c.scans for c in known]),
        figures={
            name: (figures[0].get(name), figures[1].get(name))
            for name in _FIGURES
            if name in figures[0] or name in figures[1]
        },
        test={key: (rows[0][key].score, rows[1][key].score) for key in both},
        flipped=_flipped(*rows),
        added={key: (scored[0].get(key), scored[1].get(key)) for key in added.keys},
        alarms=_pair([_alarms(c, s.values()) for c, s in zip(known, scored, strict=True)]),
    )


def _flipped(before: Mapping[str, ScoreRow], after: Mapping[str, ScoreRow]) -> dict[str, Pair]:
    labels = {k: (before[k].pred_label, after[k].pred_label) for k in after if k in before}
    return {key: pair for key, pair in labels.items() if None not in pair and pair[0] != pair[1]}


def _scores(model: PIRN, scans: Split) -> dict[str, float]:
    """Of scans that can be judged: one that the old model's sensor limits refuse has none."""

    def failed(key: str, error: PirnError) -> None:
        _log.info("%s: %s", key, error.problem)

    found = model.predict_scans(scans, failed=failed)
    return {result.scan.key: result.inferred.score for result in found}


def _alarms(calibration: Calibration | None, scores: Iterable[float]) -> int | None:
    return None if calibration is None else sum(map(calibration.label, scores))


def _rows(place: ModelFolder) -> list[ScoreRow]:
    path = place.path / layout.SCORES
    if not path.is_file():
        return []
    return parse_scores(read_regular(path, LARGEST_FILE).decode(errors="replace"))[0]


def _figures(place: ModelFolder) -> dict[str, float]:
    try:
        return read_figures(read_object(place.path / layout.METRICS))
    except BadInputError:  # no scan could be measured
        return {}


def _middle(scores: Iterable[float | int | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return median(known) if known else None


def _pair(values: Sequence[float | int | None]) -> Pair:
    return values[0], values[1]


def _arrow(pair: Pair, kind: str = ".4g") -> str:
    first, second = ("unknown" if value is None else format(value, kind) for value in pair)
    return first if first == second else f"{first} → {second}"
