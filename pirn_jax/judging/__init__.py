"""Judging: scans → views → maps and scores → metrics, what every detector shares."""

from pirn_jax.judging.encoders import find_encoder, is_encoder_of, open_encoder
from pirn_jax.judging.measurement import Judged, Measurement, Outcome
from pirn_jax.judging.methods import Method, find_method, layers_of, plan_of
from pirn_jax.judging.program import programs
from pirn_jax.judging.reading import BATCH, decide_background, read_ahead, view_scan
from pirn_jax.judging.shots import FOLDS, check_good, left_out, shot_features, some_of

__all__ = [
    "BATCH",
    "FOLDS",
    "Judged",
    "Measurement",
    "Method",
    "Outcome",
    "check_good",
    "decide_background",
    "find_encoder",
    "find_method",
    "is_encoder_of",
    "layers_of",
    "left_out",
    "open_encoder",
    "plan_of",
    "programs",
    "read_ahead",
    "shot_features",
    "some_of",
    "view_scan",
]
