"""What a trained detector makes of a test set: figures, scores, and counts for the bootstrap.

Figures are the detector's own (`pirn_jax.detector.Evaluator`): of each scan's own pixels, exact;
and, apart, of 224 x 224 pixels with 99 thresholds (`cfm99`), which is what published tables hold.
Image scores and histograms of pixel scores, scan by scan, are kept for the bootstrap
(`bootstrap.py`), which then needs no detector.

Dimension letters: n images, M modalities, h w model pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from harness.arrays import pack, unpack
from harness.bootstrap import Evaluation, Histograms, histograms, pixels_of
from pirn_jax.detector import Evaluator, Inferred, Truth

_COUNTS = ("scans", "defective")  # the evaluator's, and no metrics


def evaluate(
    inferences: Sequence[Inferred], truths: Sequence[Truth], modalities: Sequence[str]
) -> dict[str, Any]:
    """Everything worth keeping of one test set, JSON-ready.

    Args:
        inferences: what the detector made of each scan.
        truths: of the scans, in their order.
        modalities: of the detector, in the order of the maps.

    Returns:
        `figures`, `cfm99`, `modalities` (figures of each stream's own map, whose image score is
        its highest value), `images` (key, label, defect, score and each modality's score, scan by
        scan), and, where masks are known, `histograms` of pixel scores; see `evaluation_of`.
    """
    whole = _gathered(zip(truths, inferences, strict=True))
    figures = _metrics(whole)
    with_masks = "p_auroc" in figures
    by_modality, scores = {}, {"score": [inference.score for inference in inferences]}
    for place, name in enumerate(modalities):
        own = [_of_modality(inference, place) for inference in inferences]
        scores[f"score_{name}"] = [inference.score for inference in own]
        if len(modalities) == 1:  # its map is the fused one: image scores alone differ
            own_truths = [truth._replace(mask=None) for truth in truths]
            image = _metrics(_gathered(zip(own_truths, own, strict=True)))
            by_modality[name] = image | _pixel(figures)
        else:
            by_modality[name] = _metrics(_gathered(zip(truths, own, strict=True)))
    found: dict[str, Any] = {
        "figures": figures,
        "cfm99": _pixel(_metrics(whole, "cfm99")) if with_masks else {},
        "modalities": by_modality,
        "images": {
            "key": [truth.key for truth in truths],
            "label": [truth.label for truth in truths],
            "defect": [truth.defect for truth in truths],
            **scores,
        },
    }
    if with_masks:
        maps = [t.frame.to_scan(i.fused) for i, t in zip(inferences, truths, strict=True)]
        pixels = [
            pixels_of(truth.mask, None if truth.ignore is None else ~truth.ignore)
            for truth in truths
            if truth.mask is not None
        ]
        counts = histograms(maps, pixels)._asdict()
        found["histograms"] = {name: pack(array) for name, array in counts.items()}
    return found


def evaluation_of(
    document: Mapping[str, Any], scores: str = "score"
) -> tuple[Evaluation, Bool[np.ndarray, " n"]]:
    """What the bootstrap compares, and which scans are defective.

    Args:
        document: what `evaluate` made of a test set.
        scores: which of its image scores.
    """
    packed = document.get("histograms")
    pixels = None
    if packed is not None:
        pixels = Histograms(**{name: unpack(array) for name, array in packed.items()})
    images = document["images"]
    return Evaluation(np.array(images[scores]), pixels), np.array(images["label"]) == 1


def _gathered(pairs: Iterable[tuple[Truth, Inferred]]) -> Evaluator:
    evaluator = Evaluator()
    for truth, inference in pairs:
        evaluator.add(truth, inference)
    return evaluator


def _metrics(
    evaluator: Evaluator, protocol: Literal["exact", "cfm99"] = "exact"
) -> dict[str, float]:
    figures, _ = evaluator.figures(protocol=protocol)
    return {name: value for name, value in figures.items() if name not in _COUNTS}


def _pixel(figures: Mapping[str, float]) -> dict[str, float]:
    """Without the image metrics."""
    return {name: value for name, value in figures.items() if not name.startswith("i_")}


def _of_modality(inference: Inferred, place: int) -> Inferred:
    """As if that modality's map were the whole answer."""
    own = inference.maps[place]
    return inference._replace(score=float(own.max()), fused=own)
