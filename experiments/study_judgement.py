"""What the recipe study keeps of a test set: scores, and histograms for the bootstrap.

Less than `judgement.judge` keeps, and some ten times faster: pixel figures come from histograms
alone (`bootstrap.py` says how near they are to the exact ones), of the fused map alone.

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

from experiments.arrays import pack
from experiments.bank import Truth
from experiments.bootstrap import Evaluation, histograms, pixels_of, plain_figures
from pirn_jax.errors import BadInputError
from pirn_jax.geometry.views import resize_nearest
from pirn_jax.judging import Outcome
from pirn_jax.scoring.maps import SIGMA


def judge_for_study(outcomes: Sequence[Outcome], truths: Sequence[Truth]) -> dict[str, Any]:
    """Scores and histograms of one test set, JSON-ready.

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
    maps = [t.frame.to_scan(o.fused) for o, t in zip(outcomes, truths, strict=True)]
    counts = histograms(maps, pixels)
    scores = [outcome.score for outcome in outcomes]
    bad = np.array([truth.label == 1 for truth in truths])
    found = plain_figures(Evaluation(np.array(scores), counts), bad)
    return {
        "figures": {name: value for name, value in found.items() if np.isfinite(value)},
        "images": {
            "key": [truth.key for truth in truths],
            "label": [truth.label for truth in truths],
            "defect": [truth.defect for truth in truths],
            "score": scores,
            "score_cut": [_cut(o, t) for o, t in zip(outcomes, truths, strict=True)],
            "share": [float(mask.mean()) for mask in masks],
        },
        "histograms": {name: pack(array) for name, array in counts._asdict().items()},
    }


def _cut(outcome: Outcome, truth: Truth) -> float:
    assert truth.mask is not None
    if not truth.mask.any():
        return float(outcome.fused.max())
    mask = resize_nearest(truth.mask, truth.frame)
    away = distance_transform_edt(~mask) > 3 * SIGMA * min(mask.shape) if mask.any() else ~mask
    return float(outcome.fused[away].max()) if away.any() else 0.0
