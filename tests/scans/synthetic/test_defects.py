"""Defects: each changes its own mask and its own modality, and nothing gives it away."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from pirn_jax.scans.synthetic.defects import FLAWS, damage
from pirn_jax.scans.synthetic.generator import CATEGORIES, MASK_VALUES, defects_of, describe, render
from pirn_jax.scans.synthetic.parts import KINDS
from pirn_jax.scans.synthetic.scene import take_view

ALL = [(category, defect) for category in CATEGORIES for defect in defects_of(category)]


@pytest.mark.parametrize(("category", "defect"), ALL)
def test_a_flaw_changes_its_mask_and_its_modality_alone(category, defect):
    kind = KINDS[category]
    for number in range(2):
        key = f"test/{defect}/{number:03d}"
        record = describe(category, key)
        rng = np.random.default_rng(number)
        view = take_view(rng, kind, 160)
        good = kind.draw(rng, view.u, view.v, view.pixel)
        bad, mask = damage(rng, defect, good, view, record.share, record.strength)
        part = good.cover > 0.5
        assert mask.any()
        assert not (mask & ~part).any()
        changed = {
            name: getattr(good, name) != getattr(bad, name)
            for name in ("height", "albedo", "gloss", "ink")
        }
        changed["albedo"] = changed["albedo"].any(-1)
        assert np.array_equal(good.cover, bad.cover)
        texture = changed["albedo"] | changed["gloss"] | changed["ink"]
        if record.modality == "texture":
            assert not changed["height"].any()
        if record.modality == "geometry":
            assert not texture.any()
        if record.modality == "both":
            assert changed["height"].any()
            assert texture.any()
        assert not ((changed["height"] | texture) & ~mask).any()
        # The very outline of a dent may move by nothing.
        assert ((changed["height"] | texture) & mask).sum() >= mask.sum() - 3
        share = mask.sum() / part.sum()
        if defect == "print_missing":
            assert share <= record.share + 1e-3  # there may be less print than that
        else:
            assert abs(share - record.share) <= 3 / part.sum()


@pytest.mark.parametrize(("category", "defect"), ALL)
def test_a_defective_scan_and_its_good_twin(category, defect):
    key = f"test/{defect}/001"
    scan, twin = render(category, key, size=128), render(category, key, size=128, flawless=True)
    assert (scan.label, twin.label) == (1, 0)
    assert (scan.defect, twin.defect) == (defect, "good")
    assert set(np.unique(scan.mask)) == {0, next(v for v, d in MASK_VALUES.items() if d == defect)}
    assert not twin.mask.any()
    inside = scan.mask > 0
    assert not np.array_equal(scan.rgb[inside], twin.rgb[inside])  # geometry: by its shading
    if FLAWS[defect].modality == "texture":
        assert np.array_equal(scan.xyz, twin.xyz)
        far = ~binary_dilation(inside, iterations=3)  # the lens spreads a pixel or two
        assert np.array_equal(scan.rgb[far], twin.rgb[far])
    else:
        both = scan.valid & twin.valid & ~binary_dilation(inside, iterations=2)
        assert np.array_equal(scan.xyz[both], twin.xyz[both])
        moved = np.abs(scan.xyz - twin.xyz)[scan.valid & twin.valid & inside]
        assert moved.size == 0 or moved.max() > 5e-5
    corner = np.s_[:6, :6]
    assert np.array_equal(scan.rgb[corner], twin.rgb[corner])  # nothing global gives it away


def test_records_run_from_plain_to_barely_visible():
    for defect, flaw in FLAWS.items():
        records = [describe("housing", f"test/{defect}/{number:03d}") for number in range(24)]
        strengths = np.array([record.strength for record in records])
        shares = np.array([record.share for record in records])
        for values, (low, high) in (
            (strengths, flaw.strengths),
            (np.log(shares), np.log(flaw.shares)),
        ):
            assert low <= values.min() < low + 0.15 * (high - low)
            assert high >= values.max() > high - 0.15 * (high - low)
        assert abs(np.corrcoef(strengths, np.log(shares))[0, 1]) < 0.4
