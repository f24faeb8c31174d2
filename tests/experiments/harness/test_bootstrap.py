"""The bootstrap against a plain writing of itself, DeLong's variance, and known cases."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harness.bootstrap import (
    METRICS,
    Evaluation,
    Histograms,
    histograms,
    image_auroc,
    interval,
    mean_figures,
    paired_difference,
    pixel_figures,
    pixels_of,
    plain_figures,
    replicate,
    resample,
)
from pirn_jax.errors import BadInputError
from pirn_jax.metrics import evaluate_maps, image_metrics

BAD = np.arange(12) >= 5


def pictures(seed: int, images: int = 12, side: int = 40):
    """Smooth maps that see some of the defects, and the masks."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), bool)
    for mask in (masks[k] for k in np.flatnonzero(BAD)):
        for _ in range(rng.integers(1, 3)):
            row, column = rng.integers(0, side - 8, 2)
            mask[row : row + rng.integers(2, 8), column : column + rng.integers(2, 8)] = True
    noise = gaussian_filter(rng.normal(size=masks.shape), (0, 2, 2))
    maps = noise / noise.std() + 1.2 * gaussian_filter(masks.astype(float), (0, 1, 1))
    return maps.astype(np.float32), masks


def evaluate(seed: int) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    _, masks = pictures(7)
    noise, _ = pictures(seed)
    maps = (noise + 1.5 * masks).astype(np.float32)
    pixels = histograms(maps, [pixels_of(mask) for mask in masks])
    return Evaluation(maps.max((1, 2)), pixels), maps, masks


