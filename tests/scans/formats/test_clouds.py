"""Organised clouds against Open3D, where its system libraries can be loaded."""

import numpy as np
import pytest

from pirn_jax.scans import read_scan
from tests.scans import layouts
from tests.scans.hostile import clouds

XYZ = layouts.points() + np.random.RandomState(0).rand(12, 16, 3).astype(np.float32) * 1e-4


@pytest.mark.open3d
@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_pcd_against_open3d(tmp_path, kind):
    """Read what Open3D writes, and read what it reads the same way; NaN become zeros."""
    import open3d as o3d

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


@pytest.mark.open3d
@pytest.mark.parametrize("kind", ["ascii", "binary"])
@pytest.mark.parametrize("known_by", ["header", "photograph"])
def test_ply_against_open3d(tmp_path, kind, known_by):
    import open3d as o3d

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
