"""Closed forms: how well scores rank the defective above the good, ties and all.

Every metric here needs only what one defective pixel (or image) sees of the good ones. With score
s, x0 is the share of the good scored > s and x1 the share scored >= s; on the ROC curve the tie
block of s runs from x0 to x1 and is joined by a straight line. Hence

* AUROC = 1 - mean((x0 + x1) / 2): ties count one half (Mann-Whitney);
* AP = mean of the precision at s over the defective: scikit-learn's step form, not a trapezoid;
* F1max = max over s of 2 TP / (TP + FP + P): the best threshold is always a defective's score;
* AUPRO@L = sum of w A / L, where w = 1 / (R |r|) for a pixel of region r (R regions, |r| pixels)
  and A is the area right of the pixel's step and left of L: L - (x0 + x1)/2 where x1 <= L,
  (L - x0)^2 / (2 (x1 - x0)) where L cuts the tie block, else 0.

No threshold grid, no sorting of all pixels together, and every limit for free. Metrics are taken
as 1 - loss, so that a perfect ranking gives exactly 1. A map that is constant gives AUROC 1/2 and
AUPRO@L = L/2: the straight line from (0, 0) to (1, 1).

Letters: U distinct scores of the defective, R regions, P defective, n good.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped


class Ranking(NamedTuple):
    """What the defective see of the good ones, at each distinct score of a defective one.

    Attributes:
        scores: the distinct scores of the defective, ascending.
        counts: how many defective ones have that score.
        above: how many good ones are scored > it.
        above_or_equal: how many good ones are scored >= it.
        good: how many good ones there are, > 0.
        weights: PRO weight of the defective pixels with that score, 1 in all; None for images.
    """

    scores: Shaped[np.ndarray, " U"]
    counts: Int64[np.ndarray, " U"]
    above: Int64[np.ndarray, " U"]
    above_or_equal: Int64[np.ndarray, " U"]
    good: int
    weights: Float64[np.ndarray, " U"] | None = None

    @property
    def defective(self) -> int:
        """How many defective ones there are."""
        return int(self.counts.sum())

    @property
    def found(self) -> Int64[np.ndarray, " U"]:
        """How many defective ones are scored >= each distinct score."""
        return np.cumsum(self.counts[::-1])[::-1]

    @property
    def shares(self) -> tuple[Float64[np.ndarray, " U"], Float64[np.ndarray, " U"]]:
        """x0 and x1: share of the good scored above, and at or above, each distinct score."""
        return self.above / self.good, self.above_or_equal / self.good


def auroc(ranking: Ranking) -> float:
    """Area under the ROC curve, in [0, 1]; ties count one half."""
    x0, x1 = ranking.shares
    return 1.0 - float(np.sum(ranking.counts * ((x0 + x1) / 2))) / ranking.defective


def average_precision(ranking: Ranking) -> float:
    """Average precision, in (0, 1]: the sum of precision times the step in recall."""
    found = ranking.found
    precision = found / (found + ranking.above_or_equal)
    return float(np.sum(ranking.counts * precision)) / ranking.defective


def f1_max(ranking: Ranking) -> float:
    """The best F1 any threshold reaches, in (0, 1]; optimistic, as it is chosen with the labels."""
    found = ranking.found
    return float(np.max(2 * found / (found + ranking.above_or_equal + ranking.defective)))


def aupro(ranking: Ranking, limit: float) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by it.

    Args:
        ranking: of pixels, with weights.
        limit: largest false-positive rate L, in (0, 1].
    """
    assert ranking.weights is not None
    x0, x1 = ranking.shares
    loss = np.ones_like(x0)
    whole, cut = x1 <= limit, (x0 < limit) & (limit < x1)
    loss[whole] = (x0[whole] + x1[whole]) / (2 * limit)
    loss[cut] = 1.0 - (limit - x0[cut]) ** 2 / (2 * (x1[cut] - x0[cut]) * limit)
    return min(1.0, max(0.0, 1.0 - float(np.sum(ranking.weights * loss))))


def curve(ranking: Ranking, points: int, regions: bool) -> dict[str, list[float]]:
    """Corners of the ROC curve (`regions=False`) or the PRO curve (`regions=True`), thinned.

    Every point returned lies on the exact curve; they are spread evenly along it.

    Returns:
        "fpr", ascending, and "tpr" or "pro", each with about `points` values from 0 to 1.
    """
    x0, x1 = (share[::-1] for share in ranking.shares)
    if regions:
        assert ranking.weights is not None
        rise = ranking.weights[::-1]
    else:
        rise = ranking.counts[::-1] / ranking.defective
    after = np.minimum(np.cumsum(rise), 1.0)
    x = np.concatenate([[0.0], np.stack([x0, x1], axis=1).reshape(-1), [1.0]])
    before = np.concatenate([[0.0], after[:-1]])
    y = np.concatenate([[0.0], np.stack([before, after], axis=1).reshape(-1), [1.0]])
    path = x + y  # grows along the curve, from 0 to 2
    keep = np.unique(np.searchsorted(path, np.linspace(0.0, path[-1], points)))
    keep = np.unique(np.concatenate([[0], keep, [len(path) - 1]]))
    return {"fpr": x[keep].tolist(), ("pro" if regions else "tpr"): y[keep].tolist()}
