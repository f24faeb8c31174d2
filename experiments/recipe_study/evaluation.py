"""What the recipe study keeps of a test set: scores, and histograms for the bootstrap.

Less than `harness.evaluation.evaluate` keeps, and some ten times faster: pixel figures come from
histograms alone (`harness.bootstrap` says how near they are to the exact ones), of the fused map
alone.

`score_cut` is what the map says away from the defect: its highest value at least three standard
deviations of the map's smoothing outside the mask. An AUROC of these well above 0.5 means that
something other than the defect tells good from defective.

Dimension letters: n images, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from harness.arrays import pack
from harness.bootstrap import Evaluation, histograms, pixels_of, plain_figures
from pirn_jax.detector import Inferred, Truth
from pirn_jax.errors import BadInputError
from pirn_jax.geometry.views import resize_nearest
from pirn_jax.scoring.maps import SIGMA


def evaluate_for_study(
    inferences: Sequence[Inferred], truths: Sequence[Truth], modalities: Sequence[str]
) -> dict[str, Any]:
    """Scores and histograms of one test set, JSON-ready.

    Args:
        inferences: what the detector made of each scan.
        truths: of the scans, in their order.
        modalities: as the runner gives them; single maps are not looked at.

    Returns:
        `figures` (for the terminal), `images` (key, label, defect, score, score_cut, and the
        defect's share of the picture), `histograms`.

    Raises:
        BadInputError: a scan without label or mask.
    """
    for truth in truths:
        if truth.label is None or truth.mask is None:
            raise BadInputError(f"{truth.key}: no label or no mask", "the study needs both")
    masks = [truth.mask for truth in truths if truth.mask is not None]
    seen = [None if truth.ignore is None else ~truth.ignore for truth in truths]
    pixels = [pixels_of(mask, look) for mask, look in zip(masks, seen, strict=True)]
    maps = [t.frame.to_scan(i.fused) for i, t in zip(inferences, truths, strict=True)]
    counts = histograms(maps, pixels)
    scores = [inference.score for inference in inferences]
    bad = np.array([truth.label == 1 for truth in truths])
    found = plain_figures(Evaluation(np.array(scores), counts), bad)
    return {
        "figures": {name: value for name, value in found.items() if np.isfinite(value)},
        "images": {
            "key": [truth.key for truth in truths],
            "label": [truth.label for truth in truths],
            "defect": [truth.defect for truth in truths],
            "score": scores,
            "score_cut": [_cut(i, t) for i, t in zip(inferences, truths, strict=True)],
            "share": [float(mask.mean()) for mask in masks],
        },
        "histograms": {name: pack(array) for name, array in counts._asdict().items()},
    }


def _cut(inference: Inferred, truth: Truth) -> float:
    assert truth.mask is not None
    if not truth.mask.any():
        return float(inference.fused.max())
    mask = resize_nearest(truth.mask, truth.frame)
    away = distance_transform_edt(~mask) > 3 * SIGMA * min(mask.shape) if mask.any() else ~mask
    return float(inference.fused[away].max()) if away.any() else 0.0
