"""Image metrics and intervals against scikit-learn and counting by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import image_intervals, image_metrics


def draw(seed, good=12, bad=9, levels=None):
    generator = np.random.default_rng(seed)
    labels = generator.permutation([0] * good + [1] * bad)
    scores = generator.normal(size=good + bad) + 0.8 * labels
    return (scores if levels is None else np.round(scores * levels) / levels), labels


@pytest.mark.parametrize("levels", [1, 3, None])
def test_equals_scikit_learn(levels):
    for seed in range(25):
        scores, labels = draw(seed, levels=levels)
        got = image_metrics(scores, labels)
        assert got["i_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert got["i_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        best = max(f1_score(labels, scores >= t) for t in np.unique(scores))
        assert got["i_f1max"] == pytest.approx(best, abs=1e-12)
        assert got == image_metrics(scores.tolist(), labels.astype(bool))


def test_f1_at_a_threshold_is_strictly_above_it():
    got = image_metrics([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1], threshold=2.0)
    assert (got["i_f1"], got["i_recall"], got["i_false_alarm_rate"]) == (2 / 3, 0.5, 0.0)
    got = image_metrics([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1], threshold=1.9)
    assert (got["i_f1"], got["i_recall"], got["i_false_alarm_rate"]) == (0.8, 1.0, 0.5)
    assert image_metrics([1.0, 0.0], [0, 1], threshold=5.0)["i_f1"] == 0.0


def test_perfect_is_one():
    assert set(image_metrics([0.1, 0.2, 0.9], [0, 0, 1], threshold=0.5).values()) == {1.0, 0.0}
    assert image_metrics([0.1, 0.2, 0.9], [0, 0, 1])["i_auroc"] == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "no images"),
        ([1.0, 2.0], [0, 0], "no defective image"),
        ([1.0, 2.0], [1, 1], "no good image"),
        ([1.0, np.nan], [0, 1], "finite, got nan for image 1"),
        ([np.inf, 1.0], [0, 1], "finite, got inf for image 0"),
        ([1.0], [0, 1], "one length"),
        ([[1.0, 2.0]], [[0, 1]], "one length"),
        ([1.0, 2.0], [0, 2], "labels must be 0"),
        (["a", "b"], [0, 1], "real numbers"),
    ],
)
def test_never_a_plausible_number(scores, labels, message):
    with pytest.raises(BadInputError, match=message):
        image_metrics(scores, labels)
    with pytest.raises(BadInputError, match=message):
        image_intervals(scores, labels)


def test_intervals_equal_a_bootstrap_drawn_one_by_one():
    scores, labels = draw(0, good=30, bad=25, levels=4)
    generator = np.random.default_rng(1)
    good, bad = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    rows = []
    for _ in range(1500):
        pick = np.concatenate([generator.choice(good, len(good)), generator.choice(bad, len(bad))])
        rows.append(list(image_metrics(scores[pick], labels[pick]).values()))
    want = np.quantile(rows, [0.025, 0.975], axis=0)
    got = image_intervals(scores, labels, draws=4000)
    np.testing.assert_allclose(np.array(list(got.values())).T, want, atol=0.02)


def test_intervals_cover_the_truth():
    """In 300 test sets of 40 + 40 images, a 90 % interval holds the true AUROC about that often."""
    truth = 0.7602  # Phi(1 / sqrt 2)
    inside = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        scores = np.concatenate([generator.normal(size=40), generator.normal(1, size=40)])
        interval = image_intervals(scores, [0] * 40 + [1] * 40, level=0.9, draws=400, seed=seed)
        inside += interval["i_auroc"][0] <= truth <= interval["i_auroc"][1]
    assert 0.84 < inside / 300 < 0.95


def test_intervals_repeat_and_narrow():
    scores, labels = draw(3)
    assert image_intervals(scores, labels) == image_intervals(scores, labels)
    wide, narrow = (image_intervals(scores, labels, level=level) for level in (0.99, 0.5))
    for name, (low, high) in narrow.items():
        assert wide[name][0] <= low <= high <= wide[name][1]
    for options in ({"level": 1.0}, {"level": 0.0}, {"draws": 0}):
        with pytest.raises(ConfigError):
            image_intervals(scores, labels, **options)
