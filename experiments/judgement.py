"""What a trained detector makes of a test set: figures, scores, and counts for the bootstrap.

Pixel figures are of each scan's own pixels (`exact`), and of 224 x 224 with 99 thresholds (`cfm99`),
which is what published tables hold.

For a bootstrap over images nothing needs to be judged again: pixel scores are counted image by
image (normal pixels) and defect by defect (8-connected regions) in bins whose edges are quantiles
of all normal pixels' scores, close together where false-positive rates are low. Reweighted and
summed, the counts give P-AUROC and AUPRO of any resampled test set (`experiments/bootstrap.py`).

Dimension letters: S scans, R regions, B bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from experiments.arrays import pack
from experiments.bank import Truth
from pirn_jax.judging import Outcome
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.metrics.pixel import label_regions

# False-positive rates at the edges of the bins: even down to 0.3, then geometric.
_RATES = np.concatenate([np.linspace(0.98, 0.3, 35), np.geomspace(0.29, 1e-4, 156)])
_SAMPLED = 2_000_000  # normal pixels that the edges are taken from


class Maps:
    """Maps at the model's size, seen at their scans' size; can be walked through again."""

    def __init__(self, maps: Sequence[np.ndarray], truths: Sequence[Truth]):
        self.names = [truth.key for truth in truths]
        self._maps, self._truths = maps, truths

    def __iter__(self) -> Iterator[np.ndarray]:
        return (t.frame.to_scan(m) for m, t in zip(self._maps, self._truths, strict=True))


def judge(outcomes: Sequence[Outcome], truths: Sequence[Truth]) -> dict[str, Any]:
    """Everything worth keeping of one test set, JSON-ready.

    Returns:
        `figures`, `cfm99`, `modalities` (figures of each stream's own map), `images` (key, label,
        defect, score and each modality's score, scan by scan), and `counts` where masks are known.
    """
    labels = [truth.label for truth in truths]
    scores = {"score": [outcome.score for outcome in outcomes]}
    maps = {"fused": Maps([outcome.fused for outcome in outcomes], truths)}
    for name in outcomes[0].maps:
        each = [outcome.maps[name] for outcome in outcomes]
        scores[f"score_{name}"] = [float(one.max()) for one in each]
        maps[name] = Maps(each, truths)
    masks = [truth.mask for truth in truths]
    known = all(mask is not None for mask in masks) and any(
        m is not None and m.any() for m in masks
    )
    ignore = [truth.ignore for truth in truths]
    found: dict[str, Any] = {
        "figures": _image(scores["score"], labels),
        "cfm99": {},
        "modalities": {name: _image(scores[f"score_{name}"], labels) for name in outcomes[0].maps},
        "images": {
            "key": [truth.key for truth in truths],
            "label": labels,
            "defect": [truth.defect for truth in truths],
            **scores,
        },
    }
    if known:
        found["figures"] |= evaluate_maps(maps["fused"], masks, ignore=ignore)
        found["cfm99"] = evaluate_maps(maps["fused"], masks, ignore=ignore, protocol="cfm99")
        for name, figures in found["modalities"].items():
            alone = len(found["modalities"]) == 1  # its map is the fused one
            more = found["figures"] if alone else evaluate_maps(maps[name], masks, ignore=ignore)
            figures |= {k: v for k, v in more.items() if k not in figures}
        found["counts"] = _counts(maps["fused"], truths)
    return found


def _image(scores: Sequence[float], labels: Sequence[int | None]) -> dict[str, float]:
    pairs = [(s, label) for s, label in zip(scores, labels, strict=True) if label is not None]
    if len({label for _, label in pairs}) < 2:
        return {}
    return image_metrics(np.array([s for s, _ in pairs]), np.array([label for _, label in pairs]))


def _counts(maps: Maps, truths: Sequence[Truth]) -> dict[str, Any]:
    """Pixels per bin: of each scan's normal ones, and of each region."""
    edges = _edges(maps, truths)
    normal, regions, owner = [], [], []
    for place, (scores, truth) in enumerate(zip(maps, truths, strict=True)):
        assert truth.mask is not None
        seen = np.ones(scores.shape, bool) if truth.ignore is None else ~truth.ignore
        bins = np.searchsorted(edges, scores, side="right")
        normal.append(np.bincount(bins[~truth.mask & seen], minlength=len(edges) + 1))
        labels = label_regions(truth.mask)
        labels[~seen] = 0
        for region in np.flatnonzero(np.bincount(labels[labels > 0])):
            regions.append(np.bincount(bins[labels == region], minlength=len(edges) + 1))
            owner.append(place)
    return {
        "normal": pack(np.array(normal, np.int32)),
        "regions": pack(np.array(regions, np.int32).reshape(-1, len(edges) + 1)),
        "owner": pack(np.array(owner, np.int32)),
    }


def _edges(maps: Maps, truths: Sequence[Truth]) -> Float64[np.ndarray, " edges"]:
    total = sum(truth.frame.scan[0] * truth.frame.scan[1] for truth in truths)
    step = max(1, total // _SAMPLED)
    sample = []
    for scores, truth in zip(maps, truths, strict=True):
        assert truth.mask is not None
        seen = ~truth.mask if truth.ignore is None else ~truth.mask & ~truth.ignore
        sample.append(scores[seen][::step])
    normal = np.concatenate(sample)
    return np.unique(np.quantile(normal.astype(np.float64), 1 - _RATES))


def figures_of_counts(
    normal: Int32[np.ndarray, "S B"],
    regions: Int32[np.ndarray, "R B"],
    owner: Int32[np.ndarray, " R"],
    weights: Float64[np.ndarray, "D S"],
    limits: Sequence[float] = (0.3, 0.1, 0.05, 0.01),
) -> dict[str, Float64[np.ndarray, " D"]]:
    """P-AUROC and AUPRO of test sets in which each scan counts so many times.

    Args:
        normal: normal pixels of each scan, by bin of score, ascending.
        regions: pixels of each defective region.
        owner: the scan of each region.
        weights: of the scans, D test sets; each must hold a defective and a normal pixel.
        limits: false-positive rates of AUPRO.
    """
    false = _above(weights @ normal.astype(np.float64))
    each = weights[:, owner]
    found = _above(each @ regions.astype(np.float64))
    sizes = regions.sum(1, keepdims=True).astype(np.float64)
    overlap = _above(each @ (regions / sizes))
    figures = {"p_auroc": np.array([_area(x, y, 1.0) for x, y in zip(false, found, strict=True)])}
    for limit in limits:
        areas = [_area(x, y, limit) / limit for x, y in zip(false, overlap, strict=True)]
        figures[f"aupro_{limit:g}"] = np.array(areas)
    return figures


def _above(counts: Float64[np.ndarray, "D B"]) -> Float64[np.ndarray, "D edges"]:
    """Share of the whole at or above each edge, from none to all."""
    up = np.cumsum(counts[:, ::-1], axis=1)
    return np.concatenate([np.zeros((len(up), 1)), up], axis=1) / up[:, -1:]


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    inside = x < limit
    ends = np.append(x[inside], limit)
    return float(np.trapezoid(np.append(y[inside], np.interp(limit, x, y)), ends))
