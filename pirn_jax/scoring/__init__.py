"""Scoring: reconstruction → anomaly map, score, label, regions.

`maps` runs on the device inside the decoder's jitted call; `calibration` and `regions` work on the
finished map with numpy and scipy.
"""

from pirn_jax.scoring.calibration import (
    Calibration,
    Decision,
    calibrate,
    decide,
    normalise,
    rate_bound,
    read_calibration,
    scans_needed,
)
from pirn_jax.scoring.maps import (
    AnomalyMaps,
    image_score,
    score_distances,
    upsample,
)
from pirn_jax.scoring.regions import Region, find_regions

__all__ = [
    "AnomalyMaps",
    "Calibration",
    "Decision",
    "Region",
    "calibrate",
    "decide",
    "find_regions",
    "image_score",
    "normalise",
    "rate_bound",
    "read_calibration",
    "scans_needed",
    "score_distances",
    "upsample",
]
