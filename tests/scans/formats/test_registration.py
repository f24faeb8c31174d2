"""Geometry under the photograph's pixels: stated scales, and rays of a second camera."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans import (
    CameraCalibration,
    File,
    Intrinsics,
    Limits,
    Options,
    read_camera_calibration,
    read_intrinsics,
    read_scan,
)
from tests.scans import layouts

XYZ = layouts.points() + np.random.RandomState(0).rand(12, 16, 3).astype(np.float32) * 1e-4


def test_camera_files(tmp_path):
    path = tmp_path / "camera.json"
    path.write_text('{"_fx": 552.5, "_fy": 552.5, "_cx": 255.5, "_cy": 191.75, "_frame": "x"}')
    assert read_intrinsics(File(path), Limits()) == Intrinsics(552.5, 552.5, 255.5, 191.75)
    pose = {"rotation": np.eye(3).tolist(), "translation": [0, 0, 0.1]}
    camera = {"fx": 1, "fy": 2, "cx": 3, "cy": 4}
    path.write_text(json.dumps({"rgb": camera, **pose}))
    calibration = read_camera_calibration(File(path), Limits())
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
            read_camera_calibration(File(path), Limits())


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
    calibration = CameraCalibration(
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
    calibration = CameraCalibration(Intrinsics(30.0, 30.0, 8.0, 6.0), away, (0.0, 0.0, 0.0))
    other = replace(calibration, camera=replace(calibration.camera, width=32, height=24))
    for given, message in (
        (calibration, "no measured point falls into the photograph"),
        (other, "12×16 pixels with a camera of 24×32"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_scan(
                {"rgb": tmp_path / "a.png", "xyz": tmp_path / "a.npy"},
                Options(calibration=given),
            )
