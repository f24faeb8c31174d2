"""`python -m pirn_jax.prepare`: entries whole or not at all, resumed to the same bytes."""

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
from pirn_jax.errors import MachineError
from pirn_jax.geometry import (
    PreparedCache,
    Settings,
    default_folder,
    prepare_scan,
    remove_background,
)
from pirn_jax.runs import preparation
from pirn_jax.runs.preparation import prepare_dataset
from pirn_jax.scans import open_dataset
from pirn_jax.storage import cache_folder
from tests.geometry import surfaces
from tests.runs.in_this_process import InThisProcess

ROOT = Path(prepare.__file__).parents[1]
PLANE, NONE = Settings("grid", "plane"), Settings("grid", "none")


def sheet(seed, size=64):
    """A wavy sheet that fills the picture: the plane at its border is the part itself."""
    xyz = surfaces.plane(size, (0.1, 0.1, -1))[0].astype(np.float32)
    rows, columns = np.mgrid[:size, :size] / size
    xyz[..., 2] += 0.012 * np.sin(17 * rows + seed) * np.cos(13 * columns)
    return xyz, np.ones((size, size), bool)


def part_on_table(seed):
    return surfaces.part_on_table("dome", size=64, seed=seed)


def write_dataset(root, scans=4, category="part", shape=part_on_table):
    """MVTec 3D-AD's layout, one category."""
    for index in range(scans + 2):
        kind = ("train/good", "test/good", "test/dent")[max(0, index - scans + 1)]
        folder = root / category / kind
        for role in ("rgb", "xyz", "gt"):
            (folder / role).mkdir(parents=True, exist_ok=True)
        xyz, part = shape(index)
        tifffile.imwrite(folder / "xyz" / f"{index:03}.tiff", xyz, photometric="rgb")
        Image.fromarray(np.uint8(part[..., None] * [200, 150, 100])).save(
            folder / "rgb" / f"{index:03}.png"
        )
        if "test" in folder.parts:
            Image.fromarray(np.uint8(part) * 0).save(folder / "gt" / f"{index:03}.png")
    shutil.rmtree(root / category / "train" / "good" / "gt")
    return root


def command(root, *more, cache=None):
    out = [] if cache is None else ["--out", str(cache)]
    arguments = ["mvtec3d", str(root), *out, "--workers", "1", *more]
    return [sys.executable, "-m", "pirn_jax.prepare", *arguments]


