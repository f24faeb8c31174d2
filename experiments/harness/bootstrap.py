"""Is one detector better than another on a set, or was it these images and these shots?

A paired bootstrap: images are drawn with replacement, good and defective among themselves, and so
are the draws of the shots; both detectors are looked at on the same draw, and the interval is that
of their difference. Two detectors that differ everywhere by the same amount have a narrow interval
however hard the images are.

A figure of a detector is the mean over its draws of the shots, so a replicate is the mean over the
draws that were drawn. Image AUROC is exact. Pixel figures come from a histogram per image: the maps
of a draw are cut into bins at quantiles of their own scores, scores within a bin are ties, and a
resampled set is a weighted sum of histograms, put into the closed forms of `metrics.ranking`. On
binned maps they are what `evaluate_maps` gives for the images of the replicate (a test checks it);
on the maps themselves they are off by less than 0.001.

Dimension letters: n images, B bins, D draws of the shots, R replicates, P pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from pirn_jax.errors import BadInputError
from pirn_jax.metrics.pixel import label_regions

BINS = 256
NORMALS = 16384
"""Normal pixels looked at per image, at most: every s-th row and column. Defects are counted whole,
so regions keep their size, and a share of the normal pixels is estimated to 0.1 % and better."""
METRICS = ("i_auroc", "p_auroc", "aupro_0.3")
_LIMIT = 0.3


class Histograms(NamedTuple):
    """What the pixels of a set's images scored, in bins of ascending score.

    Attributes:
        normal: normal pixels of each image by bin.
        defective: defective pixels, the same.
        regions: the same, each pixel counted as one over the size of its region.
        region_count: regions of each image.
    """

    normal: Float32[np.ndarray, "n B"]
    defective: Float32[np.ndarray, "n B"]
    regions: Float32[np.ndarray, "n B"]
    region_count: Float32[np.ndarray, " n"]


class Evaluation(NamedTuple):
    """One detector on one set's test images, trained on one draw of the shots.

    Attributes:
        scores: image scores.
        pixels: None where there are no masks.
    """

    scores: Float[np.ndarray, " n"]
    pixels: Histograms | None


class Pixels(NamedTuple):
    """Which pixels of an image are looked at, and what they are.

    Attributes:
        normal: flat places of normal pixels.
        each: how many pixels each of them stands for.
        defective: flat places of all defective pixels.
        weights: one over the size of each one's region.
        regions: how many regions there are.
    """

    normal: Int[np.ndarray, " P"]
    each: int
    defective: Int[np.ndarray, " Q"]
    weights: Float64[np.ndarray, " Q"]
    regions: int


class Interval(NamedTuple):
    """A figure, or a difference of figures, with its interval."""

    value: float
    low: float
    high: float


def pixels_of(mask: Bool[np.ndarray, "H W"], seen: Bool[np.ndarray, "H W"] | None = None) -> Pixels:
    """The pixels to look at in the maps of an image.

    Args:
        mask: True on defects.
        seen: False where metrics may not look; None: they may look everywhere.
    """
    looked = np.ones_like(mask) if seen is None else seen
    labels = label_regions(mask)
    defective = np.flatnonzero(mask & looked)
    region = labels.reshape(-1)[defective]
    sizes = np.bincount(region)
    stride = max(1, int(np.ceil(np.sqrt(mask.size / NORMALS))))
    grid = np.zeros_like(mask)
    grid[stride // 2 :: stride, stride // 2 :: stride] = True
    normal = np.flatnonzero(grid & looked & ~mask)
    weights = 1.0 / sizes[region]
    return Pixels(normal, stride * stride, defective, weights, int(np.count_nonzero(sizes)))


def histograms(
    maps: Sequence[Float[np.ndarray, "H W"]], pixels: Sequence[Pixels], bins: int = BINS
) -> Histograms:
    """Cut a detector's maps into bins of its own.

    Half of the edges are quantiles of the normal scores, half of the defective ones (by region), so
    that both sides of every curve are resolved.
    """
    flat = [np.asarray(one, np.float32).reshape(-1) for one in maps]
    normal = [one[p.normal] for one, p in zip(flat, pixels, strict=True)]
    defective = [one[p.defective] for one, p in zip(flat, pixels, strict=True)]
    share = np.linspace(0, 1, bins // 2 + 1)[1:-1]
    edges = [np.quantile(np.concatenate(normal), share)]
    bad = np.concatenate(defective)
    if len(bad):
        weight = np.concatenate([p.weights for p in pixels])
        order = np.argsort(bad)
        reached = np.cumsum(weight[order]) / weight.sum()
        edges.append(bad[order][np.searchsorted(reached, share)])
    cuts = np.unique(np.concatenate(edges).astype(np.float32))

    def count(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(np.searchsorted(cuts, values), weights, minlength=bins)

    return Histograms(
        np.stack([count(v) * p.each for v, p in zip(normal, pixels, strict=True)]).astype("f4"),
        np.stack([count(v) for v in defective]).astype("f4"),
        np.stack([count(v, p.weights) for v, p in zip(defective, pixels, strict=True)]).astype(
            "f4"
        ),
        np.array([p.regions for p in pixels], np.float32),
    )


# --- figures of many resampled sets at once -------------------------------------------------------


def image_auroc(
    scores: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"], counts: Float[np.ndarray, "R n"]
) -> Float64[np.ndarray, " R"]:
    """Image AUROC of resampled sets, ties counted half.

    Args:
        scores: of the images.
        bad: which are defective.
        counts: how often each image is in each set.
    """
    high, low = scores[bad][:, None], scores[~bad][None]
    beats = (high > low) + 0.5 * (high == low)
    found, normal = counts[:, bad], counts[:, ~bad]
    return ((found @ beats) * normal).sum(1) / (found.sum(1) * normal.sum(1))


def pixel_figures(
    pixels: Histograms, counts: Float[np.ndarray, "R n"]
) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
    """Pixel AUROC and AUPRO up to 30 % of resampled sets; NaN where a set shows no defect."""
    normal, found, region = (
        counts @ array.astype(np.float64)[:, ::-1]  # highest bin first
        for array in (pixels.normal, pixels.defective, pixels.regions)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        x1 = normal.cumsum(1) / normal.sum(1, keepdims=True)  # normal pixels at or above the bin
        x0 = x1 - normal / normal.sum(1, keepdims=True)  # above it
        middle = (x0 + x1) / 2
        auroc = 1 - (found * middle).sum(1) / found.sum(1)
        cut = 1 - (_LIMIT - x0) ** 2 / (2 * (x1 - x0) * _LIMIT)
        loss = np.where(x1 <= _LIMIT, middle / _LIMIT, np.where(x0 < _LIMIT, cut, 1.0))
        aupro = 1 - (region * loss).sum(1) / (counts @ pixels.region_count.astype(np.float64))
    return auroc, aupro


def figures_of(
    evaluation: Evaluation, bad: Bool[np.ndarray, " n"], counts: Float[np.ndarray, "R n"]
) -> dict[str, Float64[np.ndarray, " R"]]:
    """Every metric of resampled sets; NaN for pixel metrics without masks."""
    nothing = np.full(len(counts), np.nan)
    auroc, aupro = (
        (nothing, nothing)
        if evaluation.pixels is None
        else pixel_figures(evaluation.pixels, counts)
    )
    return dict(
        zip(METRICS, (image_auroc(evaluation.scores, bad, counts), auroc, aupro), strict=True)
    )


def plain_figures(
    evaluation: Evaluation,
    bad: Bool[np.ndarray, " n"],
    of: Bool[np.ndarray, " n"] | None = None,
) -> dict[str, float]:
    """Every metric of the images themselves, or of some of them."""
    counts = np.ones((1, len(bad))) if of is None else of[None].astype(np.float64)
    return {name: float(value[0]) for name, value in figures_of(evaluation, bad, counts).items()}


# --- the bootstrap --------------------------------------------------------------------------------


class Resamples(NamedTuple):
    """Replicates of a set: how often each image, and each draw of the shots, is in each."""

    images: Int[np.ndarray, "R n"]
    draws: Int[np.ndarray, "R D"]


def resample(
    bad: Bool[np.ndarray, " n"], draws: int, replicates: int = 2000, seed: int = 0
) -> Resamples:
    """Draw replicates; each has as many good and as many defective images as the set.

    Raises:
        BadInputError: a set without a good or without a defective image.
    """
    if not bad.any() or bad.all():
        raise BadInputError(
            f"{int(bad.sum())} of {len(bad)} images are defective: nothing can be ranked",
            "evaluate a test set that holds both",
        )
    rng = np.random.default_rng(seed)
    images = np.zeros((replicates, len(bad)), np.int64)
    for kind in (np.flatnonzero(bad), np.flatnonzero(~bad)):
        even = np.full(len(kind), 1 / len(kind))
        images[:, kind] = rng.multinomial(len(kind), even, size=replicates)
    return Resamples(images, rng.multinomial(draws, np.full(draws, 1 / draws), size=replicates))


def replicate(
    evaluations: Sequence[Evaluation], bad: Bool[np.ndarray, " n"], resamples: Resamples
) -> dict[str, Float64[np.ndarray, " R"]]:
    """A detector's figures on every replicate: means over the draws of the shots in it.

    Args:
        evaluations: one per draw, in the order that is the same for every detector.
        bad: which images are defective.
        resamples: the same for detectors that are to be compared.
    """
    counts, shares = resamples.images.astype(np.float64), resamples.draws / len(evaluations)
    per_draw = [figures_of(one, bad, counts) for one in evaluations]
    return {
        name: np.einsum("rd,dr->r", shares, np.stack([one[name] for one in per_draw]))
        for name in METRICS
    }


def paired_difference(
    ours: Sequence[Evaluation],
    theirs: Sequence[Evaluation],
    bad: Bool[np.ndarray, " n"],
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """By how much a detector is ahead of another on a set, with the interval of that.

    Args:
        ours: evaluations of one detector, one per draw of the shots.
        theirs: of the other, on the same images and draws, in the same order.
        bad: which images are defective.
        replicates: how many.
        level: of the percentile interval.
        seed: of the replicates.
    """
    _check_paired(ours, theirs, bad)
    resamples = resample(bad, len(ours), replicates, seed)
    one, other = (replicate(which, bad, resamples) for which in (ours, theirs))
    value = difference(ours, theirs, bad)
    return {name: interval(value[name], one[name] - other[name], level) for name in METRICS}


def difference(
    ours: Sequence[Evaluation], theirs: Sequence[Evaluation], bad: Bool[np.ndarray, " n"]
) -> dict[str, float]:
    """By how much the mean over the draws is ahead."""
    one, other = (mean_figures(which, bad) for which in (ours, theirs))
    return {name: one[name] - other[name] for name in METRICS}


def mean_figures(
    evaluations: Sequence[Evaluation], bad: Bool[np.ndarray, " n"]
) -> dict[str, float]:
    """A detector's figures on the images themselves: means over its draws of the shots."""
    each = [plain_figures(one, bad) for one in evaluations]
    return {name: float(np.mean([one[name] for one in each])) for name in METRICS}


def interval(value: float, replicates: Float[np.ndarray, " R"], level: float = 0.95) -> Interval:
    """The percentile interval of a figure's replicates; replicates that are NaN do not count."""
    there = replicates[np.isfinite(replicates)]
    if not len(there):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _check_paired(
    ours: Sequence[Evaluation], theirs: Sequence[Evaluation], bad: Bool[np.ndarray, " n"]
) -> None:
    sizes = {len(one.scores) for one in (*ours, *theirs)} | {len(bad)}
    if len(ours) != len(theirs) or not ours or len(sizes) > 1:
        raise BadInputError(
            f"{len(ours)} evaluations against {len(theirs)}, of {sorted(sizes)} images",
            "a pair is the same images and the same draws of the shots",
        )
