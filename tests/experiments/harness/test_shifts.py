"""Shifts: the same for a key on every call, as strong as they say, and never a change of truth."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from harness.shifts import (
    BLUR,
    FAMILIES,
    GAMMA,
    GRADIENT,
    TILT,
    families_of,
    shift_scan,
    shifted,
    tilted,
)
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import Scan
from pirn_jax.scans.synthetic.generator import render


@pytest.fixture(scope="module")
def scan() -> Scan:
    return render("flange", "test/dent/000", size=96)


def flat(value: int, key: str = "test/good/000") -> Scan:
    """A grey picture."""
    return Scan(np.full((40, 60, 3), value, np.uint8), None, np.ones((40, 60), bool), key=key)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shift_is_a_function_of_family_and_key_and_leaves_the_truth(scan, family):
    before = scan.rgb.copy(), scan.xyz.copy(), scan.mask.copy()
    first, second = shift_scan(scan, family), shift_scan(scan, family)
    for name in ("rgb", "xyz", "mask", "valid"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = shift_scan(scan._replace(key="test/dent/001"), family)
    changed = "xyz" if family == "tilt" else "rgb"
    assert (getattr(first, changed) != getattr(scan, changed)).any()
    if family not in ("blur", "gamma"):  # which have no direction, or two
        assert (getattr(first, changed) != getattr(other, changed)).any()
    kept = {"rgb", "xyz", "mask", "valid"} - {changed}
    for name in kept:
        np.testing.assert_array_equal(getattr(first, name), getattr(scan, name))
    assert (first.label, first.defect, first.key) == (scan.label, scan.defect, scan.key)
    for array, old in zip((scan.rgb, scan.xyz, scan.mask), before, strict=True):
        np.testing.assert_array_equal(array, old)  # nothing in place


def test_light_falls_off_by_the_stated_gain():
    rgb = shift_scan(flat(100), "gradient").rgb.astype(float)
    assert rgb.max() == pytest.approx(100 * (1 + GRADIENT), abs=1)
    assert rgb.min() == pytest.approx(100 * (1 - GRADIENT), abs=1)
    assert rgb.mean() == pytest.approx(100, abs=0.5)


def test_colour_keeps_grey_level_and_changes_hue():
    means = np.array(
        [shift_scan(flat(100, f"test/good/{k}"), "colour").rgb.mean((0, 1)) for k in range(40)]
    )
    np.testing.assert_allclose(means.mean(1), 100, atol=0.6)
    assert (means.max(1) - means.min(1) > 20).all()
    assert set(means.argmax(1)) == {0, 1, 2}  # every hue comes


def test_gamma_goes_both_ways():
    values = {int(shift_scan(flat(100, f"k{k}"), "gamma").rgb[0, 0, 0]) for k in range(20)}
    assert values == {round(255 * (100 / 255) ** power) for power in (GAMMA, 1 / GAMMA)}
    for end in (0, 255):
        assert (shift_scan(flat(end), "gamma").rgb == end).all()


def test_blur_spreads_a_point_by_its_standard_deviation():
    rgb = np.zeros((400, 400, 3), np.uint8)
    rgb[195:206, 195:206] = 255
    point = Scan(rgb, None, np.ones((400, 400), bool), key="k")
    weight = shift_scan(point, "blur").rgb[..., 0].astype(float)
    rows = np.arange(400)
    line = weight.sum(1) / weight.sum()
    spread = np.sqrt((line * (rows - 200) ** 2).sum())
    assert spread == pytest.approx(np.sqrt((BLUR * 400) ** 2 + (11**2 - 1) / 12), rel=0.01)


def test_tilt_is_rigid_by_its_angle_about_the_centroid(scan):
    moved = shift_scan(scan, "tilt")
    there = scan.valid & (scan.xyz != 0).any(-1)
    pick = np.random.default_rng(0).choice(np.flatnonzero(there), 200, replace=False)
    old, new = (s.xyz.reshape(-1, 3)[pick].astype(float) for s in (scan, moved))
    np.testing.assert_allclose(pdist(new), pdist(old), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        moved.xyz[there].mean(0, dtype=float), scan.xyz[there].mean(0, dtype=float), atol=1e-6
    )
    assert (moved.xyz[~there] == scan.xyz[~there]).all()
    # Kabsch: the rotation that carries one set into the other.
    u, _, v = np.linalg.svd((old - old.mean(0)).T @ (new - new.mean(0)))
    turn = (u @ v).T
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(TILT, rel=1e-3)
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    assert abs(axis[2]) < 1e-3 * np.linalg.norm(axis)


def test_given_normals_turn_with_the_points():
    normals = np.zeros((4, 4, 3), np.float32)
    normals[1:, :, 2] = -1
    scan = Scan(None, None, np.ones((4, 4), bool), normals=normals, key="k")
    moved = tilted(scan, axis=0.0, angle=0.1).normals  # about x
    np.testing.assert_allclose(moved[1, 0], [0, np.sin(0.1), -np.cos(0.1)], atol=1e-7)
    assert (moved[0] == 0).all()


def test_what_cannot_be_shifted_is_said(scan):
    with pytest.raises(ConfigError, match="gradient, colour"):
        shift_scan(scan, "fog")
    with pytest.raises(BadInputError, match="no geometry"):
        shift_scan(flat(9), "tilt")
    with pytest.raises(BadInputError, match="no photograph"):
        shift_scan(scan._replace(rgb=None), "blur")
    with pytest.raises(BadInputError, match="no measured point"):
        shift_scan(scan._replace(xyz=np.zeros_like(scan.xyz)), "tilt")


def test_each_set_has_the_shifts_of_its_modalities(scan):
    assert families_of(["rgb"]) == ("gradient", "colour", "gamma", "blur")
    assert families_of(["normals"]) == ("tilt",)
    assert families_of(["rgb", "normals"]) == FAMILIES
    assert next(shifted([scan], None)) is scan
    assert (next(shifted([scan], "blur")).rgb != scan.rgb).any()
