"""Prepared scans: what is kept is what was computed, and nothing but what was written is read."""

import io
import json
import logging
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from pirn_jax.geometry import (
    PreparedCache,
    Settings,
    choose_object,
    default_folder,
    prepare_scan,
    remove_background,
    surface_normals,
)
from pirn_jax.geometry.prepared import fingerprint
from pirn_jax.scans import Scan
from pirn_jax.storage import write_arrays
from tests.geometry import surfaces

PLANE, NONE = Settings("grid", "plane"), Settings("grid", "none")


def a_scan(seed=0, **changes):
    xyz, _ = surfaces.part_on_table("dome", size=96, seed=seed)
    scan = Scan(rgb=None, xyz=xyz, valid=(xyz != 0).any(-1))
    return scan._replace(**changes)


def own_normals(scan):
    ready = np.tile(np.float32([0, 0, -1]), (*scan.valid.shape, 1))
    return scan._replace(normals=ready)


def same(one, other):
    """Bit for bit: -0.0 is not 0.0."""
    assert (one.stands, one.notes) == (other.stands, other.notes)
    for a, b in ((one.object, other.object), (one.normals, other.normals)):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("settings", [PLANE, NONE], ids=["plane", "none"])
def test_a_prepared_scan_holds_what_the_functions_give(settings):
    scan = a_scan()
    prepared = prepare_scan(scan, settings)
    part = remove_background(scan.xyz) if settings is PLANE else np.ones((96, 96), bool)
    np.testing.assert_array_equal(prepared.object, part)
    np.testing.assert_array_equal(prepared.normals, surface_normals(scan.xyz, scan.valid & part))
    assert prepared.stands == (settings is PLANE)
    assert prepared.notes == ()


@pytest.mark.parametrize("settings", [PLANE, NONE], ids=["plane", "none"])
def test_what_is_read_is_what_was_computed(tmp_path, settings):
    scan, cache = a_scan(), PreparedCache(tmp_path)
    prepared = prepare_scan(scan, settings)
    assert (np.abs(prepared.normals) > 0).any()
    assert cache.read(scan, settings) is None
    cache.write(scan, settings, prepared)
    same(cache.read(scan, settings), prepared)
    name = fingerprint(scan, settings)
    assert entries(tmp_path) == [tmp_path / name[:2] / f"{name}.npz"]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    scan, first, second = a_scan(), PreparedCache(tmp_path / "a"), PreparedCache(tmp_path / "b")
    first.write(scan, PLANE, prepare_scan(scan, PLANE))
    time.sleep(2.1)  # zip archives keep time to two seconds
    second.write(a_scan(), PLANE, first.read(scan, PLANE))
    (one,), (other,) = entries(first.folder), entries(second.folder)
    assert one.read_bytes() == other.read_bytes()


def test_every_input_and_setting_counts():
    scan = a_scan()
    moved = scan.xyz.copy()
    moved[50, 50, 2] += 1e-6
    prints = [
        fingerprint(scan, PLANE),
        fingerprint(scan._replace(xyz=moved), PLANE),
        fingerprint(scan._replace(valid=np.ones((96, 96), bool)), PLANE),
        fingerprint(scan._replace(normals=scan.xyz), PLANE),
        fingerprint(scan, NONE),
        fingerprint(scan, replace(PLANE, method="open3d")),
        fingerprint(scan, replace(PLANE, seed=1)),
        fingerprint(scan, replace(PLANE, time_limit=1.0)),
    ]
    assert len(set(prints)) == len(prints)
    elsewhere = a_scan(key="test/dent/003", label=1, paths={"xyz": "elsewhere.tiff"})
    assert fingerprint(elsewhere, PLANE) == prints[0]


def test_two_settings_do_not_meet(tmp_path):
    scan, cache = a_scan(), PreparedCache(tmp_path)
    cache.write(scan, NONE, prepare_scan(scan, NONE))
    assert cache.read(scan, PLANE) is None
    cache.write(scan, PLANE, prepare_scan(scan, PLANE))
    assert cache.read(scan, NONE).object.all()
    assert not cache.read(scan, PLANE).object.all()
    assert cache.read(a_scan(seed=1), PLANE) is None
    assert len(entries(tmp_path)) == 2


def test_normals_of_the_scan_are_kept_and_not_stored(tmp_path):
    cache, scan = PreparedCache(tmp_path), own_normals(a_scan())
    prepared = prepare_scan(scan, PLANE)
    np.testing.assert_array_equal(prepared.normals, scan.normals)
    np.testing.assert_array_equal(prepared.object, remove_background(scan.xyz))
    cache.write(scan, PLANE, prepared)
    same(cache.read(scan, PLANE), prepared)
    with np.load(*entries(tmp_path)) as stored:
        assert sorted(stored.files) == ["about", "object"]


def test_scans_without_points_have_only_what_they_bring():
    scan = a_scan(xyz=None)
    photograph, ready = prepare_scan(scan, PLANE), prepare_scan(own_normals(scan), PLANE)
    assert photograph.normals is None
    np.testing.assert_array_equal(ready.normals, own_normals(scan).normals)
    for prepared in (photograph, ready):
        assert prepared.object.all()
        assert not prepared.stands
        assert prepared.notes == ()


