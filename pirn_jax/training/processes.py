"""Several processes, one run: each holds some of the devices, all do the same, the first writes.

What depends on a clock or a disk is decided by the first process and told to the others, so that
all of them take the same collective steps. Nothing but the first process's disk is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from pirn_jax import errors
from pirn_jax.errors import ConfigError, MachineError, PirnError
from pirn_jax.training.watching import HEARTBEAT

# The others wait while the first evaluates and reports.
LONGEST_WAIT = 7 * 24 * 3600
Result = TypeVar("Result")
Tree = TypeVar("Tree")


def are_several(coordinator: str | None) -> bool:
    """Whether this is one of several processes: they have a coordinator, or are tasks of Slurm."""
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in os.environ else "1"
    return coordinator is not None or tasks != "1"


def join_processes(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Become one of several processes; to be called before JAX is used.

    Args:
        coordinator: HOST:PORT at which the first process is to listen. None: nothing is done,
            unless this is one of several tasks of a Slurm step, whose settings JAX finds itself.
        processes: how many there are; None where Slurm or the like says.
        process: which of them this is, from 0; the same.

    Raises:
        ConfigError: too little is known, or the processes do not find each other.
    """
    if not are_several(coordinator) or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=LONGEST_WAIT,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes do not come together at {coordinator or 'what Slurm names'}: {error}",
            "give every process the same --coordinator HOST:PORT and --processes, and each its "
            "own --process from 0",
        ) from error


def is_first() -> bool:
    """Whether this process is the one that writes; so is a process alone."""
    return jax.process_index() == 0


def from_first(make: Callable[[], Result]) -> Result:
    """What the first process makes of it, on all of them.

    Args:
        make: called on the first only; gives what JSON can hold.

    Raises:
        Exception: what `make` raised; on the others the same `PirnError`, and in place of any other
            a `MachineError`, so that all of them end alike.
    """
    if jax.process_count() == 1:
        return make()
    said, raised = b"", None
    if is_first():
        try:
            said = json.dumps({"value": make()}).encode()
        except Exception as error:  # the others wait for an answer, whatever it is
            said, raised = json.dumps({"error": _retold(error)}).encode(), error
    length = int(broadcast(np.array(len(said), np.int32)))
    heard = broadcast(np.frombuffer(said.ljust(length), np.uint8)[:length])
    if raised is not None:
        raised.__traceback__ = None
        raise raised
    document = json.loads(heard.tobytes())
    if "error" in document:
        kind, problem, remedy, path = document["error"]
        raise getattr(errors, kind)(f"the first process ended: {problem}", remedy, path)
    return document["value"]


def _retold(error: Exception) -> tuple[str, str, str, str | None]:
    """Class, problem, remedy and path of what the others raise."""
    if not isinstance(error, PirnError):
        return MachineError.__name__, errors.in_one_line(error), "", None
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return kind.__name__, error.problem, error.remedy, error.path


def broadcast(tree: Tree) -> Tree:
    """The first process's arrays, on all of them; the others give arrays of the same shapes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def check_same(what: str, digest: str) -> None:
    """See to it that all processes hold the same.

    Raises:
        ConfigError: on each that does not hold what the first does.
    """
    if from_first(lambda: digest) != digest:
        raise ConfigError(
            f"process {jax.process_index()} has {what} that differ from the first process's",
            "give all of them the same data, weights and versions",
        )
