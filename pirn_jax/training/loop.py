"""Training: jobs in, trained decoders out.

A job is one decoder to train: the frozen features of k shots, and a seed. Jobs whose features have
the same shape are stacked, as many as `STACK_BYTES` of memory hold, and trained by one program
(`step.py`), on one device or several (`parallel.py`). The program runs a stretch of epochs; between
stretches progress is reported, the losses are looked at, and a checkpoint is kept
(`checkpoint.py`).

Dimension letters: S shots, N tokens, C channels, J jobs, T steps, B scans of a step.
Source: paper, "Training and Inference".
Differs from the paper, which does not say how an epoch is cut: scans that are not a multiple of the
batch size make equal batches, 5 scans in batches of at most 4 being 3 and 2, not 4 and 1, so that
no scan weighs four times another's.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.checkpoint import Checkpoints, identity
from pirn_jax.training.compilation import collector_paused
from pirn_jax.training.features import Features
from pirn_jax.training.parallel import Layout, Program, choose_layout
from pirn_jax.training.processes import check_same, from_first
from pirn_jax.training.step import Batches, Shots, State, create_states, skeleton

STRETCHES = 10  # at least so many times a run is progress reported, if it has the epochs
# Jobs are stacked until they are estimated to take this much memory, all devices together; the rest
# is trained after them. A constant, so that a run may be resumed on another machine.
STACK_BYTES = 8 * 2**30
# Of the size of a step's tokens: arrays that a layer keeps for its backward pass. An estimate.
KEPT_ARRAYS = 20


class Job(NamedTuple):
    """One decoder to train.

    Attributes:
        name: unique among the jobs of a run, such as "flange/seed0".
        shots: features of the training scans.
        seed: 0 to 2**32 - 1; decides initial weights, prototypes and the order of scans.
    """

    name: str
    shots: Features
    seed: int


class Trained(NamedTuple):
    """A trained decoder.

    Attributes:
        name: of the job.
        graph: for `pirn_jax.decoder.merge`, with the two below.
        parameters: plain dict of numpy arrays; to be passed through `jax.jit` as arguments.
        statistics: the same.
        history: a line an epoch: job, epoch and step (both from 1), and its mean loss.
    """

    name: str
    graph: Any
    parameters: dict[str, Any]
    statistics: dict[str, Any]
    history: list[dict[str, Any]]


def train(
    jobs: Sequence[Job],
    recipe: TrainingRecipe,
    *,
    parallel: str = "auto",
    checkpoints: Path | None = None,
    resume: bool = False,
    keep: int = 2,
    save_seconds: float = 60.0,
    progress: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> list[Trained]:
    """Train every job; what a job becomes does not depend on the others.

    Args:
        jobs: in any number and of any shapes.
        recipe: decoder, loss, rate, epochs, batch size.
        parallel: none, pmap, sharding or auto; see `pirn_jax.training.parallel`.
        checkpoints: folder for them, one within it per stack of jobs. None: none are kept.
        resume: go on from the newest checkpoint; the end is the same as without the interruption.
        keep: checkpoints kept, the newest.
        save_seconds: least time between two checkpoints; what an interruption can cost at most,
            and why a short run keeps none.
        progress: called after every stretch with the epochs done and to do of all jobs together,
            and the last history lines, by job.

    Returns:
        One `Trained` a job, in their order.

    Raises:
        BadInputError: features of the recipe's modalities that are missing, or not finite.
        ConfigError: names that repeat, a negative seed, an unknown `parallel`; checkpoints that are
            there without `resume`, or are another run's.
        PirnError: a loss that is not finite; it names the job and the step.
    """
    _check(jobs, recipe)
    total, done, trained = recipe.epochs * len(jobs), 0, {}
    for index, (group, size) in enumerate(_groups(jobs, recipe)):
        layout = choose_layout(parallel, size)
        padded = group + [group[-1]] * (layout.padded_jobs(size) - len(group))
        shots = _stack(padded, recipe)

        def report(epochs: int, last: dict[str, Any], before: int = done) -> None:
            if progress is not None:
                progress(before + epochs, total, last)

        with contextlib.ExitStack() as stack:
            run = identity([j.name for j in group], [j.seed for j in group], recipe, shots)
            check_same("jobs or features", run)
            kept = None
            if checkpoints is not None:
                kept = stack.enter_context(Checkpoints(checkpoints / str(index), run, keep, resume))
            results = _train_group(group, padded, shots, recipe, layout, kept, save_seconds, report)
        trained |= {result.name: result for result in results}
        done += recipe.epochs * len(group)
    return [trained[job.name] for job in jobs]


def _train_group(
    jobs: list[Job],
    padded: list[Job],
    shots: Shots,
    recipe: TrainingRecipe,
    layout: Layout,
    checkpoints: Checkpoints | None,
    save_seconds: float,
    report: Callable[[int, dict[str, Any]], None],
) -> list[Trained]:
    """Jobs of one shape; `padded` repeats the last until they divide among the devices."""
    program = Program(layout, recipe, shots)
    with collector_paused():
        state = create_states(recipe, shots, np.array([job.seed for job in padded], np.uint32))
    history: list[list[dict[str, Any]]] = [[] for _ in jobs]
    begin = 0
    if checkpoints is not None:
        found = checkpoints.restore(_shapes(state, len(jobs)))
        if found is not None:
            begin, state, history = found
            state = _padded(state, len(padded))
    state = program.place(state)

    saved = time.monotonic()
    for start, stop in stretches(recipe.epochs):
        if stop <= begin:
            continue
        batches = _batches(padded, start, stop, recipe, layout.padded_scans)
        state, losses = program.run(state, batches)
        steps = len(losses) // (stop - start)
        _check_losses(losses[:, : len(jobs)], jobs, start * steps)
        means = losses.reshape(stop - start, steps, -1).mean(1)
        for epoch in range(start, stop):
            for job, lines, loss in zip(jobs, history, means[epoch - start], strict=False):
                line = {"job": job.name, "epoch": epoch + 1, "step": (epoch + 1) * steps}
                lines.append({**line, "loss": float(loss)})
        if checkpoints is not None and from_first(lambda s=saved: _due(s, save_seconds)):
            # Copies: both are written while training goes on.
            so_far = [list(lines) for lines in history]
            checkpoints.save(stop, _first(program.fetch(state), len(jobs)), so_far)
            saved = time.monotonic()
        report(stop * len(jobs), {lines[-1]["job"]: lines[-1] for lines in history})

    final = program.fetch(state._replace(optimizer=()))
    trained = []
    for i, job in enumerate(jobs):
        own = jax.tree.map(lambda x, i=i: x[i], final)
        trained.append(Trained(job.name, program.graph, own.parameters, own.statistics, history[i]))
    return trained


def _due(saved: float, save_seconds: float) -> bool:
    return time.monotonic() - saved >= save_seconds


def _shapes(state: State, jobs: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((jobs, *x.shape[1:]), x.dtype), state)


def _first(state: State, jobs: int) -> State:
    return jax.tree.map(lambda x: np.array(x)[:jobs], state)


def _padded(state: State, jobs: int) -> State:
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], jobs - len(x), axis=0)]), state
    )


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


def _batches(
    jobs: list[Job], start: int, stop: int, recipe: TrainingRecipe, padded: Callable[[int], int]
) -> Batches:
    """The steps of some epochs, (T, J, B); padding repeats a step's first scan with weight 0."""
    scans, batch_size = jobs[0].shots.valid.shape[0], recipe.batch_size
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


