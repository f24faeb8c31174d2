"""Work on a Ray cluster: tasks in, their results out in order, whatever happens to workers.

Ray places, restarts and retries; ours is `_Models` alone, for processes on GPUs. A task whose
worker is killed, or whose machine is lost, is done again by another, so a task must be one that may
be done twice: it writes files whole, under names that follow from the task alone. Not for ever: one
that ends every worker is named. Errors of the task itself are not retried, and are raised here as
they were there.

Tasks wait in Ray's queue, a few for each worker, so that the list of tasks may be longer than
memory. A worker is a process that stays: what a task loads it may keep for the next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pirn_jax.errors import ConfigError, MachineError, MissingDependencyError, check_choices

AHEAD = 4
"""Tasks on their way for each that can run: one runs, the next is read meanwhile, two wait."""
RETRIES = 20
"""So often a task is done again whose worker was killed or whose machine was lost."""


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
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # for ever, unless told otherwise
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
        name: what a task is called in a message.
    """

    whole: Step
    read: Step
    judge: Step
    write: Step
    name: Callable[[Any], str] = str


class Cluster:
    """A Ray cluster at work.

    Args:
        ray: the package, joined.
        cores: that a task takes.
    """

    def __init__(self, ray: Any, cores: int):
        self._ray, self._cores = ray, cores
        self._here = os.getcwd()  # relative paths are the workers' too
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
        return Executor(self._ray, self._cores, self._here, start, given)

    def map(self, steps: Steps, shared: object, tasks: Iterable[object]) -> Iterator[Any]:
        """The results of tasks, in their order.

        Args:
            steps: of each task.
            shared: sent to every machine once.
            tasks: taken when their turn comes near.

        Raises:
            PirnError: what a task raised.
            MachineError: a task whose workers died, however often it was tried.
        """
        models = _Models(self._ray, self.gpus, steps.judge, self._here)
        submit = self._submitting(steps, self._ray.put(shared), models)
        most = AHEAD * self.workers
        waiting: deque[tuple[Any, Any]] = deque()
        try:
            for task in tasks:
                waiting.append((task, submit(task)))
                if len(waiting) == most:
                    yield self._result(*waiting.popleft(), submit, steps.name)
            while waiting:
                yield self._result(*waiting.popleft(), submit, steps.name)
        finally:
            models.leave()

    def _submitting(self, steps: Steps, shared: Any, models: _Models) -> Callable[[object], Any]:
        step = self._ray.remote(_one_step).options(num_cpus=self._cores, max_retries=RETRIES)
        if not self.gpus:
            return lambda task: step.remote(steps.whole, shared, task, self._here)

        def submit(task: object) -> Any:
            read = step.remote(steps.read, shared, task, self._here)
            judged = models.judge(shared, read)
            return step.remote(steps.write, shared, judged, self._here)

        return submit

    def _result(
        self, task: Any, reference: Any, submit: Callable[[object], Any], name: Callable[[Any], str]
    ) -> Any:
        wrong, tried = self._ray.exceptions, 1
        while True:
            try:
                return self._ray.get(reference)
            except wrong.RayError as error:
                cause = error.cause if isinstance(error, wrong.RayTaskError) else error
                # Of what was judged Ray does not know how to do it again.
                lost = isinstance(cause, wrong.RayActorError | wrong.ObjectLostError)
                if not lost or tried > RETRIES:
                    raise _told(self._ray, error, name(task)) from error
            reference, tried = submit(task), tried + 1


