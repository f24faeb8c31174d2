"""Small sets of tokens, as tokens of shots: what the tests of this folder share."""

import jax
import numpy as np

from pirn_jax.decoder import Tokens
from pirn_jax.training import TrainingJob

GRID, CHANNELS = (4, 4), 12
MODALITIES = 2


def tokens(seed: int, images: int) -> np.ndarray:
    """(M, images, N, C) around a few directions, with a mean in common and one of each image."""
    random = np.random.default_rng((3, seed))
    n = GRID[0] * GRID[1]
    centres = random.standard_normal((2, 3, CHANNELS))
    which = random.integers(0, 3, (2, images, n))
    found = np.stack([centres[m][which[m]] for m in range(2)])
    found = 1.0 + found + 0.3 * random.standard_normal((2, images, 1, CHANNELS))
    return (found + 0.3 * random.standard_normal(found.shape)).astype(np.float32)


def valid(seed: int, images: int) -> np.ndarray:
    return np.random.default_rng((4, seed)).random((images, GRID[0] * GRID[1])) < 0.7


def job(seed: int = 0, images: int = 3) -> TrainingJob:
    return TrainingJob(f"job{seed}", Tokens(tokens(seed, images), valid(seed, images)), seed)


def distances(method, trained, new, counted) -> np.ndarray:
    """Through `jax.jit`, as a detector does it."""
    judge = jax.jit(lambda *given: method.distances(*given)[0])
    return np.asarray(judge(trained.parameters, trained.statistics, Tokens(new, counted)))


def prepared(x, counts, options, statistics=None):
    """The options' definitions by plain loops: pool, centre, scale. x (B, N, C) of one stream.

    Returns the tokens, and the (mean, matrix) of the scale, taken from these unless given.
    """
    x = x.astype(np.float64)
    if options.pool:
        pooled = x.copy()
        for b in range(len(x)):
            for n in range(x.shape[1]):
                row, column = divmod(n, GRID[1])
                near = [
                    r * GRID[1] + c
                    for r in range(max(0, row - 1), min(GRID[0], row + 2))
                    for c in range(max(0, column - 1), min(GRID[1], column + 2))
                    if counts[b, r * GRID[1] + c]
                ]
                if near:
                    pooled[b, n] = x[b, near].mean(0)
        x = pooled
    if options.centre_image:
        x = np.stack([image - image[count].mean(0) for image, count in zip(x, counts, strict=True)])
    if statistics is None:
        seen = x[counts]
        mean, matrix = np.zeros(x.shape[-1]), np.eye(x.shape[-1])
        if options.scale != "none":
            mean = seen.mean(0)
        if options.scale == "standardise":
            matrix = np.diag(1 / seen.std(0))
        if options.scale == "whiten":
            from sklearn.decomposition import PCA

            found = PCA(0.99).fit(seen)
            deviation = np.sqrt(found.explained_variance_ * (len(seen) - 1) / len(seen))
            matrix = found.components_.T / deviation @ found.components_
        statistics = mean, matrix
    mean, matrix = statistics
    return (x - mean) @ matrix, statistics