def _stack(jobs: list[Job], recipe: TrainingRecipe) -> Shots:
    dtype = jnp.zeros(()).dtype
    streams = [
        np.stack([np.asarray(getattr(job.shots, name), dtype) for job in jobs])
        if name in recipe.decoder.modalities
        else None
        for name in ("rgb", "normals")
    ]
    valid = np.stack([np.asarray(job.shots.valid) for job in jobs])
    return Shots((streams[0], streams[1]), None if valid.all() else valid)


def _groups(jobs: Sequence[Job], recipe: TrainingRecipe) -> list[tuple[list[Job], int]]:
    """Jobs whose features have the same shape, in order of first appearance, and to how many.

    A group that would not fit into `STACK_BYTES` is cut into as few as do, all filled up to the
    same number, so that one program serves all of them.
    """
    groups: dict[tuple[int, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(_features(job, recipe).shape, []).append(job)
    cut = []
    for shape, group in groups.items():
        most = max(1, STACK_BYTES // job_bytes(recipe, shape))
        size = -(-len(group) // -(-len(group) // most))
        cut += [(group[i : i + size], size) for i in range(0, len(group), size)]
    return cut


def job_bytes(recipe: TrainingRecipe, shape: tuple[int, ...]) -> int:
    """An estimate of the memory a job takes while it trains.

    Its parameters five times (themselves, Adam's two moments, the gradient, the change), its
    features, and what a step keeps for the backward pass.

    Args:
        recipe: decoder and batch size.
        shape: (S, N, C) of a stream.
    """
    scans, tokens, channels = shape
    _, parameters, _ = skeleton(recipe.decoder, channels)
    numbers = 5 * sum(leaf.size for leaf in jax.tree.leaves(parameters))
    picture = len(recipe.decoder.modalities) * tokens * channels
    numbers += scans * picture
    numbers += min(recipe.batch_size, scans) * recipe.decoder.layers * KEPT_ARRAYS * picture
    return numbers * jnp.zeros(()).dtype.itemsize


def _features(job: Job, recipe: TrainingRecipe) -> Float[np.ndarray, "S N C"]:
    return getattr(job.shots, recipe.decoder.modalities[0])


def _check(jobs: Sequence[Job], recipe: TrainingRecipe) -> None:
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two jobs are called {twice[0]}", "give every job a name of its own")
    for job in jobs:
        if not 0 <= job.seed < 2**32:
            raise ConfigError(f"{job.name}: seed {job.seed}", "use 0 or more, below 2**32")
        shapes = {}
        for name in recipe.decoder.modalities:
            stream = getattr(job.shots, name)
            if stream is None:
                raise BadInputError(
                    f"{job.name}: no features of {name}",
                    "extract them, or train with the modalities there are",
                )
            if not np.isfinite(np.asarray(stream)).all():
                raise BadInputError(
                    f"{job.name}: features of {name} that are not finite",
                    "extract them again; a damaged cache entry or encoder would do this",
                )
            shapes[name] = tuple(stream.shape)
        if (
            len(set(shapes.values())) > 1
            or _features(job, recipe).shape[:2] != job.shots.valid.shape
        ):
            raise BadInputError(
                f"{job.name}: expected features (S, N, C) of one shape and validity (S, N); got "
                f"{shapes} and {tuple(job.shots.valid.shape)}",
                "extract all of them from the same scans",
            )
        if not job.shots.valid.shape[0]:
            raise BadInputError(f"{job.name}: no shots", "give at least one scan to train on")


def _check_losses(losses: Float[np.ndarray, "T J"], jobs: list[Job], done: int) -> None:
    bad = np.argwhere(~np.isfinite(losses))
    if len(bad):
        step, job = bad[0]
        before = f"; the step before had {losses[step - 1, job]:.6g}" if step else ""
        raise PirnError(
            f"{jobs[job].name}: the loss of step {done + step + 1} is {losses[step, job]}{before}",
            "lower the learning rate",
        )
