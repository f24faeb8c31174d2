"""Training: scans' features → trained decoders."""

from pirn_jax.training.compilation import use_compilation_cache
from pirn_jax.training.features import FeatureCache, Features, extract
from pirn_jax.training.loop import Job, Trained, train
from pirn_jax.training.processes import from_first, is_first, join_processes

__all__ = [
    "FeatureCache",
    "Features",
    "Job",
    "Trained",
    "extract",
    "from_first",
    "is_first",
    "join_processes",
    "train",
    "use_compilation_cache",
]
