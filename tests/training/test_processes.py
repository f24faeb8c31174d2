"""What ends one of several processes ends all of them; here they are one, and take turns."""

import threading

import jax
import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError, MachineError, exit_code
from pirn_jax.training import losing_others, processes
from pirn_jax.training.watching import HEARTBEAT


class Ours(ConfigError):
    """A class that the other process need not know."""


@pytest.fixture
def as_process(monkeypatch):
    """Do something as the first of two processes, or as the other, which hears what that said."""
    said = []

    def do(index, work):
        heard = iter(said)

        def broadcast(tree):
            if index == 0:
                said.append(np.array(tree))
                return tree
            return next(heard)

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(processes, "broadcast", broadcast)
        return work()

    return do


def raising(error):
    def make():
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadInputError("cut short", "mend it", "a.png"), BadInputError),
        (Ours("taken", "--resume", "run"), ConfigError),
        (MachineError("full"), MachineError),
        (PermissionError(13, "Permission denied", "/run"), MachineError),
        (NotADirectoryError(20, "expected a folder", "/file"), MachineError),
        (RuntimeError("unforeseen"), MachineError),
    ],
)
def test_an_error_of_the_first_is_raised_by_all_with_one_exit_code(error, kind, as_process):
    with pytest.raises(type(error)) as first:
        as_process(0, lambda: processes.from_first(raising(error)))
    assert first.value is error
    with pytest.raises(kind, match="the first process ended") as other:
        as_process(1, lambda: processes.from_first(raising(AssertionError("not asked"))))
    assert exit_code(other.value) == exit_code(error)
    for name in ("problem", "remedy", "path"):
        assert str(getattr(error, name, "")) in str(getattr(other.value, name))


def test_a_value_of_the_first_is_that_of_all(as_process):
    assert as_process(0, lambda: processes.from_first(lambda: ["a", 1])) == ["a", 1]
    assert as_process(1, lambda: processes.from_first(raising(AssertionError()))) == ["a", 1]


def test_a_process_that_ends_alone_waits_for_the_others_no_longer_than_they_are_told_by(
    as_process, monkeypatch
):
    begun = []

    class Timer:
        def __init__(self, seconds, _, arguments):
            self.given = seconds, arguments

        def start(self):
            begun.append((*self.given, self.daemon))

    monkeypatch.setattr(threading, "Timer", Timer)

    def work():
        with losing_others():
            raise ConfigError("other data than the first")

    with pytest.raises(ConfigError):
        work()
    assert begun == []  # alone
    with pytest.raises(ConfigError):
        as_process(1, work)
    assert begun == [(HEARTBEAT, [3], True)]
