"""Pseudo-defects: on the part, of a defect's size, different each time, the same from one seed."""

import numpy as np
import pytest
from scipy import ndimage

from pirn_jax.geometry.augmentation import augment, spoiled
from pirn_jax.geometry.pseudo_defects import (
    _dented,
    _leaning,
    _patch,
    _spoiled_normals,
    _spoiled_photograph,
    spoil,
)

from .test_augmentation import SIZE, views

SEEDS = range(40)


def changed(found, shot, name):
    return (np.abs(getattr(found, name) - getattr(shot, name)) > 1e-6).any(-1)


def test_what_is_no_part_stays_and_the_part_changes_in_places_alone():
    shot = views()
    for seed in SEEDS:
        found = spoil(shot, np.random.default_rng(seed))
        for name in ("rgb", "normals", "points"):
            spoilt = changed(found, shot, name)
            assert not spoilt[~shot.valid].any(), name
            assert spoilt.sum() < 0.4 * shot.valid.sum(), name
            assert np.isfinite(getattr(found, name)).all()
        for name in ("rgb", "normals"):
            picture = getattr(found, name)
            assert picture.dtype == np.float32
            assert picture.min() >= 0
            assert picture.max() <= 1
        defined = found.normals.any(-1)
        length = np.linalg.norm(2 * found.normals[defined] - 1, axis=-1)
        np.testing.assert_allclose(length, 1, atol=1e-4)
        np.testing.assert_array_equal(found.valid, shot.valid)


def test_the_same_places_are_spoiled_in_all_pictures():
    shot, apart = views(), 0
    for seed in SEEDS:
        found = spoil(shot, np.random.default_rng(seed))
        near = ndimage.binary_dilation(changed(found, shot, "points"), iterations=2)
        for name in ("rgb", "normals"):
            apart += (changed(found, shot, name) & ~near).sum()
    assert apart == 0


def test_patches_are_of_all_places_shapes_and_sizes():
    valid = views().valid
    depths = [_patch(valid, np.random.default_rng(seed)) for seed in range(200)]
    areas = np.array([(depth > 0).sum() for depth in depths])
    assert areas.min() < 5
    assert areas.max() > 40
    assert all(0 < depth.max() <= 1 for depth in depths)
    covered = np.any([depth > 0 for depth in depths], 0)
    assert covered[valid].mean() > 0.9
    assert not covered[~valid].any()


def test_the_seed_and_the_shot_decide():
    shot = views()
    first, again, other = (list(augment(shot, spoiled(3), seed)) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.normals, b.normals)
    assert not np.array_equal(first[1].rgb, other[1].rgb)
    assert not np.array_equal(first[1].normals, first[2].normals)


@pytest.mark.parametrize("seed", range(6))
def test_a_dent_leans_vectors_all_towards_its_middle_or_all_from_it(seed):
    """On a plane seen from above, whose vectors have no other way to lean."""
    flat = np.tile(np.array([0, 0, -1], np.float32), (SIZE, SIZE, 1))
    down, right = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    depth = np.clip(1 - np.hypot(down, right) / 12, 0, 1).astype(np.float32)
    found = _leaning(flat, depth, np.random.default_rng(seed))
    lean = found[..., :2]
    outward = np.stack([right, down], -1) / np.maximum(np.hypot(down, right), 1)[..., None]
    along = (lean * outward).sum(-1)
    ring = (depth > 0.3) & (depth < 0.7)
    assert 0.15 < np.abs(along[ring]).min() < np.abs(along[ring]).max() < 1.6
    assert len(np.unique(np.sign(along[ring]))) == 1
    assert np.abs(lean - along[..., None] * outward)[ring].max() < 0.1
    beyond = ndimage.binary_dilation(depth > 0)
    np.testing.assert_array_equal(found[~beyond], flat[~beyond])


def test_points_are_dented_along_the_optical_axis_by_a_share_of_the_part():
    points = views().points
    measured = (points != 0).any(-1)
    extent = np.ptp(points[measured][:, :2], axis=0).max()
    depth = np.where(measured, 1, 0).astype(np.float32)
    heights = []
    for seed in SEEDS:
        moved = _dented(points, depth, np.random.default_rng(seed)) - points
        assert not moved[..., :2].any()
        assert not moved[~measured].any()
        heights.append(moved[measured][0, 2] / extent)
    assert 0.004 < np.abs(heights).min() < np.abs(heights).max() < 0.051
    assert min(heights) < 0 < max(heights)


def kinds_of(count):
    """A seed whose first draw among so many is each of them."""
    first = {}
    for seed in range(100):
        first.setdefault(int(np.random.default_rng(seed).integers(count)), seed)
    assert set(first) == set(range(count))
    return [first[kind] for kind in range(count)]


def test_every_kind_changes_the_photograph_as_it_says():
    random = np.random.default_rng(0)
    rgb = random.uniform(0.2, 0.8, (SIZE, SIZE, 3)).astype(np.float32)
    valid, depth = np.ones((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), np.float32)
    depth[20:26, 10:20] = 0.5
    away = (20 - 35, 10 - 30)  # of the pixel (35, 30)
    found = [
        _spoiled_photograph(rgb, valid, depth, away, np.random.default_rng(seed))
        for seed in kinds_of(5)
    ]
    for one in found:
        np.testing.assert_array_equal(one[depth == 0], rgb[depth == 0])
        assert np.abs(one - rgb)[depth > 0].mean() > 0.02
    pasted, stained, painted, _, blurred = (one[20:26, 10:20] for one in found)
    own, rolled = rgb[20:26, 10:20], np.roll(rgb, away, (0, 1))
    np.testing.assert_array_equal(rolled[20:26, 10:20], rgb[35:41, 30:40])
    sources = (rolled[20:26, 10:20], rolled[::-1, ::-1][20:26, 10:20])
    assert min(np.abs(pasted - source).max() for source in sources) < 1e-6
    for channel in range(3):  # a stain keeps what was there, paint and blur less of it
        was = own[..., channel].ravel()
        kept = [np.corrcoef(one[..., channel].ravel(), was)[0, 1] for one in (stained, pasted)]
        assert kept[0] > 0.9 > 0.5 > kept[1]
        for one in (painted, blurred):
            assert one[..., channel].std() < 0.8 * was.std()


def test_every_kind_changes_the_normals():
    shot = views()
    depth = np.where(shot.valid, _patch(shot.valid, np.random.default_rng(3)), 0)
    depth = depth.astype(np.float32)
    for seed in kinds_of(4):
        found = _spoiled_normals(shot.normals, depth, (5, 7), np.random.default_rng(seed))
        np.testing.assert_array_equal(found[depth == 0], shot.normals[depth == 0])
        assert np.abs(found - shot.normals)[depth > 0].mean() > 0.01


def test_without_a_part_there_is_nothing_to_spoil():
    shot = views()._replace(valid=np.zeros((SIZE, SIZE), bool))
    assert spoil(shot, np.random.default_rng(0)) is shot


def test_streams_that_are_not_there_stay_away():
    shot = views()._replace(normals=None, points=None)
    (_, found) = augment(shot, spoiled(1), 0)
    assert found.normals is None
    assert found.points is None
    assert changed(found, shot, "rgb").any()
