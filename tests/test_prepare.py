"""`python -m pirn_jax.prepare`: files whole or not at all, resumed to the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pirn_jax import prepare
from pirn_jax.command import run as run_command
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import remove_background, surface_normals
from pirn_jax.geometry.prepared import (
    Settings,
    fingerprint,
    load_prepared,
    prepared_path,
    save_prepared,
)
from pirn_jax.prepare import prepare_scan
from pirn_jax.scans import Scan
from tests.geometry import surfaces

ROOT = Path(prepare.__file__).parents[1]


def a_scan(seed=0, **changes):
    xyz, _ = surfaces.part_on_table("dome", size=96, seed=seed)
    scan = Scan(rgb=None, xyz=xyz, valid=(xyz != 0).any(-1))
    return scan._replace(**changes)


def write_dataset(root, scans=4):
    """MVTec 3D-AD's layout, a category `part`."""
    for index in range(scans + 2):
        folder = root / "part" / ("train/good", "test/good", "test/dent")[max(0, index - scans + 1)]
        for kind in ("rgb", "xyz", "gt"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        xyz, part = surfaces.part_on_table("dome", size=64, seed=index)
        tifffile.imwrite(folder / "xyz" / f"{index:03}.tiff", xyz, photometric="rgb")
        Image.fromarray(np.uint8(part[..., None] * [200, 150, 100])).save(
            folder / "rgb" / f"{index:03}.png"
        )
        if "test" in folder.parts:
            Image.fromarray(np.uint8(part) * 0).save(folder / "gt" / f"{index:03}.png")
    shutil.rmtree(root / "part" / "train" / "good" / "gt")
    return root


def command(root, cache, *more):
    return [
        sys.executable,
        "-m",
        "pirn_jax.prepare",
        "mvtec3d",
        str(root),
        "--out",
        str(cache),
        "--workers",
        "1",
        *more,
    ]


def run(root, cache, *more):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(root, cache, *more),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_prepared_scan_holds_what_the_functions_give(tmp_path):
    scan = a_scan()
    path = tmp_path / "train" / "good" / "000.npz"
    save_prepared(path, prepare_scan(scan))
    loaded = load_prepared(path)
    part = remove_background(scan.xyz)
    np.testing.assert_array_equal(loaded.object, part)
    expected = surface_normals(scan.xyz, scan.valid & part)
    np.testing.assert_allclose(loaded.normals, expected, atol=1 / 32767)
    assert loaded.fingerprint == fingerprint(scan, Settings())
    assert loaded.notes == ()
    assert [file.name for file in path.parent.iterdir()] == ["000.npz"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_prepared(first, prepare_scan(a_scan()))
    time.sleep(2.1)  # zip archives keep time to two seconds
    save_prepared(second, load_prepared(first))
    assert first.read_bytes() == second.read_bytes()


def test_every_input_and_setting_counts():
    scan = a_scan()
    moved = scan.xyz.copy()
    moved[50, 50, 2] += 1e-6
    mask = np.ones((96, 96), bool)
    prints = [
        fingerprint(scan, Settings()),
        fingerprint(scan._replace(xyz=moved), Settings()),
        fingerprint(scan._replace(valid=mask), Settings()),
        fingerprint(scan._replace(normals=scan.xyz), Settings()),
        fingerprint(scan, Settings(method="open3d")),
        fingerprint(scan, Settings(background="none")),
        fingerprint(scan, Settings(seed=1)),
        fingerprint(scan, Settings(time_limit=1.0)),
        fingerprint(scan, Settings(), mask),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(a_scan(), Settings()) == prints[0]


def test_odd_scans_say_so():
    scan = a_scan(valid=np.zeros((96, 96), bool))
    notes = prepare_scan(scan).notes
    assert any("no plane" in note for note in notes)
    assert any("only 0.0% of the pixels" in note for note in notes)
    ready = a_scan()._replace(normals=np.tile(np.float32([0, 0, -1]), (96, 96, 1)))
    kept = prepare_scan(ready, Settings(background="none")).normals
    np.testing.assert_array_equal(kept[ready.valid], ready.normals[ready.valid])
    with pytest.raises(BadInputError, match="nothing to prepare"):
        prepare_scan(scan._replace(xyz=None))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "shape"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / "000.npz"
    save_prepared(path, prepare_scan(a_scan(), Settings(background="none")))
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "pickle":
        np.savez(path, shape=np.array([96, 96]), object=np.array([{}], object), normals=0)
    else:
        with np.load(path) as stored:
            np.savez(path, **{**stored, "shape": np.array([97, 96])})
    with pytest.raises(BadInputError, match="prepared scan"):
        load_prepared(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"nothing\.npz"):
        load_prepared(tmp_path / "nothing.npz")


def test_keys_cannot_lead_out_of_the_cache(tmp_path):
    with pytest.raises(BadInputError, match="leads out"):
        prepared_path(tmp_path / "part", "../../elsewhere")


def test_contradicting_options(tmp_path, capsys):
    root = write_dataset(tmp_path / "data", 1)
    arguments = ["mvtec3d", str(root), "--out", str(tmp_path / "cache")]

    def refused(arguments):
        with pytest.raises(SystemExit) as stopped:
            run_command(prepare.main, prepare.Command, arguments)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert "come together" in refused([*arguments, "--background", "mask"])
    assert "did you mean" in refused(["mvtec4d", *arguments[1:]])


def test_one_run_per_cache(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run"), prepare._sole_writer(tmp_path):
            pass


def test_the_command_reports_skips_and_resumes(tmp_path):
    root, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"
    bad = root / "part/train/good/xyz/001.tiff"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    borderless = tifffile.imread(root / "part/train/good/xyz/002.tiff")
    inner = np.zeros_like(borderless)
    inner[10:-10, 10:-10] = borderless[10:-10, 10:-10]
    tifffile.imwrite(root / "part/train/good/xyz/002.tiff", inner, photometric="rgb")
    before = contents(root)

    first = run(root, cache)
    assert first.returncode == 3, first.stderr
    assert "bad: part/train/good/001: " in first.stderr
    assert "odd: part/train/good/002: the 10-pixel border has only 0" in first.stderr
    assert "5 made, 0 already there, 1 odd, 1 bad and left out" in first.stderr
    assert contents(root) == before
    summary = json.loads((cache / "mvtec3d" / "summary.json").read_text())
    assert summary["prepared"] == 5
    assert list(summary["bad"]) == ["part/train/good/001"]
    stored = load_prepared(cache / "mvtec3d/part/train/good/000.npz")
    xyz = tifffile.imread(root / "part/train/good/xyz/000.tiff")
    np.testing.assert_array_equal(stored.object, remove_background(xyz))

    bad.write_bytes(whole)
    damaged = cache / "mvtec3d/part/train/good/000.npz"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:50])
    (damaged.parent / ".000.npz.abc.tmp").write_bytes(b"left over")
    second = run(root, cache)
    assert second.returncode == 0, second.stderr
    assert "2 made, 4 already there, 1 odd, 0 bad" in second.stderr
    assert damaged.read_bytes() == kept
    assert not list(cache.rglob("*.tmp"))

    masks = tmp_path / "fixture.png"
    Image.fromarray(np.uint8(np.eye(64) * 255)).save(masks)
    third = run(root, cache, "--background", "mask", "--object-mask", str(masks))
    assert "6 made, 0 already there" in third.stderr
    np.testing.assert_array_equal(load_prepared(damaged).object, np.eye(64, dtype=bool))


def kill_and_resume(tmp_path, kills, scans):
    root = write_dataset(tmp_path / "data", scans)
    started = time.monotonic()
    assert run(root, tmp_path / "whole").returncode == 0
    span = time.monotonic() - started
    cache, dice = tmp_path / "killed", random.Random(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    interrupted = 0
    for kill in range(kills):
        process = subprocess.Popen(command(root, cache), env=environment, stderr=subprocess.DEVNULL)
        if kill % 2:  # any moment at all
            time.sleep(dice.uniform(0, span))
        else:  # while files are being written
            have, until = len(list(cache.rglob("*.npz"))), time.monotonic() + 2 * span
            while len(list(cache.rglob("*.npz"))) <= have and process.poll() is None:
                assert time.monotonic() < until + 60
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.02))
        interrupted += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in cache.rglob("*.npz"):
            load_prepared(path)  # whole at every moment
    assert interrupted >= min(2, kills) - 1
    time.sleep(1)  # workers notice that their parent is gone
    assert run(root, cache).returncode == 0
    assert contents(cache) == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_twice_it_resumes_to_the_same_bytes(tmp_path):
    kill_and_resume(tmp_path, 2, 10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_twenty_times_it_resumes_to_the_same_bytes(tmp_path):
    kill_and_resume(tmp_path, 20, 120)
