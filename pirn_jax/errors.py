"""The errors of pirn_jax: what was expected, what came, and what to do next.

Every error a user can cause is a `PirnError`. It is also the built-in error a Python programmer
would expect (`ValueError`, `ImportError`), so `except ValueError` keeps working.
"""

from __future__ import annotations

import os


class PirnError(Exception):
    """Something the user can put right.

    Args:
        problem: what was expected and what came instead.
        remedy: the next step, as an instruction.
        path: the file the problem lies in, if it lies in one.
    """

    def __init__(self, problem: str, remedy: str = "", path: str | os.PathLike[str] | None = None):
        where = None if path is None else os.fspath(path)
        super().__init__(problem, remedy, where)  # the same arguments: it crosses processes
        self.problem = problem
        self.remedy = remedy
        self.path = where  # last: ImportError has a field of this name and clears it

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.problem}" + (f"\n  → {self.remedy}" if self.remedy else "")


class BadInputError(PirnError, ValueError):
    """A file or array given as data cannot be used: unreadable, oversized, mislabelled or lying."""


class WeightsError(PirnError, ValueError):
    """Encoder weights are missing, damaged, or belong to another network."""


class ConfigError(PirnError, ValueError):
    """An option or argument is unknown, out of range, or contradicts another."""


class MissingDependencyError(PirnError, ImportError):
    """An optional or fragile package cannot be imported."""
