"""Scoring: reconstruction → anomaly map, score, label, regions.

`maps` runs on the device inside the decoder's jitted call; `calibration` and `regions` work on the
finished map with numpy and scipy.

The names load on first use: only the maps need JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pirn_jax.scoring.calibration import (
        Calibration,
        Decision,
        calibrate,
        decide,
        fix_threshold,
        normalise,
        rate_bound,
        read_calibration,
        scans_needed,
    )
    from pirn_jax.scoring.maps import (
        AnomalyMaps,
        above_own_level,
        image_score,
        score_distances,
        upsample,
    )
    from pirn_jax.scoring.regions import Region, find_regions

_HOME = {
    "Calibration": "calibration",
    "Decision": "calibration",
    "calibrate": "calibration",
    "decide": "calibration",
    "fix_threshold": "calibration",
    "normalise": "calibration",
    "rate_bound": "calibration",
    "read_calibration": "calibration",
    "scans_needed": "calibration",
    "AnomalyMaps": "maps",
    "above_own_level": "maps",
    "image_score": "maps",
    "score_distances": "maps",
    "upsample": "maps",
    "Region": "regions",
    "find_regions": "regions",
}
__all__ = [
    "AnomalyMaps",
    "Calibration",
    "Decision",
    "Region",
    "above_own_level",
    "calibrate",
    "decide",
    "find_regions",
    "fix_threshold",
    "image_score",
    "normalise",
    "rate_bound",
    "read_calibration",
    "scans_needed",
    "score_distances",
    "upsample",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
