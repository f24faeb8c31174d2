"""Calibration: the promise, simulated; one threshold for label and mask, on any map."""

import json
import math

import numpy as np
import pytest
from scipy import ndimage, stats

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import image_metrics
from pirn_jax.scoring import (
    calibrate,
    decide,
    fix_threshold,
    normalise,
    rate_bound,
    read_calibration,
    scans_needed,
)


@pytest.mark.parametrize("law", [stats.norm(), stats.lognorm(1.5), stats.beta(0.5, 0.5)])
@pytest.mark.parametrize(("scans", "wanted"), [(5, 0.2), (10, 0.1), (50, 0.05), (50, 0.2)])
def test_the_promise_over_simulated_calibrations(scans, wanted, law):
    """1,000 draws of n normal scores: the mean true rate is k / (n + 1), the bound holds in 95 %.

    The true rate of each threshold is the law's survival function, so Monte-Carlo error comes from
    the draws of the calibration sets alone.
    """
    generator = np.random.default_rng(scans)
    rates, held = [], 0
    for _ in range(1000):
        calibration = calibrate(law.rvs(scans, random_state=generator), wanted)
        rates.append(law.sf(calibration.threshold))
        held += rates[-1] <= calibration.rate_bound
    assert calibration.rank == math.floor(wanted * (scans + 1) + 1e-9)
    error = np.std(rates) / math.sqrt(1000)
    assert abs(np.mean(rates) - calibration.mean_rate) < 3.5 * error
    # The bound is exact for a continuous law: 950 expected, less 3 standard deviations.
    assert held >= 950 - 3 * math.sqrt(1000 * 0.95 * 0.05)


def test_ties_only_lower_the_rate():
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(1000):
        threshold = calibrate(generator.integers(0, 4, 10), 0.3).threshold
        rates.append((3 - threshold) / 4)  # P(score > threshold) on {0, 1, 2, 3}
    assert np.mean(rates) < 3 / 11


def test_what_n_scans_can_promise():
    assert rate_bound(5) == pytest.approx(0.4507, abs=1e-4)
    assert rate_bound(10) == pytest.approx(0.2589, abs=1e-4)
    assert rate_bound(299) <= 0.01 < rate_bound(298)
    assert [scans_needed(rate) for rate in (0.01, 0.05, 0.5, 0.3)] == [99, 19, 1, 3]
    for rate in (0.5, 0.2, 0.1, 0.05, 0.013):
        n = scans_needed(rate)
        assert calibrate(np.arange(n), rate).kept
        assert n == 1 or not calibrate(np.arange(n - 1), rate).kept


@pytest.mark.parametrize("wanted", [0.05, 0.1, 0.2, 0.5])
def test_rank_is_the_largest_that_keeps_the_rate(wanted):
    for scans in range(1, 60):
        scores = np.random.default_rng(scans).permutation(scans).astype(float)
        got = calibrate(scores, wanted)
        if got.kept:
            assert got.rank / (scans + 1) <= wanted + 1e-9
            assert got.rank == scans or (got.rank + 1) / (scans + 1) > wanted
        else:
            assert got.rank == 1
            assert 1 / (scans + 1) > wanted
        assert (scores >= got.threshold).sum() == got.rank


def test_statement_says_what_is_true():
    text = calibrate([1.0, 2.0, 3.0, 4.0, 5.0], 0.05).statement()
    assert "the largest score of 5 normal scans" in text
    assert "16.7% on average, at most 45.1% with 95% confidence" in text
    assert "5.0% was asked for: that takes 19 scans" in text
    assert "approximate" not in text
    text = calibrate(np.arange(50), 0.1, leave_one_out=True).statement()
    assert "the 5th largest score of 50" in text
    assert "approximate" in text
    assert "asked for" not in text


def test_calibration_survives_json():
    got = calibrate([0.3, 0.1, 0.2], 0.3, leave_one_out=True)
    assert read_calibration(json.loads(json.dumps(got._asdict()))) == got
    older = {name: value for name, value in got._asdict().items() if name != "scores"}
    assert read_calibration(older) == got._replace(scores=())
    with pytest.raises(BadInputError, match="scores: expected"):
        read_calibration(got._asdict() | {"scores": [0.1, "0.2"]})


