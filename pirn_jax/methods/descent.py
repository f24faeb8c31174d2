"""Gradient descent on the shots' tokens: what the methods that learn by it share.

A method says what is minimised (an `Objective`) and of which items, tokens or whole images; here
are the steps: one compiled `lax.scan` for all jobs of a method, job after job.

So many steps are taken, whatever the number of shots, and each of so many items: passes over the
items, each in an order of its own, are cut into steps one after the other, across their borders.
So nothing is dropped (published code drops the last, smaller batch: all there is of five shots),
every item is met equally often to within one, and the program does not depend on how many tokens
show the part. The last parameters are kept: there is nothing to choose a better epoch by but the
test set.

Nothing is checkpointed, and one device does it: it is seconds to minutes.

Dimension letters: M modalities, T tokens of the shots, C channels, S steps, I items of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, Unpack, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray, UInt32

from pirn_jax.decoder import Params, Tokens
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import TokenSettings, fit
from pirn_jax.training import HistoryLine, Trained, TrainingJob
from pirn_jax.training.batches import stretches

CHUNK = 1024  # items are filled up to a multiple, so that few shapes are compiled
Report = Callable[[HistoryLine], None]


@dataclass(frozen=True)
class DescentSettings(TokenSettings):
    """How long is learned, and from how much at a time."""

    scale: Literal["none", "centre", "standardise", "whiten"] = "standardise"
    """Then, by statistics of all the shots' tokens: none, centre, standardise (per channel),
    whiten."""
    learning_rate: float = 2e-4
    """Of Adam."""
    steps: int = 600
    """Gradient steps, whatever the number of shots."""
    batch_size: int = 256
    """Tokens a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(steps=1, batch_size=1)
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate: expected above 0, got {self.learning_rate}")

    def multiple_of_four(self, name: str) -> None:
        """Refuse a number of channels that positions cannot have.

        Raises:
            ConfigError: naming the field.
        """
        if getattr(self, name) % 4:
            raise ConfigError(f"{name}: expected a multiple of 4, got {getattr(self, name)}")


