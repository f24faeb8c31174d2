"""Scores and history: what is written is read back equal, and what cannot be is counted."""

import csv
import io
import json

import numpy as np
import pytest

from pirn_jax.report.schema import Provenance
from pirn_jax.report.tables import (
    HistoryLine,
    ScoreRow,
    join_scores,
    parse_history,
    parse_scores,
    write_history,
    write_scores,
)

PROVENANCE = Provenance("generated", True)
KEYS = (
    "test/good/000", "", 'a,"b"', "two\nlines", "two\r\nlines", "lone\rreturn", "tab\t;", "ü☃",
    "=1+1", " spaces ", "None", "\0", "'",
)  # fmt: skip
SCORES = (0.0, -1.5, 1e-30, 0.1 + 0.2, 1 / 3, 9.9e29, float(np.float32(0.1)))
ROWS = [
    ScoreRow(key, label, defect, score, verdict)
    for key in KEYS
    for score in SCORES
    for label, defect, verdict in ((0, "good", 0), (1, key, 1), (None, "", None), (1, "x", None))
]
EMPTY = "key,label,defect,score,pred_label,data,random_weights\n"


def test_scores_are_read_back_equal():
    assert len(ROWS) > 300
    assert parse_scores(write_scores(ROWS, PROVENANCE).decode()) == (ROWS, 0)
    first = {"category": 'fl,an"ge', "seed": 3}
    assert parse_scores(write_scores(ROWS, PROVENANCE, first).decode()) == (ROWS, 0)


def test_scores_are_a_plain_table():
    rows = [ScoreRow("a/0", 1, "crack", 0.5, None)]
    text = write_scores(rows, PROVENANCE, {"category": "flange", "seed": 2}).decode()
    assert text == (
        "category,seed,key,label,defect,score,pred_label,data,random_weights\n"
        "flange,2,a/0,1,crack,0.5,,generated,True\n"
    )
    assert write_scores([], PROVENANCE).decode() == EMPTY


def test_tables_of_several_models_are_one():
    firsts = [{"category": "a", "seed": seed} for seed in range(3)]
    tables = [write_scores(ROWS[n : n + 2], PROVENANCE, one) for n, one in enumerate(firsts)]
    joined = join_scores(tables).decode()
    assert parse_scores(joined) == ([row for n in range(3) for row in ROWS[n : n + 2]], 0)
    seeds = [line["seed"] for line in csv.DictReader(io.StringIO(joined, newline=""))]
    assert seeds == ["0", "0", "1", "1", "2", "2"]
    assert join_scores([]) == b""


def test_a_key_that_is_no_text_can_be_written():
    rows, bad = parse_scores(
        write_scores([ScoreRow("a\udcff", 0, "", 1.0, 0)], PROVENANCE).decode()
    )
    assert (rows, bad) == ([ScoreRow("a\\udcff", 0, "", 1.0, 0)], 0)


@pytest.mark.parametrize(
    ("text", "count", "bad"),
    [
        ("", 0, 0),
        ("key,score\na,nan\nb,inf\nc,1e30\nd,-1e308\ne,\nf,x\ng\n", 0, 7),
        ("score\n1\n", 1, 0),
        ("key,label\na,1\n", 0, 1),
        ("key,label,score,pred_label\na,2,1,yes\n", 1, 0),
        ("key,score\na,1,2,3,4\n", 1, 0),
        ("key,score\n" + "a,1\n" * 1000, 1000, 0),
    ],
    ids=["nothing", "no numbers", "no keys", "no scores", "no labels", "too many", "the same"],
)
def test_lines_that_do_not_fit_are_counted(text, count, bad):
    rows, found = parse_scores(text)
    assert (len(rows), found) == (count, bad)
    assert all(row.label is None and row.pred_label is None for row in rows)


def test_a_field_without_end_is_an_error_of_csv():
    with pytest.raises(csv.Error):
        parse_scores('key,score\n"' + "a" * 200_000)


LINES = [
    HistoryLine(job, epoch, 2 * epoch, loss)
    for job in ("flange/seed0", 'ü"\n', "")
    for epoch, loss in ((1, 0.9), (2, 1 / 3), (3, 0.0), (4, -1e-9))
]


def test_history_is_read_back_equal():
    written = write_history(LINES, PROVENANCE)
    assert parse_history(written.decode()) == (LINES, 0)
    assert [json.loads(line)["data"] for line in written.splitlines()] == ["generated"] * 12
    assert write_history([], PROVENANCE) == b""


@pytest.mark.parametrize(
    "line",
    ["", "{", "null", "[1]", '{"epoch": 1}', '{"epoch": true, "loss": 1}', "[" * 100_000,
     '{"epoch": 1, "loss": NaN}', '{"epoch": "1", "loss": 1}', '{"epoch": 1, "loss": 1e999}',
     '{"epoch": 1, "loss": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_lines_of_history_that_do_not_fit_are_counted(line):
    sound = '{"job": "a", "epoch": 1, "loss": 0.5}'
    assert parse_history(f"{sound}\n{line}\n{sound}\n") == ([HistoryLine("a", 1, 0, 0.5)] * 2, 1)
