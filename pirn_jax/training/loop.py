"""Training: jobs in, trained decoders out.

A job is one decoder to train: the frozen tokens of k shots, and a seed. Jobs whose tokens have the
same shape are stacked, as many as memory holds (`jobs.py`), and trained by one program (`step.py`),
on one device or several (`parallel.py`). The program runs a stretch of epochs (`batches.py`);
between stretches progress is reported, the losses are looked at, and a checkpoint is kept
(`checkpoint.py`).

Dimension letters: J jobs, T steps.
Source: paper, "Training and Inference".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import jax
import numpy as np
from jaxtyping import Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.errors import PirnError
from pirn_jax.training.batches import make_batches, stretches
from pirn_jax.training.checkpoint import Checkpoints, identity
from pirn_jax.training.compilation import collector_paused
from pirn_jax.training.jobs import TrainingJob, check_jobs, group_jobs, stack_shots
from pirn_jax.training.parallel import Layout, Program, choose_layout
from pirn_jax.training.processes import check_same, from_first
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.step import State, create_states


class HistoryLine(TypedDict):
    """An epoch of a job: epoch and step from 1, the mean loss of the epoch's steps."""

    job: str
    epoch: int
    step: int
    loss: float


class Trained(NamedTuple):
    """A trained decoder.

    Attributes:
        name: of the job.
        parameters: of numpy arrays, for `pirn_jax.decoder.merge`; to be passed through `jax.jit` as
            arguments.
        statistics: the same.
        history: a line an epoch.
    """

    name: str
    parameters: Params
    statistics: Params
    history: list[HistoryLine]


def train(
    jobs: Sequence[TrainingJob],
    recipe: TrainingRecipe,
    *,
    parallel: str = "auto",
    checkpoints: Path | None = None,
    resume: bool = False,
    keep: int = 2,
    save_seconds: float = 60.0,
    progress: Callable[[int, int, dict[str, HistoryLine]], None] | None = None,
) -> list[Trained]:
    """Train every job; the others change what a job becomes by rounding alone.

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
        BadInputError: tokens of other modalities than the recipe's, or not finite.
        ConfigError: names that repeat, a negative seed, an unknown `parallel`; checkpoints that are
            there without `resume`, or are another run's.
        PirnError: a loss that is not finite; it names the job and the step.
    """
    check_jobs(jobs, recipe.decoder.modalities)
    total, done, trained = recipe.epochs * len(jobs), 0, {}
    for index, (group, size) in enumerate(group_jobs(jobs, recipe)):
        layout = choose_layout(parallel, size)
        padded = group + [group[-1]] * (layout.padded_jobs(size) - len(group))
        shots = stack_shots(padded)

        def report(epochs: int, last: dict[str, HistoryLine], before: int = done) -> None:
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
    jobs: list[TrainingJob],
    padded: list[TrainingJob],
    shots: Tokens,
    recipe: TrainingRecipe,
    layout: Layout,
    checkpoints: Checkpoints | None,
    save_seconds: float,
    report: Callable[[int, dict[str, HistoryLine]], None],
) -> list[Trained]:
    """Jobs of one shape; `padded` repeats the last until they divide among the devices."""
    program = Program(layout, recipe, shots)
    with collector_paused():
        state = create_states(recipe, shots, np.array([job.seed for job in padded], np.uint32))
    history: list[list[HistoryLine]] = [[] for _ in jobs]
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
        batches = make_batches(padded, start, stop, recipe, layout.padded_scans)
        state, losses = program.run(state, batches)
        steps = len(losses) // (stop - start)
        _check_losses(losses[:, : len(jobs)], jobs, start * steps)
        means = losses.reshape(stop - start, steps, -1).mean(1)
        for epoch in range(start, stop):
            for job, lines, loss in zip(jobs, history, means[epoch - start], strict=False):
                lines.append(
                    HistoryLine(
                        job=job.name, epoch=epoch + 1, step=(epoch + 1) * steps, loss=float(loss)
                    )
                )
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
        trained.append(Trained(job.name, own.parameters, own.statistics, history[i]))
    return trained


def _due(saved: float, save_seconds: float) -> bool:
    return time.monotonic() - saved >= save_seconds


def _shapes(state: State, jobs: int) -> State:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((jobs, *x.shape[1:]), x.dtype), state)


def _first(state: State, jobs: int) -> State:
    return jax.tree.map(lambda x: np.array(x)[:jobs], state)


def _padded(state: State, jobs: int) -> State:
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], jobs - len(x), axis=0)]), state
    )


def _check_losses(losses: Float[np.ndarray, "T J"], jobs: list[TrainingJob], done: int) -> None:
    bad = np.argwhere(~np.isfinite(losses))
    if len(bad):
        step, job = bad[0]
        before = f"; the step before had {losses[step - 1, job]:.6g}" if step else ""
        raise PirnError(
            f"{jobs[job].name}: the loss of step {done + step + 1} is {losses[step, job]}{before}",
            "lower the learning rate",
        )
