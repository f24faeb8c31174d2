"""Pixel metrics of a whole set of anomaly maps: exact, streamed, small.

Two walks through the maps. The first keeps the scores of the defective pixels (one to three percent
of all) and the size of each one's region; the second sorts the good pixels some millions at a
time and counts how many lie above each distinct defective score. The closed forms of `ranking.py`
do the rest. Memory: the defective pixels and a few chunks, whatever the number of maps.

Conventions, the same for every metric:

* a pixel is defective where its mask is `> 0`, and all images, good ones too, are pooled;
* a region is an 8-connected component of one image's mask; ignored pixels leave their region after
  it was formed, and a region that is ignored altogether does not count;
* maps are evaluated at their own size, without resizing (`protocol="cfm99"` alone resizes).

Source: Bergmann et al., "The MVTec 3D-AD Dataset", for AUPRO: linear inside tie blocks and at the
limit, divided by the limit.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, Int64, Shaped
from numpy.typing import ArrayLike
from scipy import ndimage

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import cfm99, ranking
from pirn_jax.metrics.pairs import Pair, Pairs

LIMITS = (0.3, 0.1, 0.05, 0.01)
EIGHT = np.ones((3, 3), dtype=bool)  # neighbours of a pixel: 8-connectivity
CHUNK = 1 << 22  # good pixels sorted at a time: 16 MiB of float32


def evaluate_maps(
    maps: Iterable[ArrayLike],
    masks: Iterable[ArrayLike | None],
    limits: Sequence[float] = LIMITS,
    *,
    ignore: Iterable[ArrayLike | None] | None = None,
    protocol: Literal["exact", "cfm99"] = "exact",
    threshold: float | None = None,
    curves: int = 0,
) -> dict[str, Any]:
    """Pixel AUROC, AP, F1max and AUPRO of anomaly maps, exactly.

    Args:
        maps: anomaly maps (H, W), larger is more anomalous; anything `iter()` works on twice. They
            may lie on disk and differ in size.
        masks: one per map, of its size: 0 good, > 0 defective (a defect's id, or 255).
        limits: false-positive rates in (0, 1] up to which AUPRO is integrated.
        ignore: one per map (or None for a map): > 0 is left out of everything.
        protocol: "exact", or "cfm99" for the number published tables hold: maps and masks brought
            to 224 x 224, AUPRO from 99 thresholds (0.003 low at 30 %, 0.08 low at 1 %).
        threshold: also give F1 of the masks `map > threshold`, as p_f1.
        curves: also give about that many points of the ROC and of the PRO curve.

    Returns:
        p_auroc, p_ap, p_f1max in [0, 1], aupro_<limit> for each limit; p_f1 with a threshold;
        with `curves`, "roc": {fpr, tpr} and "pro": {fpr, pro} as lists. A constant map scores
        p_auroc = 0.5 and aupro_L = L / 2.

    Raises:
        BadInputError: where a metric is undefined or would be false: no maps, no defective or no
            good pixel, NaN or infinite scores, shapes that do not agree, a one-shot source.
        ConfigError: for a limit, threshold or protocol out of range.
    """
    _check(limits, protocol, threshold, curves)
    pairs = Pairs(maps, masks, ignore)
    if protocol == "cfm99":
        pairs = cfm99.Resized(pairs)
    ranked, above_threshold = rank_pixels(pairs, threshold)
    metrics: dict[str, Any] = {
        "p_auroc": ranking.auroc(ranked),
        "p_ap": ranking.average_precision(ranked),
        "p_f1max": ranking.f1_max(ranked),
    }
    if threshold is not None:
        found = int(ranked.counts[ranked.scores.astype(np.float64) > threshold].sum())
        metrics["p_f1"] = 2 * found / (found + above_threshold + ranked.defective)
    if protocol == "exact":
        areas = [ranking.aupro(ranked, limit) for limit in limits]
    else:
        areas = cfm99.aupro(pairs, ranked, limits)
    metrics |= {f"aupro_{limit:g}": area for limit, area in zip(limits, areas, strict=True)}
    if curves:
        metrics["roc"] = ranking.curve(ranked, curves, regions=False)
        metrics["pro"] = ranking.curve(ranked, curves, regions=True)
    return metrics


def _check(limits: Sequence[float], protocol: str, threshold: float | None, curves: int) -> None:
    if not all(0.0 < limit <= 1.0 for limit in limits):
        raise ConfigError(
            f"limits must be false-positive rates in (0, 1], got {tuple(limits)}", "e.g. 0.3"
        )
    if len({f"{limit:g}" for limit in limits}) < len(limits):
        raise ConfigError(f"limits must differ, got {tuple(limits)}", "name each limit once")
    if protocol not in ("exact", "cfm99"):
        raise ConfigError(f"protocol must be 'exact' or 'cfm99', got {protocol!r}")
    if threshold is not None and not np.isfinite(threshold):
        raise ConfigError(f"threshold must be finite, got {threshold}")
    if curves < 0 or curves == 1:
        raise ConfigError(f"curves must be 0 or at least 2 points, got {curves}")


class Defective(NamedTuple):
    """The defective pixels of a set: distinct scores, how many each, and their PRO weight."""

    scores: Shaped[np.ndarray, " U"]
    counts: Int64[np.ndarray, " U"]
    weights: Float64[np.ndarray, " U"]
    maps: int


def rank_pixels(
    pairs: Iterable[Pair], threshold: float | None = None
) -> tuple[ranking.Ranking, int]:
    """Walk twice through the maps and count.

    Returns:
        The ranking of all pixels, and how many good pixels are > `threshold` (0 without one).
    """
    defective = _defective(pairs)
    above, above_or_equal, good, over, maps = _count_good(pairs, defective.scores, threshold)
    if maps != defective.maps:
        raise BadInputError(
            f"the source gave {defective.maps} maps the first time and {maps} the second",
            "the maps must not change while they are evaluated",
        )
    if good == 0:
        raise BadInputError(
            "no good pixel in any mask: false-positive rates are undefined",
            "check that masks are 0 where the part is good",
        )
    ranked = ranking.Ranking(
        defective.scores, defective.counts, above, above_or_equal, good, defective.weights
    )
    return ranked, over


def _defective(pairs: Iterable[Pair]) -> Defective:
    scores, weights, regions, maps = [], [], 0, 0
    dtype = np.dtype(np.float32)
    for pair in pairs:
        maps += 1
        dtype = np.promote_types(dtype, pair.scores.dtype)
        in_map, weight, count = region_scores(pair)
        if count:
            scores.append(in_map)
            weights.append(weight)
            regions += count
    if regions == 0:
        raise BadInputError(
            f"no defective pixel in any of {maps} masks: AUROC, AP and AUPRO are undefined",
            "check that the masks are read (> 0 is defective) and not all ignored",
        )
    flat = np.concatenate(scores).astype(dtype, copy=False)
    scores.clear()
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    counts = np.diff(np.append(starts, len(flat)))
    weight = np.add.reduceat(np.concatenate(weights)[order], starts) / regions
    return Defective(flat[starts], counts, weight, maps)


def label_regions(mask: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Number the 8-connected regions of a mask from 1; 0 elsewhere."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, EIGHT, output=labels)
    return labels


def region_scores(
    pair: Pair,
) -> tuple[Shaped[np.ndarray, " P"], Float64[np.ndarray, " P"], int]:
    """Scores of a map's defective pixels, one over the size of each one's region, and regions."""
    mask = pair.mask > 0
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return pair.scores[:0, 0], np.zeros(0), 0
    columns = np.flatnonzero(mask.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    labels = label_regions(mask[window])  # labelling the window alone is much faster
    seen = mask[window] if pair.seen is None else mask[window] & pair.seen[window]
    region = labels[seen]
    size = np.bincount(region)
    return pair.scores[window][seen], 1.0 / size[region], int(np.count_nonzero(size))


def _count_good(
    pairs: Iterable[Pair], scores: Shaped[np.ndarray, " U"], threshold: float | None
) -> tuple[Int64[np.ndarray, " U"], Int64[np.ndarray, " U"], int, int, int]:
    """Normal pixels >, and >=, each of the ascending scores; all; above the threshold; and maps."""
    below = np.zeros(len(scores), np.int64)
    equal = np.zeros(len(scores), np.int64)
    good = over = 0
    seen_maps = [0]

    def count(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
        chunk.sort()  # releases the interpreter's lock, as searchsorted does
        less = np.searchsorted(chunk, scores)
        tied = np.flatnonzero(chunk[np.minimum(less, len(chunk) - 1)] == scores)
        ties = np.searchsorted(chunk, scores[tied], side="right") - less[tied]
        hot = 0
        if threshold is not None:  # in float64: a float32 threshold could land on the other side
            hot = len(chunk) - int(np.searchsorted(chunk, _just(threshold, chunk.dtype), "right"))
        return less, tied, ties, len(chunk), hot

    def absorb(done: Future) -> None:
        nonlocal good, over
        less, tied, ties, size, hot = done.result()
        np.add(below, less, out=below)
        equal[tied] += ties
        good += size
        over += hot

    workers = min(4, os.cpu_count() or 1)
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for chunk in _good_chunks(pairs, max(CHUNK, len(scores)), scores.dtype, seen_maps):
            pending.append(pool.submit(count, chunk))
            del chunk
            if len(pending) >= workers:
                absorb(pending.popleft())
        while pending:
            absorb(pending.popleft())
    above_or_equal = good - below
    return above_or_equal - equal, above_or_equal, good, over, seen_maps[0]


def _just(threshold: float, dtype: np.dtype) -> np.floating:
    """The largest number of this type that is <= threshold: `s > threshold` asks `s > it`."""
    value = dtype.type(threshold)
    return value if float(value) <= threshold else np.nextafter(value, dtype.type(-np.inf))


def _good_chunks(
    pairs: Iterable[Pair], size: int, dtype: np.dtype, seen_maps: list[int]
) -> Iterator[Float[np.ndarray, " chunk"]]:
    """The good pixels' scores in new arrays of `size` (the last is shorter); counts the maps."""
    chunk, filled = np.empty(size, dtype), 0
    for pair in pairs:
        seen_maps[0] += 1
        height, width = pair.scores.shape
        rows = max(1, CHUNK // width)  # a huge map goes by in bands of rows
        for top in range(0, height, rows):
            band = slice(top, top + rows)
            part = _good_scores(pair.scores[band], pair.mask[band], pair.seen, band)
            while len(part):
                take = min(len(part), size - filled)
                chunk[filled : filled + take] = part[:take]
                part, filled = part[take:], filled + take
                if filled == size:
                    yield chunk
                    chunk, filled = np.empty(size, dtype), 0
    if filled:
        yield chunk[:filled]


def _good_scores(
    scores: Shaped[np.ndarray, "rows W"],
    mask: Shaped[np.ndarray, "rows W"],
    seen: Bool[np.ndarray, "H W"] | None,
    band: slice,
) -> Shaped[np.ndarray, " pixels"]:
    good = mask == 0
    if seen is not None:
        good &= seen[band]
    elif good.all():
        return scores.reshape(-1)  # a view: most bands of most maps
    return scores[good]
