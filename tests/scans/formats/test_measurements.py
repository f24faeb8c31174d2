"""Points in metres, zeros where not measured; units; depth maps against a pinhole camera."""

import numpy as np
import pytest
import tifffile

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Intrinsics, Options, read_scan
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


def test_depth_units_without_a_stated_scale(tmp_path):
    layouts.picture(tmp_path / "a.png", np.full((12, 16), 500, np.uint16))
    camera = Intrinsics(30.0, 30.0, 8.0, 6.0)
    for unit in ("mm", "auto"):
        scan = read_scan({"depth": tmp_path / "a.png"}, Options(unit=unit, intrinsics=camera))
        assert np.allclose(scan.xyz[..., 2], 0.5)
    with pytest.raises(BadInputError, match="reach over"):
        read_scan({"depth": tmp_path / "a.png"}, Options(unit="m", intrinsics=camera))
