"""Training: scans' features → trained decoders."""

from pirn_jax.training.compilation import use_compilation_cache
from pirn_jax.training.features import FeatureCache, extract, token_validity
from pirn_jax.training.jobs import TrainingJob
from pirn_jax.training.loop import HistoryLine, Trained, train
from pirn_jax.training.processes import are_several, from_first, is_first, join_processes
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.watching import losing_others, watched

__all__ = [
    "FeatureCache",
    "HistoryLine",
    "Trained",
    "TrainingJob",
    "TrainingRecipe",
    "are_several",
    "extract",
    "from_first",
    "is_first",
    "join_processes",
    "losing_others",
    "token_validity",
    "train",
    "use_compilation_cache",
    "watched",
]
