"""Point feature histograms against Open3D's, and against what they must be."""

import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.geometry.fpfh import BINS, fpfh, offsets
from pirn_jax.geometry.normals import grid_normals

PITCH = 0.001


def bumps(side: int, seed: int = 0):
    """A wavy height map with a hole, and its normals."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] * PITCH
    z = 0.4 + 0.002 * np.sin(900 * rows) * np.cos(700 * columns)
    z += 5e-5 * random.standard_normal(z.shape)
    xyz = np.stack([columns, rows, z], -1).astype(np.float32)
    xyz[5:9, 3:8] = 0
    valid = (xyz != 0).any(-1)
    normals = np.asarray(grid_normals(jnp.asarray(xyz), jnp.asarray(valid), 5))
    return xyz, normals


@pytest.mark.open3d
def test_histograms_are_open3ds_where_neighbours_and_normals_are_the_same():
    """Within a radius that the disc of pixels holds; a bin's edge falls either way here and there.

    Open3D counts in double precision, and a point whose θ lies on an edge goes the other way.
    """
    from pirn_jax.geometry.open3d_import import load_open3d

    open3d = load_open3d()
    xyz, normals = bumps(32)
    radius = 3.6 * PITCH  # no neighbour lies on it
    found = np.asarray(fpfh(jnp.asarray(xyz), jnp.asarray(normals), radius, 13))
    use = (normals != 0).any(-1)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz[use].astype(float)))
    cloud.normals = open3d.utility.Vector3dVector(normals[use].astype(float))
    search = open3d.geometry.KDTreeSearchParamRadius(radius)
    expected = open3d.pipelines.registration.compute_fpfh_feature(cloud, search).data.T
    assert use.sum() > 900
    away = np.abs(found[use] - expected).max(-1)
    assert np.median(away) < 1e-3
    assert np.mean(away < 1) > 0.9
    assert np.abs(found[use] - expected).mean() < 0.02


def test_histograms_by_plain_loops():
    xyz, normals = bumps(9, seed=1)
    reach, radius = 4, 1.9 * PITCH
    found = np.asarray(fpfh(jnp.asarray(xyz), jnp.asarray(normals), radius, reach))
    use = (normals != 0).any(-1)
    points, vectors = xyz.astype(float), normals.astype(float)

    def near(place):
        for step in offsets(reach):
            other = tuple(np.add(place, step))
            if min(other) < 0 or max(other) > 8 or not use[other]:
                continue
            if np.linalg.norm(points[other] - points[place]) <= radius:
                yield other

    def angles(one, other):
        line = points[other] - points[one]
        line /= np.linalg.norm(line)
        pair = [(one, other, line), (other, one, -line)]
        source, target, line = max(pair, key=lambda p: abs(vectors[p[0]] @ p[2]))
        u, n = vectors[source], vectors[target]
        v = np.cross(line, u)
        v /= np.linalg.norm(v)
        return np.arctan2(np.cross(u, v) @ n, u @ n), v @ n, u @ line

    def simple(place):
        total, count = np.zeros((3, BINS)), 0
        for other in near(place):
            count += 1
            for row, (value, reach) in enumerate(
                zip(angles(place, other), (np.pi, 1, 1), strict=True)
            ):
                total[row] += np.histogram(value, BINS, (-reach, reach))[0]
        return 100 * total / max(count, 1)

    every = {place: simple(place) for place in np.ndindex(9, 9) if use[place]}
    for place, own in every.items():
        around = np.zeros((3, BINS))
        for other in near(place):
            around += every[other] / ((points[other] - points[place]) ** 2).sum()
        total = around.sum(-1, keepdims=True)
        expected = own + 100 * around / np.where(total > 0, total, 1)
        np.testing.assert_allclose(found[place], expected.ravel(), atol=0.02)
    assert len(every) > 30
    assert not found[~use].any()


def test_a_plane_is_one_bin_of_each_and_a_turned_part_the_same():
    rows, columns = np.mgrid[:12, :12] * PITCH
    xyz = np.stack([columns, rows, np.full_like(rows, 0.4)], -1).astype(np.float32)
    normals = np.broadcast_to(np.float32([0, 0, -1]), xyz.shape)
    plane = np.asarray(fpfh(jnp.asarray(xyz), jnp.asarray(normals)))
    expected = np.zeros((3, BINS))
    expected[:, BINS // 2] = 200
    np.testing.assert_allclose(plane[6, 6], expected.ravel(), atol=1e-3)
    xyz, normals = bumps(20)
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    ).astype(np.float32)
    own = np.asarray(fpfh(jnp.asarray(xyz), jnp.asarray(normals)))
    other = np.asarray(fpfh(jnp.asarray(xyz @ turn.T), jnp.asarray(normals @ turn.T)))
    assert np.abs(own - other).mean() < 0.05
    counted = own[(normals != 0).any(-1)].reshape(-1, 3, BINS).sum(-1)
    np.testing.assert_allclose(counted, 200, rtol=1e-4)
