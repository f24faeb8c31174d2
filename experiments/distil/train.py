"""A run: statistics of the teacher, the first student, steps until the time is over, checkpoints.

The state is kept every so often by orbax, written whole or not at all, together with the step, the
seconds of training so far and the losses; a run that is killed goes on from there. What a step does
depends on its number only, and on the rate: by `steps`, a resumed run ends as one that was never
interrupted; by the clock it ends as one that was as fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import jax
import numpy as np

from distil.crops import Batches, Parts, hold_out, whole
from distil.export import read_student
from distil.loss import Losses, Statistics
from distil.pictures import Pictures
from distil.program import Optimization, Program
from distil.progress import progress, say
from distil.schedule import Schedule
from distil.student import Network, parse_shape, slice_teacher, student_config
from distil.validation import Figures, figures, said
from pirn_jax.encoder.encoder import Encoder
from pirn_jax.errors import PirnError
from pirn_jax.training.checkpoint import Checkpoints
from pirn_jax.training.step import State

MOST_HELD_OUT = 512
REPORT_SECONDS = 10.0
IN_FLIGHT = 2
"""Steps that the host may be ahead of the devices: the clock must mean something."""


@dataclass(frozen=True)
class Recipe:
    """What is learned; two runs that differ in it are not the same run.

    Attributes:
        student: WIDTHxBLOCKSxHEADS.
        image_size: of the pictures in pixels, a multiple of the teacher's patch.
        batch: pictures of a step, over all devices.
        weight_decay: of matrices.
        direction_weight: of the loss's term 1 - cosine.
        relation_weight: of the loss's term on the cosines between patches.
        held_out: share of the pictures that is never learned from.
        statistics_batches: that mean and deviation of the teacher's tokens are taken from.
        dtype: of the matrix products, "float32" or "bfloat16"; parameters stay in float32.
        seed: of everything random.
    """

    student: str = "192x12x3"
    image_size: int = 224
    batch: int = 512
    weight_decay: float = 0.05
    direction_weight: float = 1.0
    relation_weight: float = 4.0
    held_out: float = 0.03
    statistics_batches: int = 12
    dtype: str = "float32"
    seed: int = 0

    def network(self, teacher: Encoder) -> Network:
        """The student's."""
        config = student_config(parse_shape(self.student), teacher.config, self.image_size)
        return Network(config, teacher.channels, self.dtype)

    def optimization(self) -> Optimization:
        """What a step does with a gradient."""
        return Optimization(
            weight_decay=self.weight_decay,
            direction_weight=self.direction_weight,
            relation_weight=self.relation_weight,
        )


class Line(TypedDict):
    """The mean losses of the steps since the line before."""

    step: int
    seconds: float
    rate: float
    pictures_per_second: float
    total: float
    point: float
    direction: float
    relation: float


class Distilled(NamedTuple):
    """What a run ends with.

    Attributes:
        parameters: of the student, by path.
        statistics: of the teacher's tokens.
        steps, seconds: of training, interruptions not counted.
        history: losses.
        before, after: figures on held-out pictures; before only where this process began the run.
    """

    parameters: dict[str, np.ndarray]
    statistics: Statistics
    steps: int
    seconds: float
    history: list[Line]
    before: dict[str, Figures] | None
    after: dict[str, Figures]


