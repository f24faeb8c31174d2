"""Nearest points of an organised cloud against those of a tree of all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from pirn_jax.geometry.patches import furthest_points, nearest_pixels, nearest_points


@pytest.fixture(scope="module")
def cloud():
    """A curved surface of 24 x 20 points with holes, in metres."""
    random = np.random.default_rng(0)
    down, right = np.mgrid[:24, :20] + random.random((2, 24, 20)) / 3
    points = np.stack([right, down, 300 + 0.01 * right**2 + np.sin(down / 4)], -1) / 1000
    points[random.random((24, 20)) < 0.1] = 0
    return points.astype(np.float32)


def test_centres_are_the_first_point_and_then_the_farthest(cloud):
    flat = cloud.reshape(-1, 3)
    valid = flat.any(-1)
    found = np.asarray(furthest_points(jnp.asarray(flat), jnp.asarray(valid), 6))
    chosen, places = [int(valid.argmax())], np.flatnonzero(valid)
    while len(chosen) < 6:
        away, _ = cKDTree(flat[chosen]).query(flat[places])
        chosen.append(int(places[away.argmax()]))
    assert found.tolist() == chosen


def test_near_pixels_hold_the_nearest_points(cloud):
    flat = cloud.reshape(-1, 3)
    measured = np.flatnonzero(flat.any(-1))
    centres = measured[[0, 7, len(measured) // 2, -1]].astype(np.int32)
    places = jax.jit(nearest_pixels, static_argnums=(2, 3))(cloud, centres, 30, 8)
    _, which = cKDTree(flat[measured]).query(flat[centres], 30)
    np.testing.assert_array_equal(places, measured[which])
    valid = jnp.asarray(flat.any(-1))
    same = nearest_points(jnp.asarray(flat), valid, jnp.asarray(flat[centres]), 30)
    np.testing.assert_array_equal(places, same)


def test_the_centre_stands_in_for_points_that_are_missing(cloud):
    alone = np.zeros_like(cloud)
    alone[3, 4], alone[5, 6] = cloud[3, 5], cloud[5, 7]
    centre = jnp.array([3 * 20 + 4], jnp.int32)
    found = np.asarray(nearest_pixels(jnp.asarray(alone), centre, 4, 3))[0]
    assert found.tolist() == [64, 106, 64, 64]
    nothing = jnp.zeros_like(jnp.asarray(cloud))
    assert nearest_pixels(nothing, centre, 4, 3).tolist() == [[64] * 4]
