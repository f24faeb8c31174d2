"""The number published tables hold: 224 x 224 and 99 thresholds.

M3DM, CFM and the papers that follow them (PIRN too) take thresholds at 99 evenly spaced ranks of
the sorted good scores (M3DM 100), join the points by straight lines and divide the area by the
limit. The curve lies below the exact one: 0.003 at 30 %, 0.08 at 1 %, where one or two points are
all there is. Use it to compare with their tables, and the exact one for everything else.

Size: maps and masks are padded to a square and brought to 224 x 224, masks by nearest neighbour
(half-pixel centres, as Pillow does) and maps bilinearly without antialiasing (as PyTorch's
`interpolate`). The padding counts as good; maps continue there with their own minimum.

Source: CFM (Costanzino et al., 2024), utils/metrics_utils.py: thresholds, strict `>`, the start at
(1, 1), the trapezoid; models/dataset.py: square padding, nearest masks.
Differs from CFM: its per-image division by the mean score is a property of that detector, not of
the metric, and is left out; masks are `> 0` where CFM takes `> 0.5` of 255, which is the same for
MVTec 3D-AD's values 253 to 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Shaped

from pirn_jax.errors import BadInputError
from pirn_jax.metrics.pairs import Pair, Pairs
from pirn_jax.metrics.ranking import Ranking

SIZE = 224
THRESHOLDS = 99


class Resized(Pairs):
    """The same pairs at 224 x 224."""

    def __init__(self, pairs: Pairs):
        super().__init__(pairs.maps, pairs.masks, pairs.ignore)

    def __iter__(self) -> Iterator[Pair]:
        any_good = False
        for pair in super().__iter__():
            any_good = any_good or bool((pair.mask == 0).any())
            scores = resize_map(pad_square(pair.scores, pair.scores.min()))
            mask = nearest(pad_square(pair.mask, pair.mask.dtype.type(0)))
            seen = None if pair.seen is None else nearest(pad_square(pair.seen, np.True_))
            yield Pair(pair.name, scores, mask, seen)
        if not any_good:  # the padding alone would pass for good pixels
            raise BadInputError(
                "no good pixel in any mask: false-positive rates are undefined",
                "check that masks are 0 where the part is good",
            )


def pad_square(array: Shaped[np.ndarray, "H W"], fill: np.generic) -> Shaped[np.ndarray, "S S"]:
    """Centre the array in a square of its longer side; an odd pixel goes below or right."""
    height, width = array.shape
    side = max(height, width)
    if height == width:
        return array
    square = np.full((side, side), fill, array.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = array
    return square


def nearest(square: Shaped[np.ndarray, "S S"], size: int = SIZE) -> Shaped[np.ndarray, "s s"]:
    """Nearest neighbour with half-pixel centres."""
    index = ((np.arange(size) + 0.5) * (len(square) / size)).astype(int)
    index = np.minimum(index, len(square) - 1)
    return square[np.ix_(index, index)]


def resize_map(square: Shaped[np.ndarray, "S S"], size: int = SIZE) -> Shaped[np.ndarray, "s s"]:
    """Bilinear with half-pixel centres, no antialiasing; keeps the type. The same size: as is."""
    side = len(square)
    if side == size:
        return square
    centre = np.clip((np.arange(size) + 0.5) * (side / size) - 0.5, 0, side - 1)
    low = np.minimum(centre.astype(int), side - 1)
    high = np.minimum(low + 1, side - 1)
    share = (centre - low).astype(square.dtype)
    rows = square[low] * (1 - share)[:, None] + square[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


def aupro(pairs: Iterable[Pair], ranked: Ranking, limits: Sequence[float]) -> list[float]:
    """AUPRO at each limit from 99 thresholds.

    All good scores are held and sorted at once: 0.2 MB per map at this size.

    Args:
        pairs: maps and masks at 224 x 224.
        ranked: the defective pixels among them.
        limits: false-positive rates in (0, 1].
    """
    assert ranked.weights is not None
    good = np.concatenate([_good_scores(pair) for pair in pairs])
    good.sort()
    ranks = np.linspace(0, len(good) - 1, num=THRESHOLDS, dtype=int)
    fpr = np.concatenate([[1.0], 1.0 - (ranks + 1) / len(good)])[::-1]
    overlap = np.append(np.cumsum(ranked.weights[::-1])[::-1], 0.0)  # of scores >= each
    pro = overlap[np.searchsorted(ranked.scores, good[ranks], side="right")]
    pro = np.concatenate([[1.0], pro])[::-1]
    return [area_up_to(fpr, pro, limit) / limit for limit in limits]


def _good_scores(pair: Pair) -> Shaped[np.ndarray, " n"]:
    good = pair.mask == 0
    return pair.scores[good if pair.seen is None else good & pair.seen]


def area_up_to(
    x: Float64[np.ndarray, " points"], y: Float64[np.ndarray, " points"], limit: float
) -> float:
    """Trapezoid under (x, y), x ascending from 0, up to x = limit; linear inside the last step."""
    inside = x <= limit
    left, right = x[inside], y[inside]
    after = int(inside.sum())
    if after < len(x) and left[-1] < limit:
        share = (limit - x[after - 1]) / (x[after] - x[after - 1])
        left = np.append(left, limit)
        right = np.append(right, y[after - 1] + share * (y[after] - y[after - 1]))
    return float(np.trapezoid(right, left))
