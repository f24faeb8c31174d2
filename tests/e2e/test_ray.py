"""The commands on a Ray cluster: the plain command's files, also where workers are killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.commands import command, finish, start
from tests.scans import layouts

pytestmark = pytest.mark.slow
CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print("at", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def on():
    """The flags that name a cluster of two workers, which ends with the tests."""
    pytest.importorskip("ray")
    own = {
        "RAY_AUTH_MODE": "disabled",  # for whoever starts it and whoever joins
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }
    root = str(Path(__file__).resolve().parents[2])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        with subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": root},
        ) as holder:
            address = next(line for line in holder.stdout if line.startswith("at ")).split()[1]
            yield ("--on", "ray", "--address", address)
            holder.stdin.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of many small scans, one of them damaged, and a run."""
    place = tmp_path_factory.mktemp("ray")
    layouts.mvtec3d(place / "data")
    good = place / "data" / "bagel" / "test" / "good"
    for number in range(2, 70):
        for role in ("rgb", "xyz", "gt"):
            (first,) = (good / role).glob("000.*")
            shutil.copy(first, good / role / f"{number:03}{first.suffix}")
    flags = ("--dataset", "mvtec3d", "--data-root", place / "data", "--background", "none")
    small = ("--shots", "2", "--encoder", "pirn-tiny", "--image-size", "56")
    done = command("train", *flags, *small, "--out", place / "run", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    shutil.copytree(place / "data", place / "sound")
    (good / "rgb" / "005.png").write_bytes(b"no picture")
    return place


def files(folder):
    """What is in it, but for what says when and where."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name in (".lock", "environment.json", "report.html"):
            continue
        found[name] = path.read_bytes()
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                for place in ("time", "heatmap", "mask"):
                    line.pop(place, None)
            found[name] = lines
    return found


def workers():
    """Processes of workers at work."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes()
            if words.startswith((b"ray::_one_step", b"ray::_started")):
                found.append(int(place.name))
    return found


def kill_one():
    """Kill a worker as soon as there is one at work."""
    began = time.monotonic()
    while not (found := workers()):
        assert time.monotonic() < began + 120
        time.sleep(0.05)
    time.sleep(0.3)
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)


@pytest.mark.parametrize("name", ["prepare", "predict"])
def test_the_files_are_the_plain_commands(name, place, on):
    given = {
        "prepare": ("mvtec3d", place / "data"),
        "predict": (place / "run", place / "data" / "bagel" / "test"),
    }[name]
    plain = command(name, *given, "--out", place / f"{name}-1", cache=place / "cache")
    assert plain.returncode == 2, plain.stderr
    process = start(name, *given, "--out", place / f"{name}-2", *on, cache=place / "cache")
    kill_one()
    done = finish(process)
    assert done.returncode == 2, done.stderr
    assert files(place / f"{name}-1") == files(place / f"{name}-2")
    if name == "predict":
        assert len(done.stdout.splitlines()) == 73


def test_a_job_that_is_killed_does_what_is_left(place, on):
    given = (place / "run", place / "data" / "bagel" / "test", "--out", place / "killed")
    process = start("predict", *given, *on, cache=place / "cache")
    began = time.monotonic()
    while not list((place / "killed").glob(".parts/*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < began + 120
        time.sleep(0.02)
    process.kill()
    finish(process)
    done = command("predict", *given, *on, cache=place / "cache")
    assert done.returncode == 2, done.stderr
    whole = command("predict", *given[:2], "--out", place / "whole", cache=place / "cache")
    assert whole.returncode == 2
    assert files(place / "killed") == files(place / "whole")


def test_evaluate(place, on):
    more = ("--data-root", place / "sound", "--false-alarm-rate", "0.1")
    for out, flags in (("there", on), ("here", ())):
        done = command(
            "evaluate", place / "run", *more, "--out", place / out, *flags, cache=place / "cache"
        )
        assert done.returncode == 0, done.stderr
    assert len(files(place / "here")) > 73
    assert files(place / "there") == files(place / "here")
