"""One device, several by pmap or shardings, and several processes: the same parameters."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(devices: int, *arguments) -> subprocess.Popen:
    # Of two flags of a name the last one holds.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.agreement", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen) -> None:
    try:
        for process in processes:
            said, _ = process.communicate(timeout=570)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()


def differences(one, other, job: str, kinds: tuple[str, str]) -> dict[str, float]:
    """Largest absolute difference of each array of a job between two ways of running it."""
    here, there = (f"{kind}/{job}/" for kind in kinds)
    names = [name.removeprefix(here) for name in one if name.startswith(here)]
    assert any(name.startswith("parameters") for name in names)
    return {name: float(np.abs(one[here + name] - other[there + name]).max()) for name in names}


@pytest.mark.slow
def test_pmap_and_sharding_on_four_devices_equal_one_device_in_float64(tmp_path):
    """One job: the scans of each step are spread, 3 and 2 over 4 devices."""
    out = tmp_path / "out.npz"
    finish(start(4, out, "none", "pmap", "sharding"))
    found = dict(np.load(out))
    for kind in ("pmap", "sharding"):
        assert max(differences(found, found, "1/job0", ("none", kind)).values()) < 1e-8, kind


@pytest.mark.slow
def test_jobs_spread_over_four_devices_equal_each_alone_in_float64(tmp_path):
    """Five jobs of other seeds and masks, padded to eight."""
    out = tmp_path / "out.npz"
    finish(start(4, out, "none", "pmap", "sharding", "--jobs", 5))
    found = dict(np.load(out))
    for kind in ("pmap", "sharding"):
        for i in range(5):
            assert max(differences(found, found, f"5/job{i}", ("none", kind)).values()) < 1e-8


@pytest.mark.slow
def test_six_jobs_together_equal_each_alone_in_float64(tmp_path):
    out = tmp_path / "out.npz"
    finish(start(1, out, "none", "alone", "--jobs", 6))
    found = dict(np.load(out))
    for i in range(6):
        assert max(differences(found, found, f"6/job{i}", ("none", "alone")).values()) < 1e-8


def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 5])
def test_two_processes_of_two_devices_equal_one_device_in_float64(tmp_path, jobs):
    one, two, meet = tmp_path / "one.npz", tmp_path / "two.npz", address()
    finish(start(1, one, "none", "--jobs", jobs))
    finish(*(start(2, two, "sharding", "--jobs", jobs, "--process", i, 2, meet) for i in range(2)))
    found, expected = dict(np.load(two)), dict(np.load(one))
    for i in range(jobs):
        compared = differences(expected, found, f"{jobs}/job{i}", ("none", "sharding"))
        assert max(compared.values()) < 1e-8


@pytest.mark.slow
def test_the_default_recipe_in_float32(tmp_path):
    """Losses to 1e-5 and scores to 1e-4 after 60 epochs; parameters are said, not bounded.

    Where a gradient is zero but for rounding (a bias the loss cannot see), Adam turns the rounding
    into steps of the learning rate.
    """
    flags = ("--dtype", "float32", "--full")
    one, two, meet = tmp_path / "one.npz", tmp_path / "two.npz", address()
    finish(start(4, one, "none", "pmap", "sharding", *flags))
    finish(*(start(2, two, "sharding", *flags, "--process", i, 2, meet) for i in range(2)))
    found = dict(np.load(one))
    found |= {f"processes{k.removeprefix('sharding')}": v for k, v in np.load(two).items()}
    for kind in ("pmap", "sharding", "processes"):
        compared = differences(found, found, "1/job0", ("none", kind))
        drift = sorted(((v, k) for k, v in compared.items() if "parameters" in k), reverse=True)
        print(kind, compared["losses"], compared["scores"], drift[:8])
        assert compared["losses"] < 1e-5
        assert compared["scores"] < 1e-4
