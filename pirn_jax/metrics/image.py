"""Image metrics and their intervals.

A test set of a few dozen images carries an I-AUROC with an uncertainty of several points; the
bootstrap says how large it is. How much the choice of shots matters it does not say: that is the
spread over few-shot seeds. Neither replaces the other: report both.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import ArrayLike

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import ranking


def image_metrics(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float | None = None
) -> dict[str, float]:
    """Image AUROC, AP and F1max, ties included; with a threshold, F1 there too.

    Args:
        scores: one per image, larger is more anomalous.
        labels: one per image, 0 good and 1 defective (or bool).
        threshold: an image is called defective where its score is > threshold. F1 at a threshold
            set without test labels is what a user gets; F1max is what an oracle would.

    Returns:
        i_auroc, i_ap, i_f1max in [0, 1]; with a threshold i_f1, i_recall (share of the defective
        called so) and i_false_alarm_rate (share of the good called defective).

    Raises:
        BadInputError: no image, no good or no defective one, NaN or infinite scores, labels other
            than 0 and 1, or numbers that do not agree.
        ConfigError: for a threshold that is not finite.
    """
    values, defective = _check(scores, labels)
    ranked = _rank(values, defective)
    metrics = {
        "i_auroc": ranking.auroc(ranked),
        "i_ap": ranking.average_precision(ranked),
        "i_f1max": ranking.f1_max(ranked),
    }
    if threshold is not None:
        if not np.isfinite(threshold):
            raise ConfigError(f"threshold must be finite, got {threshold}")
        # Compared in float64: numpy would round the threshold to float32 scores' type.
        alarms = values.astype(np.float64) > threshold
        found, false = int(alarms[defective].sum()), int(alarms[~defective].sum())
        metrics["i_f1"] = 2 * found / (found + false + ranked.defective)
        metrics["i_recall"] = found / ranked.defective
        metrics["i_false_alarm_rate"] = false / ranked.good
    return metrics


def image_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of the image metrics: how much another test set of this size may differ.

    Stratified: good and defective images are drawn with replacement among themselves, so every draw
    has as many of each as the set. Percentile intervals; with fewer than some 20 images of a kind
    they are too narrow, and a perfect ranking has an interval of width 0 that proves nothing.

    Args:
        scores: as for `image_metrics`.
        labels: as for `image_metrics`.
        level: share of draws inside the interval, in (0, 1).
        draws: resampled sets.
        seed: of the draws.

    Returns:
        (low, high) for i_auroc, i_ap and i_f1max.

    Raises:
        BadInputError: as for `image_metrics`.
        ConfigError: for a level or a number of draws out of range.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must lie between 0 and 1, got {level}", "e.g. 0.95")
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, got {draws}", "e.g. 2000")
    values, defective = _check(scores, labels)
    distinct, place = np.unique(values, return_inverse=True)
    bad = np.bincount(place[defective], minlength=len(distinct))
    good = np.bincount(place[~defective], minlength=len(distinct))
    generator = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(distinct))  # draws at a time: bounds the memory
    resampled = []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        resampled.append(
            _metrics_of_draws(
                generator.multinomial(bad.sum(), bad / bad.sum(), size=size),
                generator.multinomial(good.sum(), good / good.sum(), size=size),
            )
        )
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(np.concatenate(resampled, axis=1), tails, axis=1)
    names = ("i_auroc", "i_ap", "i_f1max")
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _metrics_of_draws(
    bad: Int64[np.ndarray, "draws U"], good: Int64[np.ndarray, "draws U"]
) -> Float64[np.ndarray, "3 draws"]:
    """AUROC, AP and F1max of many resampled sets, from counts at each ascending distinct score."""
    found = bad[:, ::-1].cumsum(axis=1)[:, ::-1]
    false = good[:, ::-1].cumsum(axis=1)[:, ::-1]
    positives, negatives = bad[0].sum(), good[0].sum()
    auroc = 1 - (bad * (2 * false - good)).sum(axis=1) / (2 * positives * negatives)
    precision = found / np.maximum(found + false, 1)  # nothing drawn at or above: weight 0
    ap = (bad * precision).sum(axis=1) / positives
    f1 = (2 * found / (found + false + positives)).max(axis=1)
    return np.stack([auroc, ap, f1])


def _rank(values: Float[np.ndarray, " n"], defective: Bool[np.ndarray, " n"]) -> ranking.Ranking:
    scores, counts = np.unique(values[defective], return_counts=True)
    good = np.sort(values[~defective])
    above = len(good) - np.searchsorted(good, scores, side="right")
    above_or_equal = len(good) - np.searchsorted(good, scores, side="left")
    return ranking.Ranking(scores, counts, above, above_or_equal, len(good))


def _check(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    values, truth = np.asarray(scores), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise BadInputError(
            f"scores and labels must be two lists of one length, got shapes {values.shape} and "
            f"{truth.shape}",
            "pass one score and one label per image",
        )
    if len(values) == 0:
        raise BadInputError("there are no images to evaluate", "check the source or its folder")
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise BadInputError(f"scores must be real numbers, got {values.dtype}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise BadInputError(
            f"scores must be finite, got {values[first]} for image {first} "
            f"({int((~finite).sum())} in all)",
            "mend the detector; a missing score cannot be ranked",
        )
    if truth.dtype.kind not in "biuf" or not np.isin(truth, (0, 1)).all():
        raise BadInputError("labels must be 0 (good) or 1 (defective)", "drop unlabelled images")
    defective = truth.astype(bool)
    for kind, count in (("defective", defective.sum()), ("good", (~defective).sum())):
        if count == 0:
            raise BadInputError(
                f"no {kind} image among {len(values)}: AUROC, AP and F1 are undefined",
                "evaluate a test set that holds both",
            )
    return values, defective
