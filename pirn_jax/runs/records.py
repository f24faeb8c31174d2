"""The one JSON object that says what was found on a scan, and by what: `predict` and the service.

| field | |
| --- | --- |
| `key`, `time` | of the scan; when it was judged, UTC |
| `size` | height and width of the scan, in pixels: those of boxes and peaks |
| `score`, `threshold`, `label`, `rule` | 1 not OK, 0 OK, null without a threshold; what decided |
| `regions` | as `pirn_jax.scoring.Region`, with `zones`, `severity` and whether each `counts` |
| `model`, `calibration` | 16 hex digits each: the same exactly where the judge is the same |
| `versions` | of this package, and of JAX |
| `lot` | scans that were judged together, good ones that joined them included; only of a lot |
| `not_judged` | why there is no score and no label; beside it stand only `key` and `time` |
| `trained_on`, `random_weights` | generated or real scans; whether the encoder is made of noise |
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata

from pirn_jax import __version__
from pirn_jax.detector import PIRN, Lot, Prediction
from pirn_jax.errors import PirnError, printable
from pirn_jax.manifest import digest_of
from pirn_jax.report.schema import Document
from pirn_jax.scoring import Calibration
from pirn_jax.scoring.rules import Verdict


def record_of(model: PIRN, key: str, prediction: Prediction, verdict: Verdict) -> Document:
    """The record of one scan.

    Args:
        model: that judged it.
        key: of the scan.
        prediction: what the model says.
        verdict: what the rules make of it.
    """
    record: Document = {
        "key": key,
        "time": now(),
        "size": prediction.anomaly_map.shape,
        "score": prediction.pred_score,
        "label": verdict.label,
        "threshold": verdict.threshold,
        "rule": verdict.rule,
        "regions": [region.document() for region in verdict.regions],
        "model": model.model_id,
        "calibration": calibration_id(model.calibration),
        "versions": versions(),
        "trained_on": model.origin.get("data"),
        "random_weights": model.random_weights,
    }
    return record | {"lot": model.scans} if isinstance(model, Lot) else record


def not_judged(key: str, error: PirnError) -> Document:
    """The record of a scan that cannot be used: no score, no label, and why."""
    reason = printable(error.problem)
    return {"key": key, "time": now(), "score": None, "label": None, "not_judged": reason}


def calibration_id(calibration: Calibration | None) -> str | None:
    """Sixteen hex digits that name a threshold and all it was set with; None without one."""
    return None if calibration is None else digest_of(calibration._asdict())[:16]


@functools.cache
def versions() -> dict[str, str]:
    """Of what judges."""
    return {"pirn_jax": __version__, "jax": importlib.metadata.version("jax")}


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
