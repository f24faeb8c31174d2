"""Against SciPy, on masks with single pixels, holes, spirals, borders, and none at all."""

import numpy as np
import pytest
from scipy import ndimage, spatial
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pirn_jax import pixels


def spiral(size: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    for start in range(0, size // 2, 4):
        mask[start, start : size - start] = mask[start : size - start, size - start - 1] = True
        mask[size - start - 1, start + 2 : size - start] = True
        mask[start + 2 : size - start, start] = True
        mask[start + 2, start - 2 : start + 1] = True
    return mask


MASKS = {
    **{f"density{d}": np.random.default_rng(d).random((37, 53)) < d / 100 for d in (2, 30, 45, 90)},
    "spiral": spiral(40),
    "empty": np.zeros((5, 9), bool),
    "full": np.ones((4, 6), bool),
    "comb": np.tile(np.array([[True, False]]), (9, 8)) | (np.arange(9)[:, None] == 8),
    "corner": np.eye(3, dtype=bool),
}
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


@masks
@pytest.mark.parametrize("corners", [True, False])
def test_parts_are_scipys(mask, corners):
    shape = np.ones((3, 3)) if corners else ndimage.generate_binary_structure(2, 1)
    expected, count = ndimage.label(mask, shape)
    found, found_count = pixels.label(mask, corners=corners)
    np.testing.assert_array_equal(found, expected)
    assert found_count == count
    assert pixels.windows(found, count) == ndimage.find_objects(expected)


@masks
def test_dilation_is_scipys(mask):
    np.testing.assert_array_equal(
        pixels.dilate(mask), ndimage.binary_dilation(mask, np.ones((3, 3)))
    )


@masks
@pytest.mark.parametrize("times", [1, 2])
def test_erosion_is_scipys(mask, times):
    expected = ndimage.binary_erosion(mask, iterations=times)
    np.testing.assert_array_equal(pixels.erode(mask, times), expected)


@masks
def test_distances_are_scipys_up_to_the_reach(mask):
    reach = 6.4
    expected = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    found = pixels.distance_within(mask, reach)
    near = expected <= reach
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-12)
    assert np.isinf(found[~near]).all()


@masks
def test_the_nearest_is_as_near_as_scipys(mask):
    if not mask.any():
        return
    expected = ndimage.distance_transform_edt(~mask)
    asked = np.random.default_rng(0).random(mask.shape) < 0.7
    row, column = pixels.nearest(mask, asked)
    assert mask[row, column].all()
    here = np.argwhere(asked)
    distance = np.hypot(row - here[:, 0], column - here[:, 1])
    np.testing.assert_allclose(distance, expected[asked], rtol=1e-12)


@pytest.mark.parametrize(("total", "ties"), [(1, 0), (50, 20), (2000, 2100), (2000, 9000)])
def test_groups_are_scipys(total, ties):
    pairs = np.random.default_rng(total + ties).integers(0, total, (2, ties))
    if ties > 2000:  # and a chain, the longest path there is
        pairs = np.concatenate([pairs, np.stack([np.arange(total - 1), np.arange(1, total)])], 1)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(total, total))
    count, expected = connected_components(graph, directed=False)
    found = pixels.connected(pairs, total)
    assert len(np.unique(found)) == count == found.max() + 1
    assert len(np.unique(np.stack([found, expected]), axis=1).T) == count  # one to one


@pytest.mark.parametrize("kind", ["disc", "square", "few", "far"])
def test_hulls_are_scipys(kind):
    random = np.random.default_rng(1)
    points = {
        "disc": random.standard_normal((4000, 2)),
        "square": np.argwhere(np.ones((30, 20))).astype(float),
        "few": random.random((3, 2)),
        "far": 1e3 + 1e-3 * random.random((500, 2)),
    }[kind]
    expected = points[spatial.ConvexHull(points).vertices]
    found = pixels.hull(points)

    def area(corners: np.ndarray) -> float:
        x, y = (corners - corners[0]).T
        return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))

    assert area(found) == pytest.approx(area(expected), rel=1e-9)
    if kind != "square":  # of which qhull may keep points on a side
        assert sorted(map(tuple, found)) == sorted(map(tuple, expected))


def test_the_hull_of_a_line_is_its_ends():
    line = np.linspace([0.0, 0.0], [2.0, 1.0], 9)
    found = pixels.hull(line)
    assert {(0.0, 0.0), (2.0, 1.0)} <= set(map(tuple, found))
