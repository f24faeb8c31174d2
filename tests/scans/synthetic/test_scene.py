"""Camera, light and sensor against planes, rays and shadows drawn by hand."""

import numpy as np
import pytest

from pirn_jax.scans.synthetic.generator import CATEGORIES, open_synthetic
from pirn_jax.scans.synthetic.parts import KINDS
from pirn_jax.scans.synthetic.scene import blocked, facing_normals, focal_length, points, take_view


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_scan_is_plausible(category):
    size = 256
    scan = open_synthetic(category, size=size).train[0]
    assert scan.rgb.dtype == np.uint8
    assert scan.rgb.shape == scan.xyz.shape == (size, size, 3)
    assert scan.xyz.dtype == np.float32
    assert np.array_equal(scan.valid, scan.xyz.any(-1))
    assert np.all(scan.xyz[~scan.valid] == 0)
    assert 0.0 < 1 - scan.valid.mean() < 0.25
    x, y, z = scan.xyz[scan.valid].T
    assert 0.35 < z.min() < z.max() < 0.75
    # Organised: every point lies on its pixel's ray.
    row, column = np.nonzero(scan.valid)
    focal = focal_length(KINDS[category], size)
    np.testing.assert_allclose(x / z * focal + (size - 1) / 2, column, atol=1e-3)
    np.testing.assert_allclose(y / z * focal + (size - 1) / 2, row, atol=1e-3)
    # The part: what stands more than 5 mm above the plane of the border.
    edge = (np.minimum(row, column) < 8) | (np.maximum(row, column) >= size - 8)
    design = np.column_stack([x, y, np.ones_like(x)]).astype(float)
    plane = np.linalg.lstsq(design[edge], z[edge].astype(float), rcond=None)[0]
    lifted = design @ plane - z
    assert np.abs(lifted[edge]).max() < 0.001
    part = lifted > 0.005
    assert 0.12 < part.mean() < 0.6
    extent = np.hypot(np.ptp(x[part]), np.ptp(y[part]))
    assert 0.06 < extent < 0.14
    assert not edge[part].any()


def test_the_table_is_a_plane_and_its_normals_are_right():
    view = take_view(np.random.default_rng(3), KINDS["rope"], 96)
    for height in (0.0, 0.02):  # parallel planes, as far apart as the height says
        xyz = points(view, np.full((96, 96), height))
        slope_x, slope_y, distance = np.linalg.lstsq(
            np.column_stack([xyz[..., :2].reshape(-1, 2), np.ones(96 * 96)]),
            xyz[..., 2].ravel(),
        )[0]
        normal = np.array([slope_x, slope_y, -1]) / np.sqrt(slope_x**2 + slope_y**2 + 1)
        np.testing.assert_allclose(
            facing_normals(xyz), np.broadcast_to(normal, xyz.shape), atol=1e-8
        )
        if height == 0:
            table, table_distance = normal, distance
    np.testing.assert_allclose(normal, table, atol=1e-9)
    assert (table_distance - distance) * -normal[2] == pytest.approx(0.02, abs=1e-9)


def test_a_shadow_is_as_long_as_the_light_is_low():
    height = np.zeros((128, 128))
    height[:, 60:64] = 0.010  # a wall; light from the left at 10 mm of height per 20 mm
    shadow = blocked(height, 0.001, np.pi, 0.5, 1e-6)[64] > 0.5
    assert not shadow[:64].any()
    lengths = np.flatnonzero(shadow) - 63
    assert lengths.min() == 1
    assert abs(lengths.max() - 20) <= 2
