"""Detector: scans in, verdicts out; preprocessing, inference, evaluation, and the one object."""

from pirn_jax.detector.detector import PIRN
from pirn_jax.detector.encoders import open_encoder
from pirn_jax.detector.evaluation import Evaluator, Inferred, ScanResult, Truth
from pirn_jax.detector.fitting import fit_models
from pirn_jax.detector.prediction import Prediction
from pirn_jax.detector.preprocessing import BATCH, decide, prefetch, view_scan, view_shots

__all__ = [
    "BATCH",
    "PIRN",
    "Evaluator",
    "Inferred",
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
