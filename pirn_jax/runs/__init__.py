"""Runs: train, evaluate and predict with folders, as the commands do."""

from pirn_jax.runs.evaluation import evaluate_run, mean_figures
from pirn_jax.runs.folder import (
    Progress,
    check_run_folder,
    environment,
    open_run,
    start_caches,
    trained_models,
)
from pirn_jax.runs.predictions import predict_scans
from pirn_jax.runs.training import train_run

__all__ = [
    "Progress",
    "check_run_folder",
    "environment",
    "evaluate_run",
    "mean_figures",
    "open_run",
    "predict_scans",
    "start_caches",
    "train_run",
    "trained_models",
]
