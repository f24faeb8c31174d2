"""One of several processes, watched: when another is lost, this one ends soon and says why.

JAX's coordination service notices within `HEARTBEAT` seconds that a process is gone, and then
aborts all others from C++, past any Python; a collective over the lost connection raises at once
where the transport notices it. So the work is done by a child, and the process that was started
watches it: whichever way the child goes, there is one message, one exit code, and the checkpoints
to resume from, with as many processes as are left.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import jax

from pirn_jax.errors import MACHINE, MachineError, exit_code

HEARTBEAT = 30
"""Seconds without a sign of life after which a process is lost."""
_REMEDY = (
    "start it again with --resume, on any number of processes: it goes on from the last checkpoint"
)


def watched(work: Callable[..., None], *arguments: object) -> int:
    """Have the work of one of several processes done by a child, and wait for its end.

    Args:
        work: a function of a module, whose `SystemExit` is the child's exit code.
        arguments: of `work`; they can be pickled.

    Returns:
        The exit code of the child.

    Raises:
        MachineError: another process was lost, or the child was killed.
    """
    child = multiprocessing.get_context("spawn").Process(target=_follow, args=(work, arguments))
    child.start()
    try:
        child.join()
    except KeyboardInterrupt:  # it has the signal too
        child.join()
        raise
    code = child.exitcode or 0
    if code == -signal.SIGABRT:
        raise _lost("the coordination service lost one")
    if code < 0:
        raise MachineError(
            f"this process was ended by signal {-code}, as for lack of memory; the others end too",
            _REMEDY,
        )
    return code


@contextlib.contextmanager
def losing_others() -> Iterator[None]:
    """What the device says when another process is gone, as a `MachineError`.

    It ends the process then and there: on the way out JAX would wait for the lost one. So it would,
    after any other error, for those that know nothing of it: they have as long to end as well.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        first = str(error).partition("\n")[0][:200]
        if jax.process_count() == 1 or first.startswith("RESOURCE_EXHAUSTED"):
            raise
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: {_lost(first)}\n")
            sys.stderr.flush()
        os._exit(MACHINE)
    except Exception as error:
        if jax.process_count() > 1:
            ended = threading.Timer(HEARTBEAT, os._exit, [exit_code(error)])
            ended.daemon = True
            ended.start()
        raise


def _lost(reason: str) -> MachineError:
    return MachineError(f"another process of this run is gone: {reason}", _REMEDY)


def _follow(work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """In the child: end with the process that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    work(*arguments)
