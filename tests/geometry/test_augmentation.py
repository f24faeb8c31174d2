"""Augmentation of shots: deterministic, and geometrically what it says."""

import itertools

import numpy as np
import pytest

from pirn_jax.geometry import make_views, surface_normals
from pirn_jax.geometry.augmentation import (
    Augmentation,
    augment,
    jitter,
    photometric,
    rotations,
)
from pirn_jax.scans import Scan

SIZE = 48


def relief(turn: np.ndarray, size: int = SIZE) -> Scan:
    """A bumpy surface seen from above, its shape turned in the picture's plane by the matrix.

    The photograph shows the height, so both can be compared.
    """
    down, right = np.mgrid[:size, :size] - (size - 1) / 2
    x, y = np.einsum("ij,jhw->ihw", turn.T, np.stack([right, down]) / size)
    height = 0.06 * np.exp(-((x - 0.15) ** 2 + (y + 0.1) ** 2) / 0.02) + 0.1 * x * y + 0.05 * x
    points = np.stack([right / size, down / size, 1 - height], -1).astype(np.float32)
    inside = np.hypot(right, down) < 0.4 * size
    points = np.where(inside[..., None], points, 0).astype(np.float32)
    shade = np.clip(255 * (0.5 + 4 * height), 1, 255).astype(np.uint8)
    rgb = np.where(inside[..., None], shade[..., None], 0).astype(np.uint8) * np.ones(3, np.uint8)
    normals = np.asarray(surface_normals(points, inside, method="grid"))
    return Scan(rgb, points, inside, normals, None, None, 0, "good", "relief", {})


def views(turn: np.ndarray | None = None):
    return make_views(relief(np.eye(2) if turn is None else turn), SIZE, points=True)


@pytest.mark.parametrize(
    ("augmentation", "turn"),
    [
        (Augmentation("move", 90.0), [[0, 1], [-1, 0]]),
        (Augmentation("move", 180.0), [[-1, 0], [0, -1]]),
        (Augmentation("move", 30.0), [[np.sqrt(0.75), 0.5], [-0.5, np.sqrt(0.75)]]),
        (Augmentation("move", mirror=True), [[-1, 0], [0, 1]]),
    ],
    ids=str,
)
def test_a_moved_scan_is_the_scan_of_the_moved_part(augmentation, turn):
    """Photograph, normals and validity, vectors turned as the picture is."""
    _, found = augment(views(), (augmentation,), 0)
    expected = views(np.array(turn, float))
    assert (found.valid == expected.valid).mean() > 0.98
    inner = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2)) < 0.3 * SIZE
    assert np.abs(found.rgb - expected.rgb)[inner].max() < 0.02
    assert np.abs(found.normals - expected.normals)[inner].max() < 0.02
    # Points keep their own pixels' places, up to the nearest pixel.
    assert np.abs(found.points - expected.points)[inner].max() < 1 / SIZE
    # The test would notice vectors that stay as they are.
    unturned = views()
    assert np.abs(unturned.normals - expected.normals)[inner].max() > 0.1
    background = ~found.valid & ~expected.valid
    assert np.abs(found.normals[background]).max() < 1.0


def test_a_quarter_turn_is_exact_and_counter_clockwise():
    shot = views()
    _, found = augment(shot, (Augmentation("move", 90.0),), 0)
    np.testing.assert_allclose(found.rgb, np.rot90(shot.rgb), atol=1e-6)
    np.testing.assert_array_equal(found.valid, np.rot90(shot.valid))


def test_a_shift_moves_down_and_right_and_reflects():
    shot = views()._replace(valid=np.ones((SIZE, SIZE), bool))
    shifts = (
        Augmentation("move", shift=(0.25, 0.0)),
        Augmentation("move", shift=(0.0, 0.25), reflect=True),
    )
    _, down, right = augment(shot, shifts, 0)
    step = SIZE // 4
    np.testing.assert_allclose(down.rgb[step:], shot.rgb[:-step], atol=1e-6)
    assert not down.valid[: step - 1].any()
    assert not down.rgb[: step - 1].any()
    np.testing.assert_allclose(right.rgb[:, step:], shot.rgb[:, :-step], atol=1e-6)
    np.testing.assert_allclose(right.rgb[:, :step], shot.rgb[:, step:0:-1], atol=1e-6)
    assert right.valid.all()