class _Models:
    """A process on each GPU; what is to be judged goes to the one there that has least to do.

    A GPU that is another's joins when it is free. In place of a process that is lost, with its
    machine or without, another is asked for. (Not tasks: Ray ends their processes, and with them
    the model, when they have waited for a second, and lends their GPUs to others.)
    """

    def __init__(self, ray: Any, number: int, step: Step, here: str):
        kind = ray.remote(_OnGpu).options(num_cpus=0, num_gpus=1)
        self._ray, self._start = ray, lambda: kind.remote(step, here)
        self._coming: dict[Any, list[Any]] = {}  # and what each was given that is not done
        self._there: dict[Any, list[Any]] = {}
        self._left = (RETRIES + 1) * number  # to be started: none can where ours is not installed
        for _ in range(number):
            self._ask()

    def _ask(self) -> None:
        if not self._left:
            raise _died("starting on a GPU")
        self._left -= 1
        process = self._start()
        self._coming[process] = [process.__ray_ready__.remote()]

    def judge(self, shared: Any, read: Any) -> Any:
        """What one of them makes of it, once it is read."""
        self._look()
        while not self._there:
            self._ray.wait([call for (call,) in self._coming.values()])
            self._look()
        process, given = min(self._there.items(), key=lambda item: len(item[1]))
        done, judged = process.judge.options(num_returns=2).remote(shared, read)
        given.append(done)
        return judged

    def leave(self) -> None:
        """End them. Ray ends those that nobody holds, and an error that came by holds them."""
        left = [*self._coming, *self._there]
        self._coming.clear()
        self._there.clear()
        if self._ray.is_initialized():
            for process in left:
                self._ray.kill(process)

    def _look(self) -> None:
        """Take note of who has come, what is done, and who is lost."""
        for process, given in [*self._coming.items(), *self._there.items()]:
            if not given:
                continue
            done, left = self._ray.wait(given, num_returns=len(given), timeout=0)
            if done:
                self._coming.pop(process, None)
                self._there.pop(process, None)
                if any(map(self._is_lost, done)):
                    self._ask()
                else:
                    self._there[process] = left

    def _is_lost(self, call: Any) -> bool:
        """Whether who was called is no more."""
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayActorError:
            return True
        except self._ray.exceptions.RayError:
            pass  # the task's own: whoever asks for its result is told
        return False


def _told(ray: Any, error: Any, name: str = "") -> BaseException:
    """What a task raised, as it was there; workers that died, as an error of the machine."""
    wrong = ray.exceptions
    while isinstance(error, wrong.RayTaskError):  # of one whose result was needed
        error = error.cause
    died = (wrong.WorkerCrashedError, wrong.OutOfMemoryError, wrong.NodeDiedError)
    return _died(name) if isinstance(error, (*died, wrong.RayActorError)) else error


def _died(name: str) -> MachineError:
    named = f" ({name[:200]})" if name else ""
    return MachineError(
        f"workers died {RETRIES + 1} times at one task{named}, most likely for lack of memory",
        "use more --cores, so that fewer tasks share a machine, or a smaller --batch; "
        "what is done is kept",
    )


class Executor:
    """A `concurrent.futures.Executor`, as far as it is needed, over a cluster."""

    def __init__(self, ray: Any, cores: int, here: str, start: Callable[..., None], given: Any):
        self._ray, self._here = ray, here
        self._start = ray.put((start, given))
        self._task = ray.remote(_started).options(num_cpus=cores, max_retries=RETRIES)
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
                outcome.set_exception(_told(self._ray, error))

        reference.future().add_done_callback(told)
        return outcome

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Nothing more is to be done; tasks that wait are not done where that is asked."""
        if cancel_futures:
            for reference in tuple(self._waiting):
                self._ray.cancel(reference, force=False)


# --- in the workers -------------------------------------------------------------------------------

_started_with: set[bytes] = set()


def _ready(here: str, on_gpu: bool = False) -> None:
    """Before JAX is first used: no GPU that is another's."""
    os.chdir(here)
    if not on_gpu:
        import jax

        jax.config.update("jax_platforms", "cpu")


def _one_step(step: Step, shared: object, value: object, here: str) -> object:
    _ready(here)
    return step(shared, value)


class _OnGpu:
    def __init__(self, step: Step, here: str):
        self._step, self._here = step, here

    def judge(self, shared: object, value: object) -> tuple[None, object]:
        """Nothing, by which it is known to be done; and what was made of it."""
        _ready(self._here, on_gpu=True)
        return None, self._step(shared, value)


def _started(
    start: list[Any], work: Callable[..., Any], arguments: tuple[Any, ...], here: str
) -> object:
    _ready(here)
    (reference,) = start
    if reference.binary() not in _started_with:
        import ray

        begin, given = ray.get(reference)
        begin(*given)
        _started_with.add(reference.binary())
    return work(*arguments)
