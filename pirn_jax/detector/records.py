"""The one JSON object that says what was found on a scan, and by what.

It is that of `predict`, of the service and of the runtime alike, with which this module is shared:
numpy, and no JAX.

| field | |
| --- | --- |
| `key`, `time` | of the scan; when it was judged, UTC |
| `size` | height and width of the scan, in pixels: those of boxes and peaks |
| `score`, `threshold`, `label`, `rule` | 1 not OK, 0 OK, null without a threshold; what decided |
| `regions` | as `pirn_jax.scoring.Region`, with `zones`, `severity` and whether each `counts` |
| `model`, `calibration` | 16 hex digits each: the same exactly where the judge is the same |
| `versions` | of this package, and of JAX or the runtime |
| `lot` | scans that were judged together, good ones that joined them included; only of a lot |
| `not_judged` | why there is no score and no label; beside it stand only `key` and `time` |
| `trained_on`, `random_weights` | generated or real scans; whether the encoder is made of noise |
"""

from __future__ import annotations

import datetime
from typing import Any

from pirn_jax.detector.prediction import Prediction
from pirn_jax.detector.predictor import Predictor
from pirn_jax.errors import PirnError, printable
from pirn_jax.manifest import digest_of
from pirn_jax.scoring import Calibration
from pirn_jax.scoring.rules import Verdict

Record = dict[str, Any]
"""A JSON object."""


def record_of(by: Predictor, key: str, prediction: Prediction, verdict: Verdict) -> Record:
    """The record of one scan.

    Args:
        by: what judged it.
        key: of the scan.
        prediction: what was found.
        verdict: what the rules make of it.
    """
    about = by.identity
    record: Record = {
        "key": key,
        "time": now(),
        "size": prediction.anomaly_map.shape,
        "score": prediction.pred_score,
        "label": verdict.label,
        "threshold": verdict.threshold,
        "rule": verdict.rule,
        "regions": [region.document() for region in verdict.regions],
        "model": about.model,
        "calibration": calibration_id(by.calibration),
        "versions": dict(about.versions),
        "trained_on": about.trained_on,
        "random_weights": about.random_weights,
    }
    return record | {"lot": about.lot} if about.lot else record


def not_judged(key: str, error: PirnError) -> Record:
    """The record of a scan that cannot be used: no score, no label, and why."""
    reason = printable(error.problem)
    return {"key": key, "time": now(), "score": None, "label": None, "not_judged": reason}


def calibration_id(calibration: Calibration | None) -> str | None:
    """Sixteen hex digits that name a threshold and all it was set with; None without one."""
    return None if calibration is None else digest_of(calibration._asdict())[:16]


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
