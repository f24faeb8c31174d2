"""Jobs: what is to be trained, checked, and stacked by shape as far as memory allows.

Dimension letters: M modalities, S shots, N tokens, C channels, J jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirn_jax.decoder import Tokens, abstract_params
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.training.recipe import TrainingRecipe

# Jobs are stacked until they are estimated to take this much memory, all devices together; the rest
# is trained after them. A constant, so that a run may be resumed on another machine.
STACK_BYTES = 8 * 2**30
# Of the size of a step's tokens: arrays that a layer keeps for its backward pass. An estimate.
KEPT_ARRAYS = 20


class TrainingJob(NamedTuple):
    """One decoder to train.

    Attributes:
        name: unique among the jobs of a run, such as "flange/seed0".
        shots: of the training scans: values (M, S, N, C), valid (S, N) or None.
        seed: 0 to 2**32 - 1; decides initial weights, prototypes and the order of scans.
        copies: of each shot; they follow it.
        spoiled: how many of the copies, the last ones, have pseudo-defects.
    """

    name: str
    shots: Tokens
    seed: int
    copies: int = 0
    spoiled: int = 0


def check_jobs(jobs: Sequence[TrainingJob], modalities: Sequence[str]) -> None:
    """Refuse jobs that cannot be trained.

    Raises:
        BadInputError: shots of other modalities or shapes, not finite, or none.
        ConfigError: names that repeat, a seed out of range.
    """
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two jobs are called {twice[0]}", "give every job a name of its own")
    for job in jobs:
        if not 0 <= job.seed < 2**32:
            raise ConfigError(f"{job.name}: seed {job.seed}", "use 0 or more, below 2**32")
        shape = tuple(job.shots.values.shape)
        if len(shape) != 4 or shape[0] != len(modalities):
            raise BadInputError(
                f"{job.name}: expected tokens (modalities, shots, tokens, channels) of "
                f"{' and '.join(modalities)}, {len(modalities)} in front; got shape {shape}",
                "extract them, or train with the modalities there are",
            )
        valid = job.shots.valid
        if valid is not None and tuple(valid.shape) != shape[1:3]:
            raise BadInputError(
                f"{job.name}: expected validity (shots, tokens) {shape[1:3]}, as the tokens have; "
                f"got {tuple(valid.shape)}",
                "extract both from the same scans",
            )
        if not shape[1]:
            raise BadInputError(f"{job.name}: no shots", "give at least one scan to train on")
        for name, stream in zip(modalities, job.shots.values, strict=True):
            if not np.isfinite(np.asarray(stream)).all():
                raise BadInputError(
                    f"{job.name}: tokens of {name} that are not finite",
                    "extract them again; a damaged cache entry or encoder would do this",
                )


def stack_shots(jobs: Sequence[TrainingJob]) -> Tokens:
    """Shots of jobs of one shape: values (J, M, S, N, C), valid (J, S, N) or None: all count."""
    dtype = jnp.zeros(()).dtype
    values = np.stack([np.asarray(job.shots.values, dtype) for job in jobs])
    everything = np.ones((values.shape[2], values.shape[3]), bool)
    valid = np.stack(
        [everything if j.shots.valid is None else np.asarray(j.shots.valid) for j in jobs]
    )
    return Tokens(values, None if valid.all() else valid)


def group_jobs(
    jobs: Sequence[TrainingJob], recipe: TrainingRecipe
) -> list[tuple[list[TrainingJob], int]]:
    """Jobs whose shots have the same shape, in order of first appearance, and to how many.

    A group that would not fit into `STACK_BYTES` is cut into as few as do, all filled up to the
    same number, so that one program serves all of them.
    """
    groups: dict[tuple[int, ...], list[TrainingJob]] = {}
    for job in jobs:
        groups.setdefault(job.shots.values.shape, []).append(job)
    cut = []
    for shape, group in groups.items():
        most = max(1, STACK_BYTES // job_bytes(recipe, shape))
        size = -(-len(group) // -(-len(group) // most))
        cut += [(group[i : i + size], size) for i in range(0, len(group), size)]
    return cut


def job_bytes(recipe: TrainingRecipe, shape: tuple[int, ...]) -> int:
    """An estimate of the memory a job takes while it trains.

    Its parameters five times (themselves, Adam's two moments, the gradient, the change), its
    tokens, and what a step keeps for the backward pass.

    Args:
        recipe: decoder and batch size.
        shape: (M, S, N, C) of its shots.
    """
    modalities, scans, tokens, channels = shape
    _, parameters, _ = abstract_params(recipe.decoder, channels)
    numbers = 5 * sum(leaf.size for leaf in jax.tree.leaves(parameters))
    picture = modalities * tokens * channels
    numbers += scans * picture
    numbers += min(recipe.batch_size, scans) * recipe.decoder.layers * KEPT_ARRAYS * picture
    return numbers * jnp.zeros(()).dtype.itemsize
