"""The errors of pirn_jax: what was expected, what came, and what to do next.

Every error a user can cause is a `PirnError`. It is also the built-in error a Python programmer
would expect (`ValueError`, `ImportError`), so `except ValueError` keeps working.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints


class PirnError(Exception):
    """Something the user can put right.

    Args:
        problem: what was expected and what came instead.
        remedy: the next step, as an instruction.
        path: the file the problem lies in, if it lies in one.
    """

    def __init__(self, problem: str, remedy: str = "", path: str | os.PathLike[str] | None = None):
        where = None if path is None else _STORE.sub(r"\1://", os.fspath(path))
        super().__init__(problem, remedy, where)  # the same arguments: it crosses processes
        self.problem = problem
        self.remedy = remedy
        self.path = where  # last: ImportError has a field of this name and clears it

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return printable(f"{where}{self.problem}" + (f"\n  → {self.remedy}" if self.remedy else ""))


class BadInputError(PirnError, ValueError):
    """A file or array given as data cannot be used: unreadable, oversized, mislabelled or lying."""


class NotJudgedError(BadInputError):
    """A scan shows nothing that could be judged: a sensor that saw nothing, or something else."""


class WeightsError(PirnError, ValueError):
    """Encoder weights are missing, damaged, or belong to another network."""


class ConfigError(PirnError, ValueError):
    """An option or argument is unknown, out of range, or contradicts another."""


class MachineError(PirnError, OSError):
    """The machine keeps it from being done: disk, permission, memory, or another process."""


class MissingDependencyError(PirnError, ImportError):
    """An optional or fragile package cannot be imported."""


DEFECT_FOUND, UNJUDGED, USAGE, MACHINE, STOPPED = 1, 2, 3, 4, 130
"""Exit codes of every command; `pirn_jax.command` says what they mean."""


def exit_code(error: Exception) -> int:
    """The exit code of a command that an error ended."""
    if isinstance(error, ConfigError):
        return USAGE
    machine = isinstance(error, MachineError | MissingDependencyError)
    return UNJUDGED if isinstance(error, PirnError) and not machine else MACHINE


def in_one_line(error: Exception) -> str:
    """What a command says of an error that ended it."""
    if isinstance(error, PirnError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or first.startswith("RESOURCE_EXHAUSTED"):
        return f"not enough memory: {first[:200] or 'use a smaller --batch or picture'}"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror or first}"
    return f"unforeseen: {type(error).__name__}: {first[:500]} (--debug shows where)"


_STORE = re.compile(r"^(s3|gs|memory):/(?!/)")  # as `pirn_jax.places` has such paths

# Control characters but for line breaks and tabs, marks that turn the direction of writing, and
# lone surrogates, which stand for bytes of a name that are no UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with whatever could steer a terminal, or is no UTF-8, written out as its number."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to append to a message about an unknown name, or nothing."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).lower(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


def check_name(what: str, name: str, names: Iterable[str]) -> None:
    """Refuse a name that is not among those.

    Args:
        what: the option or argument it was given as.
        name: as given.
        names: all there are.

    Raises:
        ConfigError: naming all of them and the nearest.
    """
    known = tuple(names)
    if name not in known:
        # One sentence: the flag parser shows no remedy.
        raise ConfigError(
            f"{what}: expected one of {', '.join(known)}; got {name!r}{did_you_mean(name, known)}"
        )


def check_choices(config: Any) -> None:
    """Refuse a value that is none of those its field's `Literal` names.

    Args:
        config: a dataclass.

    Raises:
        ConfigError: naming the field and all it may be.
    """
    for name, known in _choices(type(config)).items():
        check_name(name, getattr(config, name), known)


@functools.cache
def _choices(kind: type) -> dict[str, tuple[Any, ...]]:
    """What each field whose type is a `Literal` may be."""
    hints = get_type_hints(kind).items()
    return {name: get_args(hint) for name, hint in hints if get_origin(hint) is Literal}