def test_odd_scans_say_so(tmp_path):
    scan, cache = a_scan(valid=np.zeros((96, 96), bool)), PreparedCache(tmp_path)
    prepared = prepare_scan(scan, PLANE)
    assert "no plane" in prepared.notes[0]
    cache.write(scan, PLANE, prepared)
    same(cache.read(scan, PLANE), prepared)


def test_fallbacks_of_the_normals_are_notes_and_no_warnings():
    """Threads share the filters of warnings: none may be raised, as they are errors here."""
    few = np.zeros((96, 96), bool)
    few[40, 40] = True
    prepared = prepare_scan(a_scan(valid=few), Settings("open3d", "none"))
    assert prepared.notes == ("1 points are too few for a plane: no normals",)
    assert not prepared.normals.any()


def test_what_was_found_already_is_not_looked_for_again():
    scan = a_scan()
    found = choose_object(scan.xyz, scan.valid, "plane")
    same(prepare_scan(scan, PLANE, found), prepare_scan(scan, PLANE))
    inverse = found._replace(object=~found.object)  # taken as it is given
    np.testing.assert_array_equal(prepare_scan(scan, PLANE, inverse).object, ~found.object)
    without = prepare_scan(scan, PLANE, normals=False)
    assert without.normals is None
    np.testing.assert_array_equal(without.object, found.object)


def rewritten(path, **changes):
    """The entry with other arrays in it."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files} | changes
    write_arrays(path, {name: array for name, array in arrays.items() if array is not None})


def about(path, **changes):
    with np.load(path) as stored:
        document = json.loads(stored["about"].tobytes()) | changes
    return np.frombuffer(json.dumps(document).encode(), np.uint8)[None]


def claiming(path, shape):
    """The entry with normals whose header announces that shape, and none of its bytes."""
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(path) as archive:
        rest = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (rest | {"normals.npy": header.getvalue() + bytes(64)}).items():
            archive.writestr(name, data)


SOME = np.zeros((96, 96, 3), np.float32)
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:300] + bytes(100)),
    "text": lambda path: path.write_text("not an archive"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pickle": lambda path: np.savez(path, about=np.array([{}], object), object=0, normals=0),
    "shape": lambda path: rewritten(path, normals=SOME[1:]),
    "type": lambda path: rewritten(path, normals=SOME.astype(np.float64)),
    "nan": lambda path: rewritten(path, normals=SOME + np.float32(np.nan)),
    "object": lambda path: rewritten(path, object=np.full((96, 96), 2, np.uint8)),
    "missing": lambda path: rewritten(path, normals=None),
    "format": lambda path: rewritten(path, about=about(path, format=1)),
    "other": lambda path: rewritten(path, about=about(path, fingerprint="0" * 64)),
    "stands": lambda path: rewritten(path, about=about(path, stands="yes")),
    "notes": lambda path: rewritten(path, about=about(path, notes=[1])),
    "list": lambda path: rewritten(path, about=np.frombuffer(b"[1, 2]", np.uint8)[None]),
    "endless about": lambda path: rewritten(path, about=np.zeros((1, 1 << 22), np.uint8)),
    "deep": lambda path: rewritten(path, about=np.full((1, 60_000), ord("["), np.uint8)),
    "oversized": lambda path: claiming(path, (1 << 20, 1 << 20, 3)),
    "larger": lambda path: rewritten(path, normals=np.zeros((4000, 4000, 3), np.float32)),
    "other values": lambda path: rewritten(path, normals=SOME),
    "other verdict": lambda path: rewritten(path, about=about(path, stands=False)),
    "members": lambda path: rewritten(path, more=SOME),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_count_as_missing(tmp_path, caplog, damage):
    scan, cache = a_scan(), PreparedCache(tmp_path)
    prepared = prepare_scan(scan, PLANE)
    cache.write(scan, PLANE, prepared)
    (path,) = entries(tmp_path)
    DAMAGES[damage](path)
    with caplog.at_level(logging.WARNING, "pirn_jax"):
        assert cache.read(scan, PLANE) is None
    assert path.name in caplog.text
    assert "computed anew" in caplog.text
    cache.write(scan, PLANE, prepared)  # where a folder is in the way, it is no obstacle
    if damage != "folder":
        same(cache.read(scan, PLANE), prepared)


def test_what_an_entry_announces_is_not_allocated(tmp_path):
    """Compressed a thousandfold, half a gigabyte of zeros is a small file."""
    import tracemalloc

    scan, cache = a_scan(), PreparedCache(tmp_path)
    cache.write(scan, PLANE, prepare_scan(scan, PLANE))
    (path,) = entries(tmp_path)
    rewritten(path, normals=np.zeros((7000, 6000, 3), np.float32))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    assert cache.read(scan, PLANE) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_an_entry_that_leads_elsewhere_is_not_followed(tmp_path, caplog):
    scan, cache = a_scan(), PreparedCache(tmp_path / "cache")
    cache.write(scan, PLANE, prepare_scan(scan, PLANE))
    (path,) = entries(cache.folder)
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    assert cache.read(scan, PLANE) is None
    assert "computed anew" in caplog.text


def test_without_a_folder_nothing_is_kept(tmp_path):
    scan = a_scan()
    prepared = prepare_scan(scan, PLANE)
    nowhere = PreparedCache(None)
    nowhere.write(scan, PLANE, prepared)
    assert nowhere.read(scan, PLANE) is None
    assert PreparedCache(tmp_path / "not there").read(scan, PLANE) is None
    assert default_folder(tmp_path) == tmp_path / "geometry"
