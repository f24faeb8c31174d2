"""The files of lines in a run folder: `scores.csv` and `history.jsonl`, written and read.

Readers take untrusted text: a line that does not fit is counted and left out. Documents of JSON are
described in `pirn_jax.report.schema`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pirn_jax.report.schema import Provenance, mapping, number, text_of


class ScoreRow(NamedTuple):
    """One test scan: a line of `scores.csv`, in which None is written as nothing.

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


def write_scores(
    rows: Iterable[ScoreRow],
    provenance: Provenance,
    first: Mapping[str, str | int] | None = None,
) -> bytes:
    """`scores.csv`.

    Args:
        rows: its lines.
        provenance: last columns, the same in every line.
        first: columns to begin each line with; the run's table has category and seed.
    """
    before, after = dict(first or {}), provenance.document()
    lines = [_line([*before, *ScoreRow._fields, *after])]
    for row in rows:
        cells = ["" if value is None else value for value in row]
        lines.append(_line([*before.values(), *cells, *after.values()]))
    return "".join(lines).encode(errors="backslashreplace")  # a key from a name that is no UTF-8


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO(newline="")
    # Quotes what is in the line's end: with its default one both halves of it, also in a key.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def join_scores(tables: Sequence[bytes]) -> bytes:
    """Tables of `write_scores` with the same columns as one."""
    bodies = [table.split(b"\n", 1)[1] for table in tables[1:]]
    return b"".join([*tables[:1], *bodies])


def parse_scores(text: str) -> tuple[list[ScoreRow], int]:
    """The rows of a `scores.csv`, and how many lines have no finite score.

    Raises:
        csv.Error: it is no table.
    """
    rows, bad = [], 0
    for line in csv.DictReader(io.StringIO(text, newline="")):
        try:
            score = number(float(line["score"]))
        except (KeyError, TypeError, ValueError):
            score = None
        if score is None:
            bad += 1
            continue
        label, verdict = (
            {"0": 0, "1": 1}.get(line.get(name) or "") for name in ("label", "pred_label")
        )
        rows.append(
            ScoreRow(line.get("key") or "", label, line.get("defect") or "", score, verdict)
        )
    return rows, bad


class HistoryLine(NamedTuple):
    """One epoch of one model: a line of `history.jsonl`.

    Attributes:
        job: `ModelFolder.name`.
        epoch: from 1.
        step: from 1, the last of the epoch.
        loss: its mean over the epoch.
    """

    job: str
    epoch: int
    step: int
    loss: float


def write_history(lines: Iterable[HistoryLine], provenance: Provenance) -> bytes:
    """`history.jsonl`."""
    documents = (line._asdict() | provenance.document() for line in lines)
    return "".join(f"{json.dumps(document)}\n" for document in documents).encode()


def parse_history(text: str) -> tuple[list[HistoryLine], int]:
    """The lines of a `history.jsonl`, and how many have no epoch or no finite loss."""
    lines, bad = [], 0
    for line in text.splitlines():
        try:
            entry = mapping(json.loads(line))
        except (ValueError, RecursionError):
            entry = {}
        epoch, loss = number(entry.get("epoch")), number(entry.get("loss"))
        if epoch is None or loss is None:
            bad += 1
            continue
        step = number(entry.get("step")) or 0.0
        lines.append(HistoryLine(text_of(entry.get("job")), int(epoch), int(step), loss))
    return lines, bad
