"""What the detector says of a scan: score, label, map, mask and regions, in the scan's own pixels.

Dimension letters: H W scan pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.detector.result import ScanResult
from pirn_jax.scoring import Calibration, Region, decide, find_regions


class Prediction(NamedTuple):
    """What the detector says of a scan.

    Attributes:
        pred_score: image score, >= 0; larger is more anomalous.
        pred_label: 1 defective, 0 good; None for a model without a threshold.
        anomaly_map: at the scan's size.
        pred_mask: pixels called defective; holds one exactly when the label is 1. None like it.
        maps: each modality's own map, at the scan's size.
        regions: of the mask, the highest peak first.
        usual: median of each modality's map over the part, in its view.
    """

    pred_score: float
    pred_label: int | None
    anomaly_map: Float32[np.ndarray, "H W"]
    pred_mask: Bool[np.ndarray, "H W"] | None
    maps: dict[str, Float32[np.ndarray, "H W"]]
    regions: list[Region]
    usual: Mapping[str, float] | None = None


def postprocess(
    result: ScanResult, modalities: Sequence[str], calibration: Calibration | None
) -> Prediction:
    """Maps at the scan's size, and with a threshold label, mask and regions."""
    scan, views, inferred = result
    fused = views.to_scan(inferred.fused)
    alone = len(modalities) == 1  # its map is the whole, and large ones fill memory
    each = (fused if alone else views.to_scan(array) for array in inferred.maps)
    maps = dict(zip(modalities, each, strict=True))
    medians = (float(np.median(array[views.valid])) for array in inferred.maps)
    usual = dict(zip(modalities, medians, strict=True))
    if calibration is None:
        return Prediction(inferred.score, None, fused, None, maps, [], usual)
    judged = None if scan.ignore is None else ~scan.ignore
    decision = decide(fused, calibration, score=inferred.score, valid=judged)
    regions = find_regions(
        decision.mask, fused, modalities=maps, usual=usual, xyz=scan.xyz, valid=scan.valid
    )
    return Prediction(inferred.score, decision.label, fused, decision.mask, maps, regions, usual)
