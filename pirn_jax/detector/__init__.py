"""Detector: scans in, verdicts out; preprocessing, inference, evaluation, and the one object.

The names load on first use: what follows the compiled call needs no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pirn_jax.detector.detector import PIRN
    from pirn_jax.detector.encoders import open_encoder
    from pirn_jax.detector.evaluation import Evaluator, Truth
    from pirn_jax.detector.fitting import fit_models
    from pirn_jax.detector.lot import Lot
    from pirn_jax.detector.prediction import Prediction
    from pirn_jax.detector.preprocessing import BATCH, decide, prefetch, view_scan, view_shots
    from pirn_jax.detector.result import Inferred, ScanResult

_HOME = {
    "PIRN": "detector",
    "open_encoder": "encoders",
    "Evaluator": "evaluation",
    "Inferred": "result",
    "ScanResult": "result",
    "Truth": "evaluation",
    "fit_models": "fitting",
    "Lot": "lot",
    "Prediction": "prediction",
    "BATCH": "preprocessing",
    "decide": "preprocessing",
    "prefetch": "preprocessing",
    "view_scan": "preprocessing",
    "view_shots": "preprocessing",
}
__all__ = [
    "BATCH",
    "PIRN",
    "Evaluator",
    "Inferred",
    "Lot",
    "Prediction",
    "ScanResult",
    "Truth",
    "decide",
    "fit_models",
    "open_encoder",
    "prefetch",
    "view_scan",
    "view_shots",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
