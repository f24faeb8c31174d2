"""Work on a Ray cluster: tasks in, their results out in order, whatever happens to workers.

Ray alone places, restarts and retries; nothing of that is ours. A task whose worker is killed, or
whose machine is lost, is done again by another, so a task must be one that may be done twice: it
writes files whole, under names that follow from the task alone. Errors of the task itself are not
retried, and are raised here as they were there.

Tasks wait in Ray's queue, a few for each worker, so that the list of tasks may be longer than
memory. A worker is a process that stays: what a task loads it may keep for the next.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from pirn_jax.errors import ConfigError, MachineError, MissingDependencyError, check_choices

AHEAD = 4
"""Tasks on their way for each that can run: one runs, the next is read meanwhile, two wait."""
_FOR_EVER = -1  # Ray's word for as often as it takes


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a command's work is done: the same flags on every command that can be spread."""

    on: Literal["here", "ray"] = "here"
    """here: on this machine; ray: on the workers of a Ray cluster (pip install 'pirn-jax[ray]'),
    with the same results. Workers must see the same files under the same paths. A job that was
    stopped or killed does what is left when the same command is given again."""
    address: str | None = None
    """With --on ray: HOST:PORT of the cluster, or auto for the one this machine is part of; without
    it a cluster is started on this machine, and ends with the command."""
    cores: int = 1
    """With --on ray: cores that a task takes."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.on != "ray" and (self.address is not None or self.cores != 1):
            raise ConfigError("address and cores are those of a Ray cluster: add --on ray")
        if self.cores < 1:
            raise ConfigError(f"cores: expected 1 or more, got {self.cores}")

    @contextlib.contextmanager
    def cluster(self, workers: int | None = None) -> Iterator[Cluster | None]:
        """The cluster while the block runs; None where the work is done here.

        What Ray has to say goes to stderr, and so does whatever else is printed meanwhile.

        Args:
            workers: of a cluster that is started for it; by default one a processor.

        Raises:
            ConfigError: workers for a cluster that is there already.
            MissingDependencyError: Ray is not installed.
            MachineError: the cluster is not there, or is lost.
        """
        if self.on == "here":
            yield None
            return
        if self.address is not None and workers is not None:
            raise ConfigError(
                "workers are those of a cluster that is started here, and an address was given",
                "leave one of them out",
            )
        import jax

        jax.config.update("jax_platforms", "cpu")  # GPUs are the workers'
        with _joined(self.address, workers and workers * self.cores) as ray:
            yield Cluster(ray, self.cores)


@contextlib.contextmanager
def _joined(address: str | None, cores: int | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 of Ray's own: behind whatever else runs
    # As many threads as the plain command has: with fewer, sums are rounded otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependencyError(
            "--on ray needs the package ray", "pip install 'pirn-jax[ray]'"
        ) from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    there = ray.is_initialized()
    try:
        if not there and address is not None:
            ray.init(address=address, **quiet)
        elif not there:
            ray.init(
                address="local", num_cpus=cores or os.cpu_count(), include_dashboard=False, **quiet
            )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise MachineError(
            f"no Ray cluster at {address or 'this machine'}: {first}",
            "start one with `ray start`, or leave out --address; one that asks for a token "
            "wants RAY_AUTH_MODE=token here too",
        ) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of workers that died
            yield ray
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0][:200]
        raise MachineError(
            f"the Ray cluster is lost: {type(error).__name__}: {first}",
            "give the same command again: it does what is left",
        ) from error
    finally:
        if not there:
            ray.shutdown()


Step = Callable[[Any, Any], Any]
"""`step(shared, value)`: a function of a module."""


class Steps(NamedTuple):
    """What a task is made of.

    Attributes:
        whole: all of it, for a worker of a cluster without GPUs.
        read: the first of three steps, each fed what the one before gave; on any cores.
        judge: the second; by a process of its own on each GPU, whose batches so are full.
        write: the last; on any cores.
    """

    whole: Step
    read: Step
    judge: Step
    write: Step


class Here(NamedTuple):
    """What workers know of where the command was given.

    Attributes:
        folder: in which it was, and in which relative paths are theirs too.
        cores: that a task takes.
    """

    folder: str
    cores: int


class Cluster:
    """A Ray cluster at work.

    Args:
        ray: the package, joined.
        cores: that a task takes.
    """

    def __init__(self, ray: Any, cores: int):
        self._ray, self._cores = ray, cores
        self._here = Here(os.getcwd(), cores)
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.slots = sum(int(one.get("CPU", 0)) // cores for one in found)  # none spans machines
        self.gpus = sum(int(one.get("GPU", 0)) for one in found)
        if not self.slots:
            raise MachineError(
                f"no machine of the cluster has {cores} cores to give", "use fewer --cores"
            )

    @property
    def workers(self) -> int:
        """How many tasks can be judged at a time."""
        return self.gpus or self.slots

    def executor(self, start: Callable[..., None], given: tuple[Any, ...]) -> Executor:
        """For tasks that are functions of a module.

        Args:
            start: called in every worker before its first task.
            given: to `start`.
        """
        return Executor(self._ray, self._here, start, given)

    def map(self, steps: Steps, shared: object, tasks: Iterable[object]) -> Iterator[Any]:
        """The results of tasks, in their order.

        Args:
            steps: of each task.
            shared: sent to every machine once.
            tasks: taken when their turn comes near.

        Raises:
            PirnError: what a task raised.
        """
        kept = self._ray.put(shared)
        submit = self._by_gpus(steps, kept) if self.gpus else self._by_cores(steps, kept)
        most = AHEAD * self.workers
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(submit(task))
            if len(waiting) == most:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _by_cores(self, steps: Steps, shared: Any) -> Callable[[object], Any]:
        step = self._ray.remote(_one_step)
        step = step.options(num_cpus=self._cores, max_retries=_FOR_EVER)
        return lambda task: step.remote(steps.whole, shared, task, self._here)

    def _by_gpus(self, steps: Steps, shared: Any) -> Callable[[object], Any]:
        step = self._ray.remote(_one_step)
        step = step.options(num_cpus=self._cores, max_retries=_FOR_EVER)
        model = self._ray.remote(_OnGpu).options(
            num_cpus=0, num_gpus=1, max_restarts=_FOR_EVER, max_task_retries=_FOR_EVER
        )
        models = itertools.cycle([model.remote(steps.judge, self._here) for _ in range(self.gpus)])

        def submit(task: object) -> Any:
            read = step.remote(steps.read, shared, task, self._here)
            judged = next(models).judge.remote(shared, read)
            return step.remote(steps.write, shared, judged, self._here)

        return submit

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error


@runtime_checkable
class Submits(Protocol):
    """What takes tasks: the part of `concurrent.futures.Executor` that is needed."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a task done."""
        ...

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Nothing more is to be done; nor what waits, where that is asked."""
        ...


class Executor:
    """`Submits`, over a cluster."""

    def __init__(self, ray: Any, here: Here, start: Callable[..., None], given: tuple[Any, ...]):
        self._ray, self._here = ray, here
        self._start = ray.put((start, given))
        self._task = ray.remote(_started).options(num_cpus=here.cores, max_retries=_FOR_EVER)
        self._waiting: set[Any] = set()

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a task done; see `concurrent.futures.Executor.submit`."""
        # In a list it is not sent along: a worker that has not started yet asks for it.
        reference = self._task.remote([self._start], work, arguments, self._here)
        self._waiting.add(reference)
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()

        def told(future: Future[Any]) -> None:
            self._waiting.discard(reference)
            error = future.exception()
            if error is None:
                outcome.set_result(future.result())
            else:
                outcome.set_exception(getattr(error, "cause", None) or error)

        reference.future().add_done_callback(told)
        return outcome

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Nothing more is to be done; tasks that wait are not done where that is asked."""
        if cancel_futures:
            for reference in tuple(self._waiting):
                self._ray.cancel(reference, force=False)


# --- in the workers -------------------------------------------------------------------------------

_started_with: set[bytes] = set()


def _ready(here: Here, on_gpu: bool = False) -> None:
    """Before JAX is first used: no GPU that is another's."""
    os.chdir(here.folder)
    if not on_gpu:
        import jax

        jax.config.update("jax_platforms", "cpu")


def _one_step(step: Step, shared: object, value: object, here: Here) -> object:
    _ready(here)
    return step(shared, value)


class _OnGpu:
    def __init__(self, step: Step, here: Here):
        _ready(here, on_gpu=True)
        self._step = step

    def judge(self, shared: object, value: object) -> object:
        return self._step(shared, value)


def _started(
    start: list[Any], work: Callable[..., Any], arguments: tuple[Any, ...], here: Here
) -> object:
    _ready(here)
    (reference,) = start
    if reference.binary() not in _started_with:
        import ray

        begin, given = ray.get(reference)
        begin(*given)
        _started_with.add(reference.binary())
    return work(*arguments)
