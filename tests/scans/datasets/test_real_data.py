"""The real sets, where they are at hand, through the same loaders."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pirn_jax.scans import (
    File,
    Limits,
    Options,
    choose_shots,
    open_dataset,
    read_intrinsics,
    read_scan,
)


def test_tire(shared):
    """MVTec 3D-AD as released, but for its point clouds, which could not be had."""
    data = open_dataset("mvtec3d", shared / "data/mvtec3d_rgb", "tire", modalities=("rgb",))
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 8, 58)
    assert set(data.test.defects) == {"good", "contamination", "cut", "hole", "combined"}
    named = {253: "hole", 254: "cut", 255: "contamination"}  # the release's class_ids.json
    for scan in data.test:
        assert scan.rgb.shape == (800, 600, 3)
        assert scan.mask.shape == (800, 600)
        marked = {named[value] for value in np.unique(scan.mask) if value}
        assert (scan.label == 1) == bool(marked)
        if scan.defect not in ("good", "combined"):
            assert marked == {scan.defect}  # grey values keep their defects' names
        if scan.defect == "combined":
            assert len(marked) >= 2
    assert len(choose_shots(data.train.keys, 5, 0, "mvtec3d", "tire")) == 5


def test_road(shared):
    """Real photographs and geometry in the MVTec 3D-AD layout."""
    data = open_dataset("mvtec3d", shared / "data/mvtec3d_rgbxyz", "road")
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 6, 40)
    for scan in (*data.train[:2], *data.test[::5]):
        assert scan.rgb.shape == scan.xyz.shape == (256, 256, 3)
        assert np.isfinite(scan.xyz).all()
        assert 0.5 < scan.valid.mean() <= 1
        extent = np.ptp(scan.xyz[scan.valid], axis=0)
        assert np.allclose(extent[:2], 0.255, atol=2e-3)  # x and y are pixels of 1 mm


@pytest.mark.parametrize(
    ("category", "counts", "size"),
    [("cookie", (16, 29, 32), (768, 576)), ("hazelnut_toy", (19, 15, 17), (512, 512))],
)
def test_mvtec2d_sets(shared, category, counts, size):
    data = open_dataset("mvtec2d", shared / "data/mvtec2d", category)
    good, bad = data.test.labels.count(0), data.test.labels.count(1)
    assert (len(data.train), good, bad) == counts
    for scan in data.test[:: len(data.test) // 6]:
        assert scan.rgb.shape == (*size, 3)
        assert scan.mask.any() == (scan.label == 1)


def test_phoxi_depth_with_its_camera(shared, tmp_path):
    """Structured-light depth of half the photograph's size, arranged as an own folder."""
    source = shared / "data/phoxi"
    for number in range(3):
        depth = np.load(source / f"depth_{number}.npy")
        np.save(tmp_path / f"{number}_depth.npy", depth)
        shutil.copy(source / f"color_{number}.png", tmp_path / f"{number}.png")
    camera = read_intrinsics(File(source / "phoxi.intr"), Limits())
    shutil.copy(source / "phoxi.intr", tmp_path / "intrinsics.json")
    data = open_dataset("folder", tmp_path, "", scale=2.0)
    assert len(data.test) == 3
    for number, scan in enumerate(data.test):
        depth = np.load(source / f"depth_{number}.npy")[..., 0]
        assert scan.rgb.shape == scan.xyz.shape == (772, 1032, 3)
        assert np.array_equal(scan.xyz[::2, ::2, 2], np.nan_to_num(depth))
        assert np.array_equal(scan.valid[1::2, 1::2], np.nan_to_num(depth) > 0)
        row, column = np.argwhere(depth > 0)[1000]
        x = depth[row, column] * (column - camera.cx) / camera.fx
        assert scan.xyz[2 * row, 2 * column, 0] == pytest.approx(x, rel=1e-5)


def test_phoxi_depth_as_16_bit_png(shared, tmp_path):
    source = shared / "data/phoxi"
    depth = np.load(source / "depth_0.npy")[..., 0]
    counts = np.rint(np.nan_to_num(depth) * 10_000).astype(np.uint16)
    Image.fromarray(counts).save(tmp_path / "a.png")
    camera = replace(read_intrinsics(File(source / "phoxi.intr"), Limits()), depth_scale=1e-4)
    scan = read_scan({"depth": tmp_path / "a.png"}, Options(intrinsics=camera))
    assert np.abs(scan.xyz[..., 2] - np.nan_to_num(depth)).max() <= 0.5e-4 + 1e-6


@pytest.mark.open3d
@pytest.mark.parametrize("name", ["test42", "test5"])
def test_organized_clouds_against_open3d(shared, name):
    import open3d as o3d

    path = shared / "data/organized_pcd" / f"{name}.pcd"
    scan = read_scan({"xyz": path})
    points = o3d.t.io.read_point_cloud(str(path)).point.positions.numpy()
    expected = np.nan_to_num(points.reshape(480, 640, 3))
    assert np.array_equal(scan.xyz, expected)
    assert np.array_equal(scan.valid, np.isfinite(points).all(-1).reshape(480, 640))


def test_eyecandies_shipped_normals_point_towards_the_sensor(shared):
    scan = read_scan(
        {
            "rgb": shared / "data/eyecandies_sample/image_5.jpg",
            "normals": shared / "data/eyecandies_sample/normals.jpg",
        }
    )
    assert scan.normals.shape == (512, 512, 3)
    # The side walls run along the line of sight: their z is 0 but for the steps of 8 bits.
    assert (scan.normals[scan.valid][:, 2] < 0.03).mean() > 0.999
    assert (scan.normals[scan.valid][:, 2] < -0.3).mean() > 0.8