def binned(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Each score's bin, found by another way than the code under test: rank among the edges."""
    share = np.linspace(0, 1, 129)[1:-1]
    normal = np.quantile(maps[~masks], share)
    found, weights = [], []
    for one, mask in zip(maps, masks, strict=True):
        p = pixels_of(mask)
        found.append(one.reshape(-1)[p.defective])
        weights.append(p.weights)
    found, weights = np.concatenate(found), np.concatenate(weights)
    order = np.argsort(found)
    reached = np.cumsum(weights[order]) / weights.sum()
    bad = np.array([found[order][np.argmax(reached >= s)] for s in share])
    edges = np.unique(np.concatenate([normal, bad]).astype(np.float32))
    return (maps[..., None] > edges).sum(-1).astype(np.float64)


def test_replicates_are_the_metrics_of_the_images_drawn():
    """A plain loop that builds every resampled set, binned maps and all."""
    draws = [evaluate(seed) for seed in (1, 2, 3)]
    samples = resample(BAD, 3, replicates=12, seed=5)
    found = replicate([one for one, _, _ in draws], BAD, samples)
    for r in range(12):
        images = np.repeat(np.arange(12), samples.images[r])
        chosen = np.repeat(np.arange(3), samples.draws[r])
        rows = []
        for d in chosen:
            one, maps, masks = draws[d]
            pixel = evaluate_maps(binned(maps, masks)[images], masks[images])
            image = image_metrics(one.scores[images], BAD[images].astype(int))
            rows.append([image["i_auroc"], pixel["p_auroc"], pixel["aupro_0.3"]])
        np.testing.assert_allclose(
            [found[name][r] for name in METRICS], np.mean(rows, axis=0), atol=1e-6
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_bins_and_strides_cost_less_than_a_thousandth(seed):
    rng = np.random.default_rng(seed)
    masks = np.zeros((12, 300, 260), bool)
    for mask in (masks[k] for k in np.flatnonzero(BAD)):
        row, column = rng.integers(0, 200, 2)
        mask[row : row + 40, column : column + 30] = True
    noise = gaussian_filter(rng.normal(size=masks.shape), (0, 6, 6))
    maps = (noise / noise.std() + 1.5 * gaussian_filter(masks.astype(float), (0, 6, 6))).astype(
        np.float32
    )
    pixels = [pixels_of(mask) for mask in masks]
    assert pixels[0].each > 1
    found = plain_figures(Evaluation(maps.max((1, 2)), histograms(maps, pixels)), BAD)
    exact = evaluate_maps(maps, masks) | image_metrics(maps.max((1, 2)), BAD.astype(int))
    for name in METRICS:
        assert found[name] == pytest.approx(exact[name], abs=1e-3), name
    assert 0.55 < exact["p_auroc"] < 0.98  # a case in which bins could matter


def test_ignored_pixels_are_not_looked_at_and_leave_their_region():
    maps, masks = pictures(3)
    seen = np.ones_like(masks)
    seen[:, :, 20:] = False
    pixels = [pixels_of(mask, one) for mask, one in zip(masks, seen, strict=True)]
    found = plain_figures(Evaluation(maps.max((1, 2)), histograms(maps, pixels)), BAD)
    exact = evaluate_maps(maps, masks, ignore=~seen)
    assert found["p_auroc"] == pytest.approx(exact["p_auroc"], abs=2e-3)
    assert found["aupro_0.3"] == pytest.approx(exact["aupro_0.3"], abs=2e-3)


def test_a_constant_map_and_a_perfect_one():
    _, masks = pictures(0)
    pixels = [pixels_of(mask) for mask in masks]
    ones = np.ones((1, 12))
    flat = histograms(np.zeros(masks.shape, np.float32), pixels)
    np.testing.assert_allclose(np.ravel(pixel_figures(flat, ones)), [0.5, 0.15], atol=1e-6)
    right = histograms(masks.astype(np.float32), pixels)
    np.testing.assert_allclose(np.ravel(pixel_figures(right, ones)), [1, 1], atol=1e-6)
    np.testing.assert_array_equal(image_auroc(np.zeros(12), BAD, ones), [0.5])


def test_an_unmistakable_difference_has_an_interval_without_width():
    perfect = Evaluation(BAD.astype(float), None)
    reverse = Evaluation(-BAD.astype(float), None)
    found = paired_difference([perfect] * 2, [reverse] * 2, BAD, replicates=200)["i_auroc"]
    assert found == (1.0, 1.0, 1.0)
    same = paired_difference([perfect], [perfect], BAD, replicates=200)["i_auroc"]
    assert same == (0.0, 0.0, 0.0)


def test_the_interval_has_the_width_delong_gives():
    """DeLong, DeLong and Clarke-Pearson 1988: the variance of a difference of paired AUROCs."""
    rng = np.random.default_rng(0)
    bad = np.arange(240) >= 100
    shared = rng.normal(size=240) + 1.0 * bad  # correlated detectors: pairing matters
    scores = np.stack([shared + 0.5 * rng.normal(size=240), shared + 0.9 * rng.normal(size=240)])
    psi = (scores[:, bad, None] > scores[:, None, ~bad]).astype(float)
    over_bad, over_good = np.cov(psi.mean(2)), np.cov(psi.mean(1))
    covariance = over_bad / bad.sum() + over_good / (~bad).sum()
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    one, other = (Evaluation(s, None) for s in scores)
    found = paired_difference([one], [other], bad, replicates=4000)["i_auroc"]
    assert found.value == pytest.approx(psi[0].mean() - psi[1].mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert np.isnan(
        paired_difference([one], [other], bad, replicates=10)["aupro_0.3"]
    ).all()  # no masks


def test_the_draws_of_the_shots_widen_it():
    """Four draws whose figures differ by a known amount, on images without any doubt."""
    perfect, chance = Evaluation(BAD.astype(float), None), Evaluation(np.zeros(12), None)
    samples = resample(BAD, 4, replicates=20000, seed=1)
    found = replicate([perfect, perfect, chance, chance], BAD, samples)["i_auroc"]
    assert found.mean() == pytest.approx(0.75, abs=0.003)
    assert found.std() == pytest.approx(0.25 / np.sqrt(4), rel=0.03)


def test_replicates_are_stratified_and_seeded():
    samples = resample(BAD, 5, replicates=50, seed=3)
    assert (samples.images[:, BAD].sum(1) == BAD.sum()).all()
    assert (samples.images[:, ~BAD].sum(1) == (~BAD).sum()).all()
    assert (samples.draws.sum(1) == 5).all()
    np.testing.assert_array_equal(samples.images, resample(BAD, 5, 50, 3).images)
    assert (samples.images != resample(BAD, 5, 50, 4).images).any()


def test_what_does_not_pair_is_refused():
    one = Evaluation(np.zeros(12), None)
    with pytest.raises(BadInputError, match="2 evaluations against 1"):
        paired_difference([one, one], [one], BAD)
    with pytest.raises(BadInputError, match="0 of 12 images are defective"):
        resample(np.zeros(12, bool), 1)
    assert mean_figures([one, one], BAD)["i_auroc"] == 0.5
    nothing = Histograms(*(np.zeros((2, 4), np.float32),) * 3, np.zeros(2, np.float32))
    assert np.isnan(pixel_figures(nothing, np.ones((1, 2)))[1]).all()
    assert np.isnan(interval(0.5, np.array([np.nan]))[1])