def distil(
    recipe: Recipe,
    schedule: Schedule,
    teacher: Encoder,
    pictures: Pictures,
    sources: dict[str, int],
    checkpoints: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    threads: int = 2,
    began: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Train a student, or go on with it.

    Args:
        recipe: what is learned.
        schedule: how long, and how fast.
        teacher: for pictures of the recipe's size.
        pictures: from `read_pictures`.
        sources: by name, in the order of `pictures.sources`; how often each is drawn.
        checkpoints: folder.
        init: a student's file to begin from; None cuts the first one out of the teacher.
        resume: go on from the newest checkpoint, where there is one.
        save_seconds: between checkpoints.
        threads: that make crops.
        began: when the clock began, as time.monotonic says; None: now.
        stop: asked after every step; True ends the run as the clock would.

    Raises:
        ConfigError: checkpoints that are there without `resume`, or are another run's.
        PirnError: a loss that is not finite.
    """
    began = time.monotonic() if began is None else began
    network = recipe.network(teacher)
    program = Program(network, teacher, recipe.optimization(), recipe.batch, recipe.seed)
    parts = hold_out(
        pictures.sources, list(sources.values()), recipe.held_out, recipe.seed, MOST_HELD_OUT
    )
    run = _identity(recipe, teacher, pictures, sources, init)
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(Checkpoints(checkpoints, run, 2, resume))
        batches = stack.enter_context(
            Batches(
                pictures.arrays, parts.train, recipe.batch, recipe.image_size, recipe.seed, threads
            )
        )
        run_of = _Run(recipe, schedule, program, batches, kept, save_seconds, stop)
        held = np.stack([whole(pictures.arrays[i], recipe.image_size) for i in parts.held_out])
        return run_of.finish(began, held, _named(pictures, sources, parts), init)


class _HeldOut(NamedTuple):
    sources: np.ndarray
    names: list[str]


def _named(pictures: Pictures, sources: dict[str, int], parts: Parts) -> _HeldOut:
    return _HeldOut(np.array(pictures.sources)[parts.held_out], list(sources))


class _Run:
    """One process's share of a run: what stays the same while it lasts."""

    def __init__(
        self,
        recipe: Recipe,
        schedule: Schedule,
        program: Program,
        batches: Batches,
        checkpoints: Checkpoints,
        save_seconds: float,
        stop: Callable[[], bool],
    ):
        self.recipe, self.schedule, self.program = recipe, schedule, program
        self.batches, self.checkpoints = batches, checkpoints
        self.save_seconds, self.stop = save_seconds, stop
        self.history: list[Line] = []

    def finish(
        self, began: float, held: np.ndarray, about: _HeldOut, init: Path | None
    ) -> Distilled:
        """Begin or go on, and train to the end."""
        step, state = self._begin(init)
        spent = self.history[-1]["seconds"] if self.history else 0.0
        state = self.program.place(state)
        say("compiling")
        self.program.compile(state)
        tokens = self.program.teacher.grid[0] * self.program.teacher.grid[1]

        def validate(state: State) -> dict[str, Figures]:
            found = self.program.compare(state, held)
            return figures(found, tokens, about.sources, about.names)

        self.program.compare(state, held[:1])  # compiles
        start = time.monotonic()
        first = validate(state)
        reserve = time.monotonic() - start
        before = first if step == 0 else None
        say(f"{'before' if step == 0 else f'after {step} steps'}: {said(first)}")
        step, seconds, state = self._train(step, state, began - spent, reserve)
        if step == 0:
            say(f"no step was taken: the time was over after {seconds:.0f} s; give more --minutes")
        after = validate(state)
        say(f"after {step} steps: {said(after)}")
        final = self.program.fetch(state)
        statistics = Statistics(**final.statistics)
        return Distilled(final.parameters, statistics, step, seconds, self.history, before, after)

    def _begin(self, init: Path | None) -> tuple[int, State]:
        """The newest checkpoint, or the state before the first step; on the host."""
        network = self.program.network
        blank = {path: np.zeros(shape, np.float32) for path, shape in network.shapes.items()}
        zeros = np.zeros(network.channels, np.float32)
        found = self.checkpoints.restore(self.program.initial(blank, Statistics(zeros, zeros)))
        if found is not None:
            step, state, self.history = found
            say(f"going on after {step} steps")
            return step, state
        say(f"statistics of {self.recipe.statistics_batches} batches of the teacher's tokens")
        crops = self.batches.from_step(0)
        number = self.recipe.statistics_batches
        statistics = self.program.statistics(next(crops) for _ in range(number))
        if init is not None:
            parameters = read_student(init, network, statistics)
        else:
            parameters = slice_teacher(network, self.program.teacher, self.recipe.seed)
        return 0, self.program.initial(parameters, statistics)

    def _train(
        self, step: int, state: State, began: float, reserve: float
    ) -> tuple[int, float, State]:
        """Steps until the schedule is over; the clock began at `began`, resumed runs included."""
        crops = self.batches.from_step(step)
        pending: list[tuple[float, Losses]] = []
        reported = saved = time.monotonic()
        with progress("training") as tell:
            while True:
                seconds = time.monotonic() - began
                share = self.schedule.share(step, seconds + reserve)
                over = share >= 1 or self.stop()
                now = time.monotonic()
                due = now - saved >= self.save_seconds
                if pending and (over or due or now - reported >= REPORT_SECONDS):
                    jax.block_until_ready(pending)
                    now = time.monotonic()
                    seconds = now - began
                    line = self._report(step, seconds, now - reported, pending)
                    reported, pending = now, []
                    tell(share, _note(line))
                if over or due:
                    self._save(step, state)
                    saved = time.monotonic()
                if over:
                    return step, seconds, state
                rate = self.schedule.rate(step, share)
                state, losses = self.program.step(state, next(crops), step, rate)
                pending.append((rate, losses))
                if len(pending) > IN_FLIGHT:
                    jax.block_until_ready(pending[-1 - IN_FLIGHT])
                step += 1

    def _report(
        self, step: int, seconds: float, passed: float, pending: list[tuple[float, Losses]]
    ) -> Line:
        losses = np.array([[float(x) for x in losses] for _, losses in pending])
        bad = np.flatnonzero(~np.isfinite(losses[:, 0]))
        if len(bad):
            raise PirnError(
                f"the loss of step {step - len(pending) + bad[0] + 1} is not finite",
                "lower --learning-rate, and resume",
            )
        total, point, direction, relation = (float(x) for x in losses.mean(axis=0))
        line = Line(
            step=step,
            seconds=seconds,
            rate=pending[-1][0],
            pictures_per_second=len(pending) * self.recipe.batch / max(passed, 1e-9),
            total=total,
            point=point,
            direction=direction,
            relation=relation,
        )
        self.history.append(line)
        return line

    def _save(self, step: int, state: State) -> None:
        if self.history and self.history[-1]["step"] == step:  # not twice the one resumed from
            self.checkpoints.save(step, self.program.fetch(state), list(self.history))


def _note(line: Line) -> str:
    return (
        f"step {line['step']}, loss {line['total']:.4f} (point {line['point']:.4f}, direction "
        f"{line['direction']:.4f}, relation {line['relation']:.5f}), rate {line['rate']:.1e}, "
        f"{line['pictures_per_second']:.1f} pictures/s"
    )


def _identity(
    recipe: Recipe,
    teacher: Encoder,
    pictures: Pictures,
    sources: dict[str, int],
    init: Path | None,
) -> str:
    """What makes two runs the same, as a digest: not how long they last, nor where."""
    digest = hashlib.sha256()
    start = "" if init is None else hashlib.sha256(init.read_bytes()).hexdigest()
    about = {
        "recipe": dataclasses.asdict(recipe),
        "teacher": [teacher.config.name, teacher.layers, teacher.source.sha256],
        "pictures": [
            [name, array.shape] for name, array in zip(pictures.names, pictures.arrays, strict=True)
        ],
        "sources": sources,
        "init": start,
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()