def run(root, *more, cache=None, **environment):
    return subprocess.run(
        command(root, *more, cache=cache),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
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


def read_whole(path):
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def all_scans(root, category="part", **options):
    data = open_dataset("mvtec3d", root, category, **options)
    return [scan for split in (data.train, data.validation, data.test) for scan in split]


def test_unknown_names_are_refused(tmp_path, capsys):
    root = write_dataset(tmp_path / "data", 1)

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            run_command(prepare.main, prepare.Command, [*arguments, "--out", str(tmp_path / "out")])
        assert stopped.value.code == 3
        return capsys.readouterr().err

    assert "did you mean" in refused("mvtec4d", str(root))
    assert "mask" in refused("mvtec3d", str(root), "--background", "mask")


def test_one_run_per_cache(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    root = write_dataset(tmp_path / "data", 1)
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="another run"):
            prepare_dataset("mvtec3d", root, tmp_path)


def test_runs_find_bit_for_bit_what_they_would_compute(tmp_path):
    """Made in other processes, by default where runs look; "auto" decides for each category."""
    root = write_dataset(tmp_path / "data", 3)
    write_dataset(root, 3, "sheet", sheet)
    done = run(root, PIRN_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "10 made, 0 already there" in done.stderr
    cache = PreparedCache(default_folder(cache_folder(str(tmp_path / "cache"))))
    for category, settings, other in (("part", PLANE, NONE), ("sheet", NONE, PLANE)):
        for scan in all_scans(root, category):
            kept, computed = cache.read(scan, settings), prepare_scan(scan, settings)
            assert kept.normals.any()
            assert kept.normals.tobytes() == computed.normals.tobytes()
            assert kept.object.tobytes() == computed.object.tobytes()
            assert (kept.stands, kept.notes) == (computed.stands, computed.notes)
            assert cache.read(scan, other) is None
    scan = all_scans(root)[0]
    np.testing.assert_array_equal(cache.read(scan, PLANE).object, remove_background(scan.xyz))
    summary = json.loads((cache.folder / "mvtec3d" / "summary.json").read_text())
    assert summary["background"] == {"part": "plane", "sheet": "none"}


def test_the_cache_lies_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "variable"))
    assert cache_folder("given") == Path("given")
    assert cache_folder(None) == tmp_path / "variable"
    monkeypatch.delenv("PIRN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "pirn_jax"


def test_the_background_is_as_given(tmp_path):
    root, told = write_dataset(tmp_path / "data", 1), []
    outcomes = prepare_dataset(
        "mvtec3d",
        root,
        tmp_path / "cache",
        background="none",
        options={"assume_aligned": True},
        workers=1,
        progress=lambda *news: told.append(news),
    )
    assert [outcome.state for outcome in outcomes] == ["made"] * 3
    assert [done for _, done, of, _ in told if of == 3] == [1, 2, 3]
    cache = PreparedCache(tmp_path / "cache")
    for scan in all_scans(root):
        assert cache.read(scan, NONE).object.all()
        assert cache.read(scan, PLANE) is None


@pytest.fixture
def fits(monkeypatch):
    """The work is done in this process; which scans are fitted to a plane is listed."""
    fitted = []
    from pirn_jax.geometry import background, prepared

    def choose_object(xyz, valid, *settings):
        fitted.append((float(xyz.sum()), settings[0]))
        return background.choose_object(xyz, valid, *settings)

    monkeypatch.setattr(preparation, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(preparation, "choose_object", choose_object)
    monkeypatch.setattr(prepared, "choose_object", choose_object)
    return fitted


def test_the_command_reports_skips_and_resumes(tmp_path, fits, capsys):
    root, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"
    bad = root / "part/train/good/xyz/001.tiff"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    borderless = tifffile.imread(root / "part/train/good/xyz/002.tiff")
    inner = np.zeros_like(borderless)
    inner[10:-10, 10:-10] = borderless[10:-10, 10:-10]
    tifffile.imwrite(root / "part/train/good/xyz/002.tiff", inner, photometric="rgb")
    before = contents(root)

    def status():
        arguments = ["mvtec3d", str(root), "--out", str(cache)]
        return run_command(prepare.main, prepare.Command, arguments), capsys.readouterr().err

    code, said = status()
    assert code == 2
    assert "bad: part/train/good/001: " in said
    assert "odd: part/train/good/002: the 10-pixel border has only 0" in said
    assert "5 made, 0 already there, 1 odd, 1 bad and left out" in said
    assert contents(root) == before
    summary = json.loads((cache / "mvtec3d" / "summary.json").read_text())
    assert summary["prepared"] == 5
    assert summary["background"] == {"part": "plane"}
    assert list(summary["bad"]) == ["part/train/good/001"]
    assert len(list(cache.rglob("*.npz"))) == 5

    bad.write_bytes(whole)
    damaged = max(cache.rglob("*.npz"))
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:50])
    (damaged.parent / f".{damaged.name}.abc.tmp").write_bytes(b"left over")
    code, said = status()
    assert code == 0
    assert "2 made, 4 already there, 1 odd, 0 bad" in said
    assert damaged.read_bytes() == kept
    assert not list(cache.rglob("*.tmp"))


def test_each_scan_is_fitted_to_a_plane_once(tmp_path, fits):
    """Twelve training scans, of which the first ten with points are asked, and two to test."""
    root = write_dataset(tmp_path / "data", 13)
    (root / "part/train/good/xyz/000.tiff").write_bytes(b"no scan")
    outcomes = prepare_dataset("mvtec3d", root, tmp_path / "cache")
    assert sorted(outcome.state for outcome in outcomes) == ["bad"] + ["made"] * 14
    assert len(set(fits)) == len(fits) == 14
    assert {background for _, background in fits} == {"plane"}
    fits.clear()
    outcomes = prepare_dataset("mvtec3d", root, tmp_path / "cache")
    assert sorted(outcome.state for outcome in outcomes) == ["bad"] + ["current"] * 14
    assert fits == []


