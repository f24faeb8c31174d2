"""What a picture of a large camera costs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pirn_jax import PIRN, Config
from pirn_jax.scans import Scan
from tests.e2e.commands import ROOT

GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that looks at photographs alone."""
    rng = np.random.default_rng(0)
    config = Config(encoder="pirn-tiny", method="memory", modalities=("rgb",))
    shots = [
        Scan(rng.integers(0, 256, (64, 64, 3), np.uint8), None, np.ones((64, 64), bool))
        for _ in range(2)
    ]
    return PIRN(config).fit(shots).calibrate().save(tmp_path_factory.mktemp("large") / "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "flags"), [((7000, 7000), ()), ((2000, 40000), ("--limits.pixels", "90000000"))]
)
def test_a_large_picture_takes_two_gigabytes_at_most(model, tmp_path, size, flags):
    small = np.random.default_rng(1).integers(0, 256, (50, 50, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(tmp_path / "a.jpg")
    command = [sys.executable, "-m", "pirn_jax.predict", model, tmp_path / "a.jpg", *flags]
    command += ["--threshold", "0", "--out", tmp_path / "out"]  # all of it one region
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIRN_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert used.ru_maxrss * 1024 <= 2 * GIGABYTE