def test_what_comes_out_depends_on_seed_and_shot_alone():
    one, other = views(), views(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    first = list(augment(one, photometric(3), 5))
    again = list(augment(one, photometric(4), 5))
    assert len(first) == 4
    for a, b in zip(first, again, strict=False):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.normals, b.normals)
    seeds = list(augment(one, photometric(3), 6))
    for (a, b), pictures in itertools.product(itertools.combinations(range(4), 2), (first, seeds)):
        assert np.abs(pictures[a].rgb - pictures[b].rgb).max() > 0.005
    assert not np.array_equal(first[1].rgb, seeds[1].rgb)
    turned = list(augment(other, photometric(3), 5))
    assert not np.array_equal(np.rot90(first[1].rgb), turned[1].rgb)


def test_photometric_augmentation_keeps_background_validity_and_unit_normals():
    shot = views()
    black = ~shot.rgb.any(-1)
    assert black.mean() > 0.3
    for found in list(augment(shot, photometric(6), 1))[1:]:
        assert not found.rgb[black].any()
        assert found.rgb.dtype == np.float32
        assert found.rgb.min() >= 0
        assert found.rgb.max() <= 1
        np.testing.assert_array_equal(found.valid, shot.valid)
        defined = shot.normals.any(-1)
        assert not found.normals[~defined].any()
        length = np.linalg.norm(2 * found.normals[defined] - 1, axis=-1)
        np.testing.assert_allclose(length, 1, atol=1e-5)
        cosine = ((2 * found.normals - 1) * (2 * shot.normals - 1)).sum(-1)[defined]
        assert np.median(cosine) > 0.98


def test_jitter_is_a_small_move_of_the_part_each_another():
    """What moved is found again where a turn of up to 15° and a shift of a twentieth takes it."""
    shot = views()
    jittered = list(augment(shot, jitter(6), 1))[1:]
    peak = np.array(np.unravel_index(shot.rgb[..., 0].argmax(), shot.valid.shape))
    middle = (SIZE - 1) / 2
    reach = 0.05 * np.sqrt(2) * SIZE + np.deg2rad(15) * np.hypot(*(peak - middle)) + 1.5
    moved = []
    for found in jittered:
        there = np.array(np.unravel_index(found.rgb[..., 0].argmax(), found.valid.shape))
        moved.append(np.hypot(*(there - peak)))
        assert moved[-1] <= reach
        assert abs(found.valid.mean() - shot.valid.mean()) < 0.02
        length = np.linalg.norm(2 * found.normals[found.valid] - 1, axis=-1)
        np.testing.assert_allclose(length, 1, atol=1e-5)
    assert max(moved) > 1
    for a, b in itertools.combinations(jittered, 2):
        assert np.abs(a.rgb - b.rgb).max() > 0.02


def test_what_is_reflected_fills_the_photograph_and_no_more():
    """An oblong picture lies between black bars: those stay, and nothing black comes in."""
    scan = Scan(
        rgb=np.random.default_rng(0).integers(60, 250, (36, 60, 3)).astype(np.uint8),
        xyz=None,
        valid=np.ones((36, 60), bool),
    )
    shot = make_views(scan, SIZE)
    rows, columns = shot.frame.inside
    assert (rows, columns) == (slice(10, 38), slice(0, SIZE))
    assert shot.valid[rows, columns].all()
    for found in list(augment(shot, jitter(4), 0))[1:]:
        np.testing.assert_array_equal(found.valid, shot.valid)
        assert found.rgb[rows, columns].min() > 0.2
        np.testing.assert_array_equal(found.rgb[:10], shot.rgb[:10])
        np.testing.assert_array_equal(found.rgb[38:], shot.rgb[38:])


def test_a_photograph_thinner_than_a_pixel_of_the_views_stays_as_it_is():
    scan = Scan(np.full((2, 400, 3), 200, np.uint8), None, np.ones((2, 400), bool))
    shot = make_views(scan, SIZE)
    rows, _ = shot.frame.inside
    assert len(range(SIZE)[rows]) == 0
    _, found = augment(shot, jitter(1), 0)
    np.testing.assert_array_equal(found.rgb, shot.rgb)


def test_rotations_are_equal_steps():
    assert [move.degrees for move in rotations(8)] == [45.0 * n for n in range(1, 8)]
    assert rotations(1) == photometric(0) == jitter(0) == ()


def test_streams_that_are_not_there_stay_away():
    shot, grey = views()._replace(normals=None), (Augmentation("grey"),)
    for found in augment(shot, photometric(1) + jitter(1) + rotations(2) + grey, 0):
        assert found.normals is None
        assert found.rgb.shape == shot.rgb.shape
