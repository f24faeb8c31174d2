"""A small training problem, quick to compile: what the tests of this folder share."""

from dataclasses import replace

import jax
import numpy as np

from pirn_jax.decoder import Tokens
from pirn_jax.training import TrainingJob, TrainingRecipe
from tests.decoder.recipes import RECIPES

SCANS, TOKENS, CHANNELS = 5, 16, 24


def recipe(epochs: int = 4, name: str = "default", **changes) -> TrainingRecipe:
    """A recipe with a decoder of one layer, few transport iterations, and uneven batches."""
    found = RECIPES[name]
    small = {"layers": 1, "prototypes": 4, "iterations": 6, **changes}
    return replace(found, epochs=epochs, batch_size=4, decoder=replace(found.decoder, **small))


def job(seed: int = 0, scans: int = SCANS, masked: bool = False, dtype=np.float32) -> TrainingJob:
    """Tokens that share a mean and lie around a few directions, as features of real scans do."""
    random = np.random.default_rng((7, seed))
    centres = random.standard_normal((2, 3, CHANNELS))
    which = random.integers(0, 3, (2, scans, TOKENS))
    tokens = np.stack([centres[m][which[m]] for m in range(2)])
    tokens = 1.0 + tokens + 0.3 * random.standard_normal(tokens.shape)
    valid = np.ones((scans, TOKENS), bool)
    if masked:
        valid[:, : 2 + seed % 3] = False
    return TrainingJob(f"job{seed}", Tokens(tokens.astype(dtype), valid), seed)


def largest_difference(a, b) -> float:
    """Over all leaves of two trees."""
    differences = jax.tree.map(lambda x, y: float(np.abs(x - y).max()) if x.size else 0.0, a, b)
    return max(jax.tree.leaves(differences))
