"""Point maps and clouds against tifffile, Open3D and analytic cameras; units; registration."""

import io
import json

import numpy as np
import pytest
import tifffile

from pirn_jax.errors import BadInputError
from pirn_jax.scans import (
    Calibration,
    File,
    Intrinsics,
    Limits,
    Options,
    read_calibration,
    read_intrinsics,
    read_scan,
)
from tests.scans import layouts
from tests.scans.hostile import clouds

XYZ = layouts.points() + np.random.RandomState(0).rand(12, 16, 3).astype(np.float32) * 1e-4


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_tiff_encoding_of_points(tmp_path, compression, predictor, rows, byteorder, dtype):
    array = XYZ.astype(dtype)
    data = layouts.tiff_bytes(array, compression, predictor, rows, byteorder)
    (tmp_path / "a.tiff").write_bytes(data)
    if compression == "none" and predictor != 1:  # read differently by libtiff and tifffile
        with pytest.raises(BadInputError, match="predictor without compression"):
            read_scan({"xyz": tmp_path / "a.tiff"})
        return
    scan = read_scan({"xyz": tmp_path / "a.tiff"})
    assert np.array_equal(scan.xyz, array.astype(np.float32))
    if compression != "lzw" and predictor != 3:  # those need a further package in tifffile
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), array)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"rowsperstrip": 2}, {"bigtiff": True}]
)
def test_tiffs_written_by_tifffile(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tiff", XYZ, photometric="rgb", **options)
    assert np.array_equal(read_scan({"xyz": tmp_path / "a.tiff"}).xyz, XYZ)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_and_npz(tmp_path, dtype, order):
    array = np.asarray(XYZ.astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", xyz=array, other=np.zeros(3))
    np.savez_compressed(tmp_path / "c.npz", anything=array)
    for name in ("a.npy", "b.npz", "c.npz"):
        assert np.array_equal(read_scan({"xyz": tmp_path / name}).xyz, array.astype(np.float32))


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_pcd_against_open3d(tmp_path, kind):
    """Read what Open3D writes, and read what it reads the same way; NaN become zeros."""
    o3d = pytest.importorskip("open3d")
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(XYZ.reshape(-1, 3).astype(float)))
    cloud.colors = o3d.utility.Vector3dVector(np.random.RandomState(0).rand(192, 3))
    path = tmp_path / "a.pcd"
    o3d.io.write_point_cloud(
        str(path), cloud, write_ascii=kind == "ascii", compressed=kind == "binary_compressed"
    )
    data = path.read_bytes().replace(b"WIDTH 192\nHEIGHT 1\n", b"WIDTH 16\nHEIGHT 12\n")
    path.write_bytes(data)
    assert f"DATA {kind}".encode() in data
    expected = np.asarray(o3d.io.read_point_cloud(str(path)).points).reshape(12, 16, 3)
    assert np.array_equal(read_scan({"xyz": path}).xyz, expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["ascii", "binary"])
@pytest.mark.parametrize("known_by", ["header", "photograph"])
def test_ply_against_open3d(tmp_path, kind, known_by):
    o3d = pytest.importorskip("open3d")
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(XYZ.reshape(-1, 3).astype(float)))
    cloud.colors = o3d.utility.Vector3dVector(np.random.RandomState(0).rand(192, 3))
    path = tmp_path / "a.ply"
    o3d.io.write_point_cloud(str(path), cloud, write_ascii=kind == "ascii")
    files = {"xyz": path}
    if known_by == "header":
        head, mark, rest = path.read_bytes().partition(b"element vertex")
        path.write_bytes(head + b"obj_info num_cols 16\nobj_info num_rows 12\n" + mark + rest)
    else:
        layouts.picture(tmp_path / "a.png", layouts.photograph())
        files["rgb"] = tmp_path / "a.png"
    expected = np.asarray(o3d.io.read_point_cloud(str(path)).points).reshape(12, 16, 3)
    assert np.allclose(read_scan(files).xyz, expected, atol=1e-6)


def test_ply_in_big_endian_with_faces_behind(tmp_path):
    notes = ("comment width 16", "comment height 12")
    data = clouds.ply("binary_big_endian 1.0", notes=notes, body=XYZ.astype(">f4").tobytes())
    data = data.replace(
        b"end_header", b"element face 1\nproperty list uchar int vertex_indices\nend_header"
    )
    (tmp_path / "a.ply").write_bytes(data + b"\x03" + bytes(12))
    assert np.array_equal(read_scan({"xyz": tmp_path / "a.ply"}).xyz, XYZ)


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