def test_the_first_ten_training_scans_decide(tmp_path, fits):
    """Six sheets among the first ten outvote the parts, of which there are more after them."""

    def mixed(index):
        return sheet(index) if index < 6 else part_on_table(index)

    root = write_dataset(tmp_path / "data", 18, shape=mixed)
    prepare_dataset("mvtec3d", root, tmp_path / "cache")
    asked = [background for _, background in fits[:11]]
    assert asked == ["plane"] * 10 + ["none"]
    cache = PreparedCache(tmp_path / "cache")
    assert all(cache.read(scan, NONE) for scan in all_scans(root))


def test_photographs_alone_need_no_preparation(tmp_path, fits):
    for index in range(2):
        folder = tmp_path / "data/part/train/good/rgb"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(folder / f"{index}.png")
    outcomes = prepare_dataset("folder", tmp_path / "data", tmp_path / "cache")
    assert [outcome.state for outcome in outcomes] == ["bad", "bad"]
    assert "nothing to prepare" in outcomes[0].notes[0]
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_datasets_that_mark_their_background_keep_it(tmp_path, fits, monkeypatch):
    layout = preparation.find_layout("mvtec3d")._replace(marks_background=True)
    monkeypatch.setattr(preparation, "find_layout", lambda name: layout)
    root = write_dataset(tmp_path / "data", 2)
    prepare_dataset("mvtec3d", root, tmp_path / "cache")
    assert {background for _, background in fits} == {"none"}
    cache = PreparedCache(tmp_path / "cache")
    assert all(cache.read(scan, NONE).object.all() for scan in all_scans(root))


def test_scans_with_few_points_are_odd_each_time(tmp_path, fits):
    root = write_dataset(tmp_path / "data", 1)
    path = root / "part/test/good/xyz/001.tiff"
    xyz = tifffile.imread(path)
    xyz[4:] = 0
    tifffile.imwrite(path, xyz, photometric="rgb")
    for _ in range(2):
        outcomes = prepare_dataset("mvtec3d", root, tmp_path / "cache")
        (odd,) = [outcome for outcome in outcomes if outcome.notes]
        assert odd.name == "part/test/good/001"
        assert any("of the pixels were measured" in note for note in odd.notes)
    assert odd.state == "current"


@pytest.mark.parametrize("work", ["_ask", "_make"])
def test_a_scan_that_ends_its_workers_is_named(work, tmp_path, fits, monkeypatch):
    """As a cluster says it of a worker that died however often it was tried."""
    known = getattr(preparation, work)

    def deadly(place, *given):
        if place == (0, 1):
            raise MachineError("workers died 21 times at one task", "use more --cores")
        return known(place, *given)

    monkeypatch.setattr(preparation, work, deadly)
    root = write_dataset(tmp_path / "data", 2)
    with pytest.raises(MachineError, match="part/train/good/001: workers died 21 times"):
        prepare_dataset("mvtec3d", root, tmp_path / "cache")


def kill_and_resume(tmp_path, kills, scans):
    root = write_dataset(tmp_path / "data", scans)
    started = time.monotonic()
    assert run(root, cache=tmp_path / "whole").returncode == 0
    span = time.monotonic() - started
    cache, dice = tmp_path / "killed", random.Random(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    interrupted = 0
    for kill in range(kills):
        process = subprocess.Popen(
            command(root, cache=cache), env=environment, stderr=subprocess.DEVNULL
        )
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
            assert len(read_whole(path)) == 3  # whole at every moment
    assert interrupted >= min(2, kills) - 1
    time.sleep(1)  # workers notice that their parent is gone
    assert run(root, cache=cache).returncode == 0
    assert contents(cache) == contents(tmp_path / "whole")
    assert len(list(cache.rglob("*.npz"))) == scans + 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_twice_it_resumes_to_the_same_bytes(tmp_path):
    kill_and_resume(tmp_path, 2, 10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_twenty_times_it_resumes_to_the_same_bytes(tmp_path):
    kill_and_resume(tmp_path, 20, 120)