@pytest.mark.parametrize(
    "scores", [[1.0, 2.0, 4.0], [-3.0, -2.5, -1.0], [0.0, 0.0], [7.0], [1e-20, 2e-20, 5e-20]]
)
def test_normalised_scores(scores):
    calibration = calibrate(scores, 0.4)
    t = calibration.threshold
    assert normalise(t, calibration) == 0.5
    assert normalise(t - calibration.spread, calibration) == pytest.approx(0.25)
    assert normalise(t + calibration.spread, calibration) == pytest.approx(0.75)
    beside = [np.nextafter(t, -np.inf), t, np.nextafter(t, np.inf)]
    assert (normalise(beside, calibration) > 0.5).tolist() == [False, False, True]
    far = t + calibration.spread * np.linspace(-50, 50, 1001)
    normal = normalise(far, calibration)
    assert (np.diff(normal) > 0).all()
    assert normal.min() > 0
    assert normal.max() < 1


def test_a_threshold_of_ones_own_is_normalised_by_the_scores_that_are_known():
    known = calibrate([1.0, 2.0, 4.0], 0.4)
    fixed = fix_threshold(10.0, known)
    assert (fixed.threshold, fixed.spread, fixed.scores) == (10.0, 8.0, known.scores)
    assert normalise(2.0, fixed) == pytest.approx(0.25)  # the median good scan
    assert fix_threshold(12.0, fixed).spread == 10.0
    assert fix_threshold(1.5, known).spread == 1.5  # below the median
    assert (fix_threshold(3.0).spread, fix_threshold(0.0).spread) == (3.0, 1.0)
    with pytest.raises(ConfigError, match="finite"):
        fix_threshold(math.inf)


def test_normalising_leaves_ranking_metrics_as_they_are():
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=200), generator.integers(0, 2, 200)
    calibration = calibrate(scores[labels == 0][:20], 0.1)
    threshold = calibration.threshold
    assert image_metrics(normalise(scores, calibration), labels, threshold=0.5) == image_metrics(
        scores, labels, threshold=threshold
    )


def field(seed, levels=None, dtype=np.float32):
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.normal(size=(24, 31)), 1.5)
    return (smooth if levels is None else np.round(smooth * levels) / levels).astype(dtype)


@pytest.mark.parametrize("levels", [None, 20])
@pytest.mark.parametrize("masked", [False, True])
def test_label_is_one_exactly_when_the_mask_is_not_empty(levels, masked):
    """On thresholds at, just below and just above many values of the map: never a contradiction."""
    generator = np.random.default_rng(1)
    seen = set()
    for seed in range(6):
        scores = field(seed, levels)
        valid = generator.random(scores.shape) < 0.9 if masked else None
        counted = scores if valid is None else scores[valid]
        for value in [*generator.choice(scores.ravel(), 12), counted.max(), scores.max()]:
            for t in (np.nextafter(float(value), side) for side in (-np.inf, float(value), np.inf)):
                got = decide(scores, calibrate([t], 0.5), score=counted.max(), valid=valid)
                assert got.score == counted.max()
                assert got.label == int(got.mask.any())
                # Of the map's own largest value, the mask is what lies above, pixel by pixel.
                want = [
                    [float(s) > t and (valid is None or bool(valid[i, j])) for j, s in enumerate(r)]
                    for i, r in enumerate(scores.tolist())
                ]
                np.testing.assert_array_equal(got.mask, want)
                seen.add(got.label)
    assert seen == {0, 1}


def test_a_score_from_elsewhere_rules_the_mask():
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    calibration = calibrate([1.5], 0.5)
    got = decide(scores, calibration, score=1.5)
    assert (got.label, got.mask.sum()) == (0, 0)
    got = decide(scores, calibration, score=1.6)
    np.testing.assert_array_equal(got.mask, [[False, False], [True, True]])
    got = decide(scores, calibrate([5.0], 0.5), score=5.1)  # lost in resampling: the peak stays
    np.testing.assert_array_equal(got.mask, [[False, False], [False, True]])
    got = decide(scores, calibrate([5.0], 0.5), score=5.1, valid=np.array([[1, 1], [1, 0]]) > 0)
    np.testing.assert_array_equal(got.mask, [[False, False], [True, False]])


def test_errors():
    for bad, message in (([], "normal scans' scores"), ([1.0, np.nan], "1 of 2 scores")):
        with pytest.raises(BadInputError, match=message):
            calibrate(bad)
    for rate in (0.0, 1.0):
        with pytest.raises(ConfigError, match="wanted_rate"):
            calibrate([1.0, 2.0], rate)


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_never_good(score):
    """NaN is not above any threshold: it would pass for a good part."""
    with pytest.raises(BadInputError, match="expected a finite number"):
        decide(field(0), calibrate([1.0], 0.5), score=score)
