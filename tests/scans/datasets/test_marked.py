"""False alarms of a service's log: whose they are, and logs that are damaged."""

import json
import sqlite3

import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.marked import list_marked


def log(folder, *rows):
    """A log with requests: id, model, mark, files."""
    with sqlite3.connect(folder / "journal.sqlite") as base:
        base.execute("CREATE TABLE requests (number, id, model, files, mark, kept)")
        for number, (name, model, mark, files) in enumerate(rows):
            said = json.dumps(files) if isinstance(files, dict) else files
            values = (number, name, model, said, mark, 1)
            base.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", values)
    base.close()
    return folder


def test_marks_of_another_product_are_no_shots_of_this_one(tmp_path, caplog):
    files = {"rgb": "a.png"}
    rows = [("r1", "flange", None, files), ("r2", "biscuit", "false_alarm", files)]
    log(tmp_path, *rows)
    assert list_marked(tmp_path, "flange") == []
    assert "1 marked parts are of biscuit, not of flange" in caplog.text
    assert [entry.key for entry in list_marked(tmp_path, "biscuit")] == ["r2"]
    # What joined before is found again, whatever is marked now.
    assert [entry.key for entry in list_marked(tmp_path, "flange", {"r1"})] == ["r1"]


def test_a_log_of_one_product_may_call_it_otherwise(tmp_path):
    log(tmp_path, ("r1", "the file's name", "false_alarm", {"rgb": "a.png"}))
    assert [entry.key for entry in list_marked(tmp_path, "flange")] == ["r1"]


@pytest.mark.parametrize("files", [5, "[]", "{", None])
def test_a_damaged_log_is_named(tmp_path, files):
    log(tmp_path, ("r1", "flange", "false_alarm", files))
    with pytest.raises(BadInputError, match="cannot be read") as caught:
        list_marked(tmp_path, "flange")
    assert caught.value.path.endswith("journal.sqlite")