@runtime_checkable
class Objective(Protocol):
    """What is minimised, and how; equal ones share a program."""

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The loss of some items; `statistics` are not trained."""
        ...

    def optimizer(self) -> optax.GradientTransformation:
        """Makes changes of gradients."""
        ...


class Items(NamedTuple):
    """What is learned from.

    Attributes:
        values: a tree of arrays, whose axis in front is that of the items.
        count: how many there are; beyond them the arrays are filled up.
    """

    values: dict[str, Any]
    count: int


def tokens_of(job: TrainingJob, tokens: Float[np.ndarray, "M T C"]) -> Items:
    """Tokens of the shots that count, and where on the grid each was.

    Args:
        job: whose shots they are.
        tokens: of `fit`.

    Raises:
        BadInputError: there are none.
    """
    count = tokens.shape[1]
    if not count:
        raise BadInputError(f"{job.name}: no token of the shots shows the part")
    filled = np.arange(-(-count // CHUNK) * CHUNK) % count
    places = np.nonzero(np.asarray(job.shots.valid))[1].astype(np.int32)
    values = {"tokens": tokens.swapaxes(0, 1)[filled], "places": places[filled]}
    return Items(jax.tree.map(jnp.asarray, values), count)


@dataclass(frozen=True)
class Learner(ABC):
    """A method that is trained: it learns job by job.

    Attributes:
        settings: of the method.
        modalities: M, how many streams.
        grid: rows and columns of the tokens.
        channels: C.
    """

    settings: DescentSettings
    modalities: int
    grid: tuple[int, int]
    channels: int

    descents = 1
    """How many descents learning a job takes."""

    def learn(self, jobs: Sequence[TrainingJob], **options: Unpack[LearnOptions]) -> list[Trained]:
        """Train each job's networks, one job after the other.

        Raises:
            BadInputError: no token of a job's shots counts.
            PirnError: a loss that is not finite.
        """
        progress = options.get("progress")
        lines = self.descents * len(stretches(self.settings.steps))
        trained: list[Trained] = []
        for place, job in enumerate(jobs):
            history: list[HistoryLine] = []

            def report(
                line: HistoryLine, history: list[HistoryLine] = history, before: int = place * lines
            ) -> None:
                history.append(line)
                if progress is not None:
                    told = {line["job"]: line}
                    progress(before + len(history), lines * len(jobs), told)

            statistics, tokens = self.fit(job.shots)
            parameters, more = self.train(job, statistics, tokens, report)
            parameters, known = jax.tree.map(np.array, (parameters, statistics | more))
            trained.append(Trained(job.name, parameters, known, history))
        return trained

    def fit(self, shots: Tokens) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "m T C"]]:
        """Statistics of the scale, and the scaled tokens of the shots that count."""
        return fit(self.settings, self.grid, shots)

    @abstractmethod
    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "M T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """Parameters, and what is to be kept beside the scale's statistics.

        Args:
            job: to be learned.
            statistics: of the scale.
            tokens: scaled ones of the shots that count.
            report: to be told the history.
        """


def descend(
    objective: Objective,
    parameters: Params,
    statistics: Params,
    items: Items,
    settings: DescentSettings,
    job: TrainingJob,
    report: Report,
    before: int = 0,
) -> Params:
    """The parameters after all steps.

    Args:
        objective: what is minimised.
        parameters: to start from.
        statistics: given to the objective.
        items: learned from.
        settings: steps and items of each; no step has more items than there are.
        job: its name, and the seed of orders and of what is random.
        report: told a line for each stretch of steps; its epoch is the pass it ended in.
        before: steps of a descent before this one, in the history.

    Raises:
        PirnError: a loss that is not finite.
    """
    parameters = jax.tree.map(jnp.asarray, parameters)
    state = (parameters, objective.optimizer().init(parameters))
    size = min(settings.batch_size, items.count)
    order = passes(job.seed, items.count, settings.steps * size).reshape(-1, size)
    random = np.random.default_rng((job.seed, before, 1))
    seeds = random.integers(2**32, size=settings.steps, dtype=np.uint32)
    for start, stop in stretches(settings.steps):
        here = slice(start, stop)
        state, losses = run_steps(
            objective, state, statistics, items.values, jnp.asarray(order[here]), seeds[here]
        )
        loss, step = float(losses.mean()), before + stop
        if not np.isfinite(loss):
            raise PirnError(
                f"{job.name}: the loss up to step {step} is {loss}", "lower the learning rate"
            )
        epoch = -(-step * size // items.count)
        report(HistoryLine(job=job.name, epoch=epoch, step=step, loss=loss))
    return state[0]


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_steps(
    objective: Objective,
    state: tuple[Params, optax.OptState],
    statistics: Params,
    items: Params,
    indices: Int[Array, "S I"],
    seeds: UInt32[Array | np.ndarray, " S"],
) -> tuple[tuple[Params, optax.OptState], Float[Array, " S"]]:
    """Many steps: the state after, and each loss before its step."""
    optimizer = objective.optimizer()

    def step(
        state: tuple[Params, optax.OptState], chosen: tuple[Array, Array]
    ) -> tuple[tuple[Params, optax.OptState], Array]:
        (parameters, memory), (places, seed) = state, chosen
        batch = jax.tree.map(lambda x: x[places], items)
        given = (statistics, batch, jax.random.key(seed))
        loss, gradient = jax.value_and_grad(objective)(parameters, *given)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            change, memory = optimizer.update(gradient, memory, parameters)
        updated: Params = optax.apply_updates(parameters, change)  # pyright: ignore
        return (updated, memory), loss

    return jax.lax.scan(step, state, (jnp.asarray(indices), jnp.asarray(seeds)))


def passes(seed: int, items: int, count: int) -> Int[np.ndarray, " _"]:
    """The first so many items met in pass after pass over all, each in an order of its own."""
    random = np.random.default_rng(seed)
    orders = [random.permutation(items) for _ in range(-(-count // items))]
    return np.concatenate(orders)[:count].astype(np.int32)
