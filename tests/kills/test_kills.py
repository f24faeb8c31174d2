"""Killed at any operation on the file system: nothing half-written is read, the end is the same.

`python -m tests.kills` does it at every operation; of the longer works a few are taken here.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills import works
from tests.kills.killing import kill_at_every_operation
from tests.kills.states import every_state

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def encoder():
    return works.small_encoder()


def test_every_state_is_seen(tmp_path):
    """Each step of a small dance, with half of what was being written."""
    root = tmp_path / "root"
    root.mkdir()
    with every_state(root, tmp_path / "kept") as states:
        (root / "a.tmp").write_bytes(b"12345678")
        os.replace(root / "a.tmp", root / "a")
        (root / "b").mkdir()
        (root / "a").unlink()
    found = [
        {path.name: path.read_bytes() if path.is_file() else None for path in state.iterdir()}
        for state in states.copies
    ]
    assert found == [
        {},
        {"a.tmp": b"1234"},
        {"a.tmp": b"12345678"},
        {"a": b"12345678"},
        {"a": b"12345678", "b": None},
        {"b": None},
    ]
    assert states.operations == 4


def test_a_kill_leaves_what_the_states_say(tmp_path):
    """A process that ends itself before its third operation, against the copy made there."""
    program = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from tests.kills.test_kills import dance\n"
        "sys.addaudithook(lambda e, a: e == 'os.mkdir' and os.kill(os.getpid(), signal.SIGKILL))\n"
        "dance(Path(sys.argv[1]))\n"
    )
    real, copied = tmp_path / "real", tmp_path / "copied"
    real.mkdir()
    copied.mkdir()
    done = subprocess.run([sys.executable, "-c", program, str(real)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with every_state(copied, tmp_path / "kept") as states:
        dance(copied)
    left = {path.name: path.read_bytes() for path in real.iterdir()}
    assert left in [
        {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
        for state in states.copies
    ]


def dance(root):
    (root / "a.tmp").write_bytes(b"12345678")
    os.replace(root / "a.tmp", root / "a")
    (root / "b").mkdir()


def test_a_killed_save_leaves_the_old_model_or_the_new_one(tmp_path, encoder):
    assert kill_at_every_operation(works.saving(encoder), tmp_path) >= 10


def test_features_half_written_are_never_read(tmp_path):
    assert kill_at_every_operation(works.caching(), tmp_path) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("over", [False, True], ids=["new", "over others"])
def test_killed_while_predicting(tmp_path, encoder, over):
    assert kill_at_every_operation(works.predicting(encoder, over=over), tmp_path) >= 10


@pytest.mark.slow
def test_killed_while_preparing(tmp_path):
    assert kill_at_every_operation(works.preparing(), tmp_path, step=3) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("over", [False, True], ids=["new", "over an older run"])
def test_killed_while_training(tmp_path, over):
    work = works.training(tmp_path / "older", over=over)
    assert kill_at_every_operation(work, tmp_path / "work", step=8) >= 10


@pytest.mark.slow
def test_killed_while_evaluating(tmp_path):
    work = works.evaluating(tmp_path / "older")
    assert kill_at_every_operation(work, tmp_path / "work", step=8) >= 5
