"""Which scans make up each step, in which order, at which rate.

Decided on the host from seeds and epochs alone, so that a run that was interrupted, padded, stacked
with others or spread over devices takes the same steps.

Dimension letters: T steps, J jobs, B scans of a step.
Differs from the paper, which does not say how an epoch is cut: scans that are not a multiple of the
batch size make equal batches, 5 scans in batches of at most 4 being 3 and 2, not 4 and 1, so that
no scan weighs four times another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from pirn_jax.training.jobs import TrainingJob
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.step import Batches

STRETCHES = 10  # at least so many times a run is progress reported, if it has the epochs


def stretches(epochs: int) -> list[tuple[int, int]]:
    """First epoch of each stretch, from 0, and the one after its last.

    All are of one length, so that one program serves all; there are `STRETCHES` or more of them.
    """
    most = max(1, epochs // STRETCHES)
    length = max(n for n in range(1, most + 1) if epochs % n == 0)
    return [(start, start + length) for start in range(0, epochs, length)]


def epoch_order(seed: int, epoch: int, scans: int, batch_size: int) -> list[Int[np.ndarray, " _"]]:
    """The scans of each step of an epoch: every scan once, in steps of equal size to within one."""
    order = np.random.default_rng((seed, epoch)).permutation(scans)
    return np.array_split(order, -(-scans // batch_size))


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """The rate of a step, counted from 0, of a training of so many."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm_up, least = max(1, min(20, steps // 5)), 0.01
    if step < warm_up:
        return recipe.learning_rate * step / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return recipe.learning_rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done)))


def make_batches(
    jobs: Sequence[TrainingJob],
    start: int,
    stop: int,
    recipe: TrainingRecipe,
    padded: Callable[[int], int] = lambda size: size,
) -> Batches:
    """The steps of some epochs, (T, J, B); padding repeats a step's first scan with weight 0.

    Args:
        jobs: of one shape, as stacked.
        start: first epoch, from 0.
        stop: the one after the last.
        recipe: batch size, rates, and whether scans lose anything.
        padded: how many places a step of so many scans has.
    """
    scans, batch_size = jobs[0].shots.values.shape[1], recipe.batch_size
    first = epoch_order(0, 0, scans, batch_size)
    each, size = len(first), padded(len(first[0]))
    indices, weights, rates, seeds = [], [], [], []
    for epoch in range(start, stop):
        # A scan loses what it loses whatever step, device or stack it is in.
        own = [
            np.random.default_rng((j.seed, epoch, 1)).integers(2**32, size=scans, dtype=np.uint32)
            for j in jobs
        ]
        orders = (epoch_order(j.seed, epoch, scans, batch_size) for j in jobs)
        for step, parts in enumerate(zip(*orders, strict=True)):
            rate = learning_rate(recipe, epoch * each + step, recipe.epochs * each)
            rates.append(np.full((len(jobs), size), rate))
            full = [np.resize(part, size) for part in parts]
            for row, part in zip(full, parts, strict=True):
                row[len(part) :] = part[0]
            indices.append(full)
            seeds.append([mine[row] for mine, row in zip(own, full, strict=True)])
            weights.append([np.arange(size) < len(part) for part in parts])
    counts = np.array(weights)
    dtype = jnp.zeros(()).dtype
    return Batches(
        np.array(indices, np.int32),
        None if counts.all() else counts.astype(dtype),
        np.array(rates, dtype),
        np.array(seeds, np.uint32) if recipe.dropout or recipe.noise else None,
    )
