"""The log, killed at every step: what was accepted has its verdict in the end, once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pirn_jax.deploy.service.journal import TRIES, Journal
from pirn_jax.errors import MachineError
from tests.deploy.service.stand_in import Brightness, accepted, make

ROOT = Path(__file__).resolve().parents[3]

# Accepts a part, judges and delivers it, and kills itself with no warning just before or after one
# of the steps.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from pirn_jax.deploy.service.journal import Journal
from pirn_jax.deploy.service.sinks import Courier, FolderSink
from tests.deploy.service.stand_in import accepted, make

step, when, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
inner = getattr(Journal, step)

def dying(*arguments, **more):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    inner(*arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)

parts = make(folder / "state", sinks=["folder"])
setattr(Journal, step, dying)
parts.batcher.start()
part = accepted(parts.journal)
parts.batcher.take_slot()
parts.batcher.put(part).result()
sink = FolderSink(folder / "out")
courier = Courier(parts.journal, sink)
for delivery in parts.journal.due("folder", 0.0):
    courier._deliver(delivery)
raise SystemExit("it lives")
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["accept", "begin", "finish", "delivered"])
def test_killed_at_a_step_it_goes_on_from_there(tmp_path, step, when):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, step, when, str(tmp_path)], cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = make(tmp_path / "state", sinks=["folder"])
    parts.batcher.start()
    parts.batcher.stop()
    results = parts.journal.results()
    folders = [path.name for path in parts.journal.requests.iterdir()]
    if (step, when) == ("accept", "before"):  # never accepted: nobody was told that it was
        assert results == []
        assert folders == []
        return
    assert [(one["state"], one["record"]["label"]) for one in results] == [("judged", 1)]
    assert folders == [results[0]["id"]]
    due = parts.journal.due("folder", 0.0)
    assert len(due) == (0 if (step, when) == ("delivered", "after") else 1)
    assert (tmp_path / "out").exists() == (step == "delivered")


def test_a_part_that_kills_the_process_does_so_no_fourth_time(tmp_path):
    journal = Journal(tmp_path)
    part = accepted(journal)
    for _ in range(TRIES):
        journal.begin([part.id])
    journal.close()
    judge = Brightness()
    parts = make(tmp_path, judge=judge)
    parts.batcher.start()
    parts.batcher.stop()
    assert judge.calls == []
    (result,) = parts.journal.results()
    assert result["state"] == "failed"
    assert "ended 3 times" in result["record"]["error"]


def test_a_part_that_kills_the_process_takes_no_other_with_it(tmp_path):
    journal = Journal(tmp_path)
    first, second = accepted(journal), accepted(journal)
    journal.begin([first.id, second.id])  # and the process ended
    third = accepted(journal)
    journal.close()
    judge = Brightness()
    parts = make(tmp_path, judge=judge)
    parts.batcher.start()
    parts.batcher.stop()
    assert [len(call) for call in judge.calls] == [1, 1, 1]
    assert {one["id"] for one in parts.journal.results()} == {first.id, second.id, third.id}


def test_parts_of_a_model_that_is_not_served_wait_for_it(tmp_path, caplog):
    """And take no place in the queue meanwhile."""
    journal = Journal(tmp_path)
    old = [accepted(journal, model="old") for _ in range(2)]
    ours = accepted(journal)
    journal.close()
    parts = make(tmp_path, capacity=1)
    assert "the model old is served again: 2" in caplog.text
    parts.batcher.start()
    assert parts.batcher.take_slot()
    parts.batcher.put(accepted(parts.journal)).result(30)
    parts.batcher.stop()
    assert parts.journal.result(ours.id)["state"] == "judged"
    assert [part.id for part, _ in parts.journal.unfinished()] == [part.id for part in old]
    assert all(part.files["rgb"].is_file() for part in old)


def test_parts_without_their_log_are_kept(tmp_path):
    journal = Journal(tmp_path)
    part = accepted(journal)
    journal.close()
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    for _ in range(2):
        with pytest.raises(MachineError, match="parts without their log"):
            make(tmp_path)
    assert part.files["rgb"].is_file()


def test_a_start_deletes_only_what_a_request_left(tmp_path):
    journal = Journal(tmp_path)
    for name in ("photographs", "0" * 24):
        (journal.requests / name).mkdir()
    journal.close()
    make(tmp_path)
    assert [place.name for place in journal.requests.iterdir()] == ["photographs"]


def test_a_sink_that_is_no_longer_given_holds_no_files(tmp_path, caplog):
    parts = make(tmp_path, sinks=["folder"], keep=0)
    parts.batcher.start()
    parts.batcher.take_slot()
    record = parts.batcher.put(accepted(parts.journal)).result(30)
    parts.batcher.stop()
    parts.journal.close()
    again = make(tmp_path, keep=0)
    assert "the sink folder is given again: 1" in caplog.text
    again.batcher._prune()
    assert not again.journal.place(record["id"]).exists()
    assert len(again.journal.due("folder", 0.0)) == 1  # the record is there still


def test_what_is_asked_of_it(tmp_path):
    parts = make(tmp_path, sinks=["folder", "webhook"], keep=2)
    journal, batcher = parts.journal, parts.batcher
    batcher.start()
    futures = []
    for place, level in enumerate([200, 50, 13, 220, 10]):  # 13 is unforeseen
        batcher.take_slot()
        futures.append(batcher.put(accepted(journal, f"Part {place}", level, origin=str(place))))
    records = [future.result(30) for future in futures]
    batcher.stop()
    assert [record["label"] for record in records] == [1, 0, None, 1, 0]

    def places(**asked):
        return [one["number"] - 1 for one in journal.results(**asked)]

    assert places() == [4, 3, 2, 1, 0]
    assert places(verdict="not_ok") == [3, 0]
    assert places(verdict="ok") == [4, 1]
    assert places(verdict="failed") == [2]
    assert places(before=4, most=2) == [2, 1]
    assert places(after=2, most=2) == [3, 2]  # the next ones, so that none is missed
    assert places(text="rt 3") == [3]
    assert places(text="%") == []
    assert journal.mark(records[0]["id"], "false_alarm")
    assert places(mark="false_alarm") == [0]
    assert not journal.mark("unknown", "missed")
    assert journal.has_seen("3")
    assert not journal.has_seen("5")

    assert journal.undelivered() == {"folder": 5, "webhook": 5}
    batcher._prune()
    assert all(one["kept"] for one in journal.results())  # the folder has not its pictures yet
    for delivery in journal.due("folder", 0.0):
        journal.delivered(delivery, "folder")
    assert journal.undelivered() == {"webhook": 5}  # which takes none
    kept = [records[place]["id"] for place in (2, 1)]  # not the newest two, and not the marked one
    assert journal.prunable(2, "folder") == kept
    batcher._prune()
    assert not any(journal.place(request).exists() for request in kept)
    assert journal.place(records[0]["id"]).exists()
    assert [one["kept"] for one in journal.results()] == [True, True, False, False, True]
    assert journal.results()[3]["record"]["label"] == 0  # the verdict stays


def test_a_log_of_another_version_is_refused(tmp_path):
    journal = Journal(tmp_path)
    journal._base.execute("PRAGMA user_version = 9")
    journal.close()
    with pytest.raises(MachineError, match="a log of format 9"):
        Journal(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(MachineError, match="cannot be opened"):
        Journal(tmp_path / "other")
