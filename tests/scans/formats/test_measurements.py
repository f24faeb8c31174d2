"""Points in metres, zeros where not measured; units; depth maps against a pinhole camera."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile

from pirn_jax.errors import BadInputError
from pirn_jax.scans import File, Intrinsics, Limits, Options, read_intrinsics, read_scan
from pirn_jax.scans.formats.measurements import missing_points
from pirn_jax.scans.formats.registration import parse_intrinsics
from tests.scans import layouts

XYZ = layouts.points() + np.random.RandomState(0).rand(12, 16, 3).astype(np.float32) * 1e-4


@pytest.mark.parametrize("missing", [np.nan, 0.0, np.inf, -np.inf])
def test_points_not_measured_become_zeros_and_invalid(tmp_path, missing):
    xyz = XYZ.copy()
    xyz[2, 3] = missing
    xyz[4, 5] = [0.1, 0.0, 0.5]  # one coordinate zero is a point like any other
    xyz[6, 7, 0] = missing if missing else np.nan  # a point is whole or not there
    np.save(tmp_path / "a.npy", xyz)
    scan = read_scan({"xyz": tmp_path / "a.npy"})
    assert not scan.valid[2, 3]
    assert not scan.valid[6, 7]
    assert scan.valid[4, 5]
    assert not scan.xyz[~scan.valid].any()
    assert np.array_equal(scan.xyz[scan.valid], xyz[scan.valid])


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [("m", 1, 1), ("mm", 1000, 1), ("auto", 1, 1), ("auto", 1000, 1), ("mm", 200, 0.2)],
)
def test_units(tmp_path, unit, scale, expected):
    np.save(tmp_path / "a.npy", XYZ * np.float32(scale))
    scan = read_scan({"xyz": tmp_path / "a.npy"}, Options(unit=unit))
    assert np.allclose(scan.xyz, XYZ * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "scale"), [("m", 1000), ("mm", 1), ("auto", 20), ("m", 1e-3), ("auto", 1e6)]
)
def test_implausible_extents_and_doubtful_units_are_refused(tmp_path, unit, scale):
    np.save(tmp_path / "a.npy", XYZ * np.float32(scale))
    with pytest.raises(BadInputError) as caught:
        read_scan({"xyz": tmp_path / "a.npy"}, Options(unit=unit))
    assert "unit" in caught.value.remedy


def test_a_few_stray_points_do_not_decide_about_the_unit(tmp_path):
    xyz = layouts.points(size=(60, 80))
    xyz[5, 5] = 900.0
    np.save(tmp_path / "a.npy", xyz)
    assert read_scan({"xyz": tmp_path / "a.npy"}, Options(unit="auto")).xyz.max() == 900


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tiff"])
def test_depth_maps_become_points_of_a_pinhole_camera(tmp_path, suffix):
    """Each point projects back onto its own pixel, at its own depth."""
    counts = np.random.RandomState(0).randint(400, 600, (12, 16)).astype(np.uint16)
    counts[3, 4] = 0
    camera = Intrinsics(30.0, 31.0, 7.5, 5.25, depth_scale=1e-3)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        layouts.picture(path, counts)
    elif suffix == ".npy":
        np.save(path, counts[..., None].astype(np.float32) / 1000)
    else:
        tifffile.imwrite(path, counts.astype(np.float32) / 1000)
    scan = read_scan({"depth": path}, Options(intrinsics=camera))
    assert not scan.valid[3, 4]
    assert scan.valid.sum() == 191
    rows, columns = np.nonzero(scan.valid)
    x, y, z = scan.xyz[scan.valid].astype(np.float64).T
    assert np.allclose(camera.fx * x / z + camera.cx, columns, atol=1e-4)
    assert np.allclose(camera.fy * y / z + camera.cy, rows, atol=1e-4)
    assert np.allclose(z, counts[scan.valid] / 1000, rtol=1e-6)


def test_counts_without_a_stated_scale_are_refused_with_the_remedy(tmp_path):
    layouts.picture(tmp_path / "a.png", np.full((12, 16), 5000, np.uint16))
    camera = Intrinsics(30.0, 30.0, 8.0, 6.0)
    with pytest.raises(BadInputError, match="scale is not stated") as caught:
        read_scan({"depth": tmp_path / "a.png"}, Options(unit="auto", intrinsics=camera))
    for way in ("depth_scale", "--intrinsics", "--unit mm"):
        assert way in caught.value.remedy
    metres = read_scan(
        {"depth": tmp_path / "a.png"}, Options(intrinsics=replace(camera, depth_scale=1e-4))
    )
    assert np.allclose(metres.xyz[..., 2], 0.5)
    stated = read_scan({"depth": tmp_path / "a.png"}, Options(unit="mm", intrinsics=camera))
    assert np.allclose(stated.xyz[..., 2], 5.0)
    with pytest.raises(BadInputError, match="reach over"):
        read_scan({"depth": tmp_path / "a.png"}, Options(unit="m", intrinsics=camera))


@pytest.mark.parametrize("unit", [1, 1000], ids=["m", "mm"])
@pytest.mark.parametrize("share", [0.01, 0.4])
@pytest.mark.parametrize("mark", [-1, -9999, 9999, 65535, np.finfo(np.float32).max, np.nan])
@pytest.mark.parametrize("whole", [True, False], ids=["whole points", "z alone"])
def test_marks_of_missing_points_equal_zeros(tmp_path, unit, share, mark, whole):
    xyz = layouts.points(size=(60, 80)) * np.float32(unit)
    missing = np.random.RandomState(0).rand(60, 80) < share
    expected = np.where(missing[..., None], np.float32(0), xyz)
    xyz[missing, 0 if whole else 2 :] = mark
    for name, array in (("a", xyz), ("b", expected)):
        np.save(tmp_path / f"{name}.npy", array)
    options = Options(unit="m" if unit == 1 else "mm")
    one, other = (read_scan({"xyz": tmp_path / f"{name}.npy"}, options) for name in "ab")
    assert np.array_equal(one.valid, other.valid)
    assert np.array_equal(one.xyz, other.xyz)


def test_z_of_zero_is_missing_whatever_x_and_y(tmp_path):
    xyz = XYZ.copy()
    xyz[2:4, 3, 2] = 0
    np.save(tmp_path / "a.npy", xyz)
    scan = read_scan({"xyz": tmp_path / "a.npy"})
    assert not scan.valid[2:4, 3].any()
    assert scan.valid[1:].sum() == 11 * 16 - 2


def test_a_level_table_and_one_stray_point_are_no_marks():
    xyz = layouts.points(size=(60, 80))[1:]
    xyz[:, 40:, 2] = 0.56  # a table that is level to the last bit, and away from the part
    xyz[0, 0] = 9.0
    assert not missing_points(xyz).any()


@pytest.mark.parametrize(
    ("signs", "message"),
    [((1, -1, -1), "z is negative"), ((1, 1, -1), "z is negative"), ((1, -1, 1), "flipped"),
     ((-1, 1, 1), "flipped")],
)  # fmt: skip
def test_axes_that_are_not_a_camera_s_are_named(tmp_path, signs, message):
    np.save(tmp_path / "a.npy", XYZ * np.float32(signs))
    with pytest.raises(BadInputError, match=message) as caught:
        read_scan({"xyz": tmp_path / "a.npy"})
    assert "*= -1" in caught.value.remedy


@pytest.mark.parametrize(
    "document",
    [
        {"fx": 30, "fy": 31, "cx": 7.5, "cy": 5.5, "depth_scale": 0.00025},
        {"fx": 30, "fy": 31, "ppx": 7.5, "ppy": 5.5, "depth_scale": 0.00025},
        {"intrinsic_matrix": [30, 0, 0, 0, 31, 0, 7.5, 5.5, 1], "depth_scale": 4000.0},
        {"intrinsic_matrix": [[30, 0, 7.5], [0, 31, 5.5], [0, 0, 1]], "depth_scale": 4000},
        {"K": [30, 0, 7.5, 0, 31, 5.5, 0, 0, 1], "depth_scale": 0.00025},
        {"_fx": 30, "_fy": 31, "_cx": 7.5, "_cy": 5.5, "depth_scale": 0.00025},
        {"intrinsics": {"fx": 30, "fy": 31, "ppx": 7.5, "ppy": 5.5}, "depth_scale": 0.00025},
    ],
)
def test_cameras_as_their_makers_write_them(tmp_path, document):
    (tmp_path / "c.json").write_text(json.dumps(document))
    camera = read_intrinsics(File(tmp_path / "c.json"), Limits())
    assert camera == Intrinsics(30.0, 31.0, 7.5, 5.5, depth_scale=0.00025)


@pytest.mark.parametrize("size", [{}, {"width": 16, "height": 12}, {"_width": 16.0, "_height": 0}])
def test_a_camera_is_of_the_size_of_its_pictures(tmp_path, size):
    """At half the size of the camera's pictures the part would be twice as large."""
    document = {"fx": 30, "fy": 31, "cx": 7.5, "cy": 5.5, **size}
    (tmp_path / "c.json").write_text(json.dumps(document))
    camera = read_intrinsics(File(tmp_path / "c.json"), Limits())
    np.save(tmp_path / "a.npy", np.full((12, 16), 0.5, np.float32))
    read_scan({"depth": tmp_path / "a.npy"}, Options(intrinsics=camera))
    np.save(tmp_path / "a.npy", np.full((24, 32), 0.5, np.float32))
    if not size:
        return
    with pytest.raises(BadInputError, match="24×32 pixels with a camera of"):
        read_scan({"depth": tmp_path / "a.npy"}, Options(intrinsics=camera))
    kept = json.loads(json.dumps(asdict(camera)))  # as a model keeps it
    assert parse_intrinsics(kept, tmp_path) == camera
    with pytest.raises(BadInputError, match="whole pixels"):
        parse_intrinsics({**document, "width": 15.5}, tmp_path)
