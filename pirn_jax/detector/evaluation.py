"""What came out of a scan, and the metrics of many: maps are compared in each scan's own pixels.

Dimension letters: M modalities, H W scan pixels, h w model pixels, K prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.geometry import Views
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.scans import Scan


class Outcome(NamedTuple):
    """What the device made of a scan.

    Attributes:
        score: image score.
        fused: anomaly map at the model's size.
        maps: of each modality, the same.
        usage: share of the tokens that each prototype of the last layer answers for; None for a
            method without prototypes.
    """

    score: float
    fused: Float32[np.ndarray, "h w"]
    maps: dict[str, Float32[np.ndarray, "h w"]]
    usage: Float32[np.ndarray, "M K"] | None


class Judged(NamedTuple):
    """A scan with its views and its outcome."""

    scan: Scan
    views: Views
    outcome: Outcome


class Measurement:
    """Truth and maps of many scans, gathered one by one; then the metrics.

    Maps are kept at the model's size and brought to each scan's own when they are compared.

    Args:
        threshold: of the image score; None: without.
    """

    def __init__(self, threshold: float | None = None):
        self.threshold = threshold
        self.scores: list[float] = []
        self.labels: list[int | None] = []
        self._maps = _AtScanSize()
        self._masks: list[Bool[np.ndarray, "H W"] | None] = []
        self._ignore: list[Bool[np.ndarray, "H W"] | None] = []

    def add(self, judged: Judged) -> None:
        """Take in one scan."""
        scan, views, outcome = judged
        self.scores.append(outcome.score)
        self.labels.append(scan.label)
        self._maps.add(scan.key, outcome.fused, views)
        mask = None if scan.mask is None else scan.mask > 0
        if mask is None and scan.label == 0:
            mask = np.zeros(scan.valid.shape, bool)
        self._masks.append(mask)
        self._ignore.append(scan.ignore)

    def figures(self, curves: int = 0) -> tuple[dict[str, float], dict[str, Any]]:
        """The metrics that are defined, and, with `curves`, points of the ROC and PRO curves."""
        figures: dict[str, float] = {"scans": float(len(self.scores))}
        known = [(s, lab) for s, lab in zip(self.scores, self.labels, strict=True) if lab in (0, 1)]
        figures["defective"] = float(sum(label == 1 for _, label in known))
        if 0 < figures["defective"] < len(known):
            scores, labels = zip(*known, strict=True)
            figures |= image_metrics(
                np.asarray(scores), np.asarray(labels), threshold=self.threshold
            )
        drawn: dict[str, Any] = {}
        masks = [mask for mask in self._masks if mask is not None]
        if masks and len(masks) == len(self._masks) and any(mask.any() for mask in masks):
            pixels = evaluate_maps(self._maps, masks, ignore=self._ignore, curves=curves)
            drawn = {name: pixels.pop(name) for name in ("roc", "pro") if name in pixels}
            figures |= pixels
        return {name: float(value) for name, value in figures.items()}, drawn


class _AtScanSize:
    """Maps at the model's size, seen at their scans' size; can be walked through again."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._maps: list[tuple[Float32[np.ndarray, "h w"], Any]] = []

    def add(self, name: str, fused: Float32[np.ndarray, "h w"], views: Views) -> None:
        self.names.append(name)
        self._maps.append((fused, views.frame))

    def __iter__(self) -> Iterator[Float32[np.ndarray, "H W"]]:
        return (frame.to_scan(fused) for fused, frame in self._maps)
