"""Interrupted and resumed: the same end, and never an unreadable checkpoint."""

import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pirn_jax.errors import ConfigError, MachineError
from pirn_jax.training import train
from pirn_jax.training.checkpoint import Checkpoints
from pirn_jax.training.step import State
from tests.training.problems import job, largest_difference, recipe

ROOT = Path(__file__).resolve().parents[2]


class Stopped(Exception):
    pass


def stop_at(done: int):
    def progress(now, total, last):
        if now >= done:
            raise Stopped

    return progress


@pytest.mark.slow
def test_resumed_on_other_devices_or_refused(tmp_path):
    jobs, settings = [job(0), job(1)], recipe(epochs=6)
    kept = {"checkpoints": tmp_path, "save_seconds": 0.0}
    whole = train(jobs, settings, parallel="none")
    with pytest.raises(Stopped):
        train(jobs, settings, parallel="none", progress=stop_at(6), **kept)
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        train(jobs, settings, parallel="none", **kept)
    with pytest.raises(ConfigError, match="another run"):
        train(jobs, replace(settings, learning_rate=1.0), parallel="none", resume=True, **kept)

    seen = []
    resumed = train(
        jobs, settings, parallel="none", resume=True, progress=lambda *x: seen.append(x[0]), **kept
    )
    assert seen[0] > 2
    assert seen[-1] == 12
    assert len(list((tmp_path / "0").iterdir())) == 2
    for one, other in zip(whole, resumed, strict=True):
        assert largest_difference(one.parameters, other.parameters) == 0
        assert one.history == other.history

    # Finished: nothing is left to do, and the same comes back.
    again = train(jobs, settings, parallel="pmap", resume=True, **kept)
    for one, other in zip(whole, again, strict=True):
        assert largest_difference(one.parameters, other.parameters) == 0
        assert one.history == other.history


@pytest.mark.slow
def test_a_short_run_keeps_no_checkpoint(tmp_path):
    short = {"checkpoints": tmp_path, "save_seconds": 3600.0}
    train([job(0)], recipe(epochs=2), parallel="none", **short)
    assert not list((tmp_path / "0").iterdir())


def test_interrupted_and_resumed_it_ends_the_same(tmp_path):
    kept = {"parallel": "none", "checkpoints": tmp_path, "save_seconds": 0.0}
    (whole,) = train([job(0)], recipe(epochs=4), parallel="none")
    with pytest.raises(Stopped):
        train([job(0)], recipe(epochs=4), progress=stop_at(2), **kept)
    (resumed,) = train([job(0)], recipe(epochs=4), resume=True, **kept)
    assert largest_difference(whole.parameters, resumed.parameters) == 0
    assert whole.history == resumed.history


def checkpointed(folder):
    """A run of six epochs, stopped after the fourth; its checkpoints."""
    kept = {"parallel": "none", "checkpoints": folder, "save_seconds": 0.0}
    with pytest.raises(Stopped):
        train([job(0)], recipe(epochs=6), progress=stop_at(4), **kept)
    return sorted((path for path in (folder / "0").iterdir() if path.name.isdigit()), key=str)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_gone_on_from(tmp_path, caplog):
    (whole,) = train([job(0)], recipe(epochs=6), parallel="none")
    older, newer = checkpointed(tmp_path)
    flip(largest(newer), 5000)
    kept = {"parallel": "none", "checkpoints": tmp_path, "save_seconds": 0.0, "resume": True}
    seen = []
    (resumed,) = train([job(0)], recipe(epochs=6), progress=lambda *x: seen.append(x[0]), **kept)
    assert f"checkpoint {newer} is damaged" in caplog.text
    assert newer.with_suffix(".damaged").is_dir()
    assert seen[0] == int(older.name) + 1
    assert largest_difference(whole.parameters, resumed.parameters) == 0
    assert whole.history == resumed.history


def test_a_checkpoint_that_cannot_be_read_stays_and_ends_the_run(tmp_path, monkeypatch):
    state = State({"weight": np.arange(6.0)}, (), {})
    with Checkpoints(tmp_path, "run", 3, resume=False) as kept:
        kept.save(1, state, ["one"])
    with Checkpoints(tmp_path, "run", 3, resume=True) as kept:
        for error in (
            PermissionError(13, "Permission denied"),
            OSError(5, "Input/output error"),
            MemoryError(),
            ValueError("PERMISSION_DENIED: Error opening file"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(kept, "_read", raising(error))
                with pytest.raises(MachineError, match="checkpoint 1 cannot be read"):
                    kept.restore(state)
        epoch, found, history = kept.restore(state)
        assert (epoch, history) == (1, ["one"])
        np.testing.assert_array_equal(found.parameters["weight"], np.arange(6.0))
        # What is gone cannot be read another time.
        for _ in range(2):  # nor where one was put aside before
            monkeypatch.setattr(kept, "_read", raising(FileNotFoundError(2, "No such file")))
            assert kept.restore(state) is None
            assert (tmp_path / "1.damaged").is_dir()
            kept.save(1, state, ["again"])
            kept._manager.wait_until_finished()
            monkeypatch.undo()
            assert kept.restore(state)[2] == ["again"]


def raising(error):
    def read(*_):
        raise error

    return read


# Where one array cannot be read, tensorstore still ends its other reads, in a loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_no_flipped_bit_of_a_checkpoint_changes_the_end(tmp_path):
    """In any file of it: found, or of no consequence; never silently another result."""
    (whole,) = train([job(0)], recipe(epochs=6), parallel="none")
    newer = checkpointed(tmp_path / "kept")[-1]
    files = [path for path in sorted(newer.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for number, path in enumerate(files * 2):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "kept", copy)
        flip(copy / path.relative_to(tmp_path / "kept"), random.Random(number).randrange(1 << 30))
        kept = {"parallel": "none", "checkpoints": copy, "save_seconds": 0.0, "resume": True}
        (resumed,) = train([job(0)], recipe(epochs=6), **kept)
        assert largest_difference(whole.parameters, resumed.parameters) == 0, path
        assert whole.history == resumed.history, path


def start(folder: Path, out: Path, epochs: int) -> subprocess.Popen:
    arguments = [folder / "checkpoints", folder.parent / "cache", out, epochs]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.resumable", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path):
    """SIGKILL while it starts, compiles, trains or writes; the next run reads what is there."""
    epochs = 151  # prime: a checkpoint after every epoch
    moments = random.Random(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(whole, tmp_path / "whole.npz", epochs)
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    for kill in range(20):
        process = start(broken, tmp_path / "broken.npz", epochs)
        assert process.stdout is not None
        assert process.stderr is not None
        # The start, or one of the next epochs; then at any point of what follows it.
        lines = [process.stdout.readline() for _ in range(1 + moments.randrange(6))]
        time.sleep(moments.random() * (3.0 if len(lines) == 1 else 0.2))
        process.kill()
        process.wait()
        said = process.stderr.read()
        assert "Error" not in said, (kill, said)
        process.stdout.close()
        process.stderr.close()
        assert all(lines), (kill, said)
    assert not (tmp_path / "broken.npz").exists()
    process = start(broken, tmp_path / "broken.npz", epochs)
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said
    one, other = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "broken.npz")
    assert sorted(one) == sorted(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)
