"""What a trained detector makes of a test set: figures, scores, and counts for the bootstrap.

Pixel figures are of each scan's own pixels, exact; and, apart, of 224 x 224 pixels with 99
thresholds (`cfm99`), which is what published tables hold. Image scores and histograms of pixel
scores, scan by scan, are kept for the bootstrap (`experiments/bootstrap.py`), which then needs no
detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from experiments.arrays import pack, unpack
from experiments.bank import Truth
from experiments.bootstrap import Evaluation, Histograms, histograms, pixels_of
from pirn_jax.judging import Outcome
from pirn_jax.metrics import evaluate_maps, image_metrics


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
        defect, score and each modality's score, scan by scan), and, where masks are known,
        `histograms` of pixel scores; see `evaluation_of`.
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
        pixels = [
            pixels_of(truth.mask, None if truth.ignore is None else ~truth.ignore)
            for truth in truths
            if truth.mask is not None
        ]
        found["histograms"] = {
            name: pack(array)
            for name, array in histograms(list(maps["fused"]), pixels)._asdict().items()
        }
    return found


def evaluation_of(
    document: Mapping[str, Any], scores: str = "score"
) -> tuple[Evaluation, Bool[np.ndarray, " n"]]:
    """What the bootstrap compares, and which scans are defective.

    Args:
        document: what `judge` made of a test set.
        scores: which of its image scores.
    """
    packed = document.get("histograms")
    pixels = None
    if packed is not None:
        pixels = Histograms(**{name: unpack(array) for name, array in packed.items()})
    images = document["images"]
    return Evaluation(np.array(images[scores]), pixels), np.array(images["label"]) == 1


def _image(scores: Sequence[float], labels: Sequence[int | None]) -> dict[str, float]:
    pairs = [(s, label) for s, label in zip(scores, labels, strict=True) if label is not None]
    if len({label for _, label in pairs}) < 2:
        return {}
    return image_metrics(np.array([s for s, _ in pairs]), np.array([label for _, label in pairs]))
