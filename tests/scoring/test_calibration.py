"""Calibration: the promise, simulated; one threshold for label and mask, on any map."""

import json
import math

import numpy as np
import pytest
from scipy import ndimage, stats

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import image_metrics
from pirn_jax.scoring import calibrate, decide, normalise, rate_bound, region_score, scans_needed
from pirn_jax.scoring.calibration import Calibration


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
    assert scans_needed(0.01, 0.95) == 299
    assert [scans_needed(rate) for rate in (0.01, 0.05, 0.5, 0.3)] == [99, 19, 1, 3]
    for rate in (0.5, 0.2, 0.1, 0.05, 0.013):
        n = scans_needed(rate)
        assert calibrate(np.arange(n), rate).kept
        assert n == 1 or not calibrate(np.arange(n - 1), rate).kept
        n = scans_needed(rate, 0.95)
        assert rate_bound(n) <= rate < rate_bound(n - 1)


@pytest.mark.parametrize("scans", range(1, 60))
def test_rank_is_the_largest_that_keeps_the_rate(scans):
    scores = np.random.default_rng(scans).permutation(scans).astype(float)
    for wanted in (0.05, 0.1, 0.2, 0.5):
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
    text = calibrate(
        np.arange(50), 0.1, leave_one_out=True, minimum_area=2.5, area_unit="mm2"
    ).statement()
    assert "the 5th largest score of 50" in text
    assert "approximate" in text
    assert "2.5 mm²" in text
    assert "asked for" not in text


def test_calibration_survives_json():
    got = calibrate([0.3, 0.1, 0.2], 0.3, leave_one_out=True)
    assert Calibration(**json.loads(json.dumps(got._asdict()))) == got


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
@pytest.mark.parametrize("minimum", [0.0, 1.0, 4.0, 12.5])
@pytest.mark.parametrize("unit", ["pixels", "mm2"])
def test_label_is_one_exactly_when_the_mask_is_not_empty(levels, minimum, unit):
    """On thresholds at, just below and just above many values of the map: never a contradiction."""
    generator = np.random.default_rng(1)
    seen = set()
    for seed in range(6):
        scores = field(seed, levels)
        valid = generator.random(scores.shape) < 0.9 if seed % 2 else None
        areas = generator.uniform(0.2, 2.0, scores.shape) if unit == "mm2" else None
        at = generator.choice(scores.ravel(), 12).astype(float)
        best = region_score(scores, minimum, areas=areas, valid=valid)
        thresholds = [best, scores.max().item()]
        for value in [*at, *thresholds]:
            for t in (np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)):
                calibration = calibrate([float(t)], 0.5, minimum_area=minimum, area_unit=unit)
                got = decide(scores, calibration, areas=areas, valid=valid)
                assert got.score == best
                assert got.label == int(got.mask.any())
                # Against the definition: a region above t with at least that area, or none.
                above = scores.astype(np.float64) > t
                above = above if valid is None else above & valid
                labels, count = ndimage.label(above, np.ones((3, 3)))
                weight = np.ones(scores.shape) if areas is None else areas
                keep = [i for i in range(1, count + 1) if weight[labels == i].sum() >= minimum]
                np.testing.assert_array_equal(got.mask, np.isin(labels, keep))
                seen.add(got.label)
    assert seen == {0, 1}


def test_false_alarms_with_a_minimum_area_keep_the_promise():
    """The score that goes with a minimum area is a score like any other: the rate is kept."""
    generator = np.random.default_rng(3)
    fields = ndimage.gaussian_filter(generator.normal(size=(2200, 20, 20)), (0, 1.2, 1.2))
    scores = np.array([region_score(f, 6.0) for f in fields])
    calibration = calibrate(scores[:200], 0.1, minimum_area=6.0)
    labels = [decide(f, calibration).label for f in fields[200:]]
    assert np.mean(labels) <= calibration.rate_bound
    assert 0.03 < np.mean(labels) < 0.2


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
    scores = field(0)
    for bad, message in (([], "normal scans' scores"), ([1.0, np.nan], "1 of 2 scores")):
        with pytest.raises(BadInputError, match=message):
            calibrate(bad)
    for options in (
        {"wanted_rate": 0.0},
        {"wanted_rate": 1.0},
        {"minimum_area": -1.0},
        {"minimum_area": math.inf},
        {"area_unit": "inch"},
    ):
        with pytest.raises(ConfigError):
            calibrate([1.0, 2.0], **options)
    with pytest.raises(ConfigError, match="needs the area of each pixel"):
        decide(scores, calibrate([0.0], 0.5, minimum_area=1.0, area_unit="mm2"))
    with pytest.raises(ConfigError, match="not one from elsewhere"):
        decide(scores, calibrate([0.0], 0.5, minimum_area=1.0), score=2.0)
    with pytest.raises(BadInputError, match="as large as the minimum area"):
        region_score(scores, 1000.0)
    with pytest.raises(BadInputError, match="no valid pixel"):
        region_score(scores, valid=np.zeros(scores.shape, bool))
    scores[3, 4] = np.nan
    with pytest.raises(BadInputError, match="NaN or infinite"):
        region_score(scores)