def test_camera_files(tmp_path):
    path = tmp_path / "camera.json"
    path.write_text('{"_fx": 552.5, "_fy": 552.5, "_cx": 255.5, "_cy": 191.75, "_frame": "x"}')
    assert read_intrinsics(File(path), Limits()) == Intrinsics(552.5, 552.5, 255.5, 191.75)
    pose = {"rotation": np.eye(3).tolist(), "translation": [0, 0, 0.1]}
    camera = {"fx": 1, "fy": 2, "cx": 3, "cy": 4}
    path.write_text(json.dumps({"rgb": camera, **pose}))
    calibration = read_calibration(File(path), Limits())
    assert calibration.camera == Intrinsics(1.0, 2.0, 3.0, 4.0)
    assert calibration.translation == (0.0, 0.0, 0.1)
    for change in (
        {"rotation": (np.eye(3) * 2).tolist()},
        {"rotation": np.diag([1, 1, -1]).tolist()},
        {"translation": [0, 0, 100]},
        {"translation": [0, 0]},
        {"rgb": []},
    ):
        path.write_text(json.dumps({"rgb": camera, **pose, **change}))
        with pytest.raises(BadInputError):
            read_calibration(File(path), Limits())


@pytest.fixture
def mixed_sizes(tmp_path):
    layouts.picture(tmp_path / "a.png", layouts.photograph(size=(24, 32)))
    np.save(tmp_path / "a.npy", XYZ)
    return {"rgb": tmp_path / "a.png", "xyz": tmp_path / "a.npy"}


@pytest.mark.parametrize("options", [{"scale": 2.0}, {"assume_aligned": True}])
def test_geometry_of_half_the_size_covers_two_by_two_pixels(mixed_sizes, options):
    scan = read_scan(mixed_sizes, Options(**options))
    assert scan.xyz.shape == (24, 32, 3)
    assert np.array_equal(scan.xyz, np.repeat(np.repeat(XYZ, 2, 0), 2, 1))


def test_sizes_that_differ_need_a_reason(mixed_sizes):
    with pytest.raises(BadInputError, match="how they lie over each other is not known"):
        read_scan(mixed_sizes)
    with pytest.raises(BadInputError, match="does not cover"):
        read_scan(mixed_sizes, Options(scale=3.0))


def test_calibrated_geometry_lies_under_the_pixels_that_see_it(tmp_path):
    """A plane and a nearer patch, seen by a second camera: compared with rays from that camera."""
    size, grid = (60, 80), (90, 120)
    depth = np.full(size, 0.6, np.float32)
    depth[20:40, 30:50] = 0.5
    camera = Intrinsics(80.0, 80.0, 39.5, 29.5)
    np.save(tmp_path / "a.npy", depth)
    layouts.picture(tmp_path / "a.png", layouts.photograph(size=grid))
    turn = np.deg2rad(4.0)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    translation = np.array([-0.05, 0.004, 0.01])
    rgb = Intrinsics(118.0, 118.0, 59.5, 44.5)
    calibration = Calibration(
        rgb, tuple(tuple(map(float, row)) for row in rotation), tuple(map(float, translation))
    )
    scan = read_scan(
        {"rgb": tmp_path / "a.png", "depth": tmp_path / "a.npy"},
        Options(intrinsics=camera, calibration=calibration),
    )
    # Each point, seen by the photograph's camera, falls near its pixel: within its own footprint.
    rows, columns = np.nonzero(scan.valid)
    x, y, z = scan.xyz[scan.valid].astype(np.float64).T
    assert np.abs(rgb.fx * x / z + rgb.cx - columns).max() <= 1.1
    assert np.abs(rgb.fy * y / z + rgb.cy - rows).max() <= 1.1
    # Undo the pose: points lie on the plane or the patch, and nowhere between.
    back = (scan.xyz[scan.valid] - translation) @ rotation
    assert np.min(np.abs(back[:, 2:] - [0.5, 0.6]), axis=1).max() < 1e-5
    # Rays to the patch's inside must hit the patch, however far behind it the plane goes on.
    inside = np.stack(np.meshgrid([-0.04, 0.0, 0.03], [-0.03, 0.0, 0.04]), -1).reshape(-1, 2)
    for u, v in inside:
        point = rotation @ np.array([u, v, 0.5]) + translation
        column = round(rgb.fx * point[0] / point[2] + rgb.cx)
        row = round(rgb.fy * point[1] / point[2] + rgb.cy)
        near = (scan.xyz[row, column] - translation) @ rotation
        assert abs(near[2] - 0.5) < 1e-5
    # The field that both see is filled without gaps.
    assert scan.valid[20:70, 20:80].mean() > 0.97


def test_calibration_that_misses_the_photograph_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", XYZ)
    layouts.picture(tmp_path / "a.png", layouts.photograph())
    away = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
    calibration = Calibration(Intrinsics(30.0, 30.0, 8.0, 6.0), away, (0.0, 0.0, 0.0))
    with pytest.raises(BadInputError, match="no measured point falls into the photograph"):
        read_scan(
            {"rgb": tmp_path / "a.png", "xyz": tmp_path / "a.npy"},
            Options(calibration=calibration),
        )
