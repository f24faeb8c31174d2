"""Runs: train, evaluate and predict with folders, as the commands do."""

from pirn_jax.runs.folder import (
    Progress,
    claim_folder,
    environment,
    flat,
    from_flat,
    model_folders,
    open_run,
    start_caches,
)
from pirn_jax.runs.predictions import Request, predict_scans
from pirn_jax.runs.run import evaluate_run, mean_figures, train_run

__all__ = [
    "Progress",
    "Request",
    "claim_folder",
    "environment",
    "evaluate_run",
    "flat",
    "from_flat",
    "mean_figures",
    "model_folders",
    "open_run",
    "predict_scans",
    "start_caches",
    "train_run",
]
