"""Every state of a folder that a kill could leave, collected while something writes into it.

SIGKILL takes effect between two operations on the file system: what was done is there, what was
only meant to be is not. So the folder is copied before each of them (Python tells of each by an
audit event), and once more with half of what the file last opened for writing had gained since, for
a write that was not finished. That is all a kill can leave of what is written from Python, at a
hundredth of the cost of starting and killing as many processes; `kill` does that too, for what is
written by other libraries and for locks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "open")
_watching: States | None = None
_hooked = False


class States:
    """States of a folder, each another, in order.

    Attributes:
        copies: where they lie.
        operations: how many operations there were.
    """

    def __init__(self, root: Path, kept: Path):
        self.root, self._kept = root.resolve(), kept
        self.copies: list[Path] = []
        self.operations = 0
        self._seen: set[frozenset[tuple[str, bytes | None]]] = set()
        self._written: tuple[Path, int] | None = None
        self._busy = threading.RLock()

    def operation(self, event: str, arguments: tuple[object, ...]) -> None:
        """Called before each operation of the process."""
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        place = Path(os.path.abspath(os.fsdecode(path)))
        if not place.is_relative_to(self.root) or place == self.root:
            return
        with self._busy:
            self.operations += 1
            self.keep()
            flags = arguments[2] if event == "open" else 0
            if event == "open" and isinstance(flags, int) and flags & _WRITES:
                self._written = place, place.stat().st_size if place.exists() else 0

    def keep(self) -> None:
        """Copy the folder as it is, and with its last write half done."""
        if self._written is not None and self._written[0].is_file():
            path, before = self._written
            size = path.stat().st_size
            if size > before + 1:
                name = path.relative_to(self.root)
                self._copy({name.as_posix(): before + (size - before) // 2})
        self._copy({})

    def _copy(self, cut: dict[str, int]) -> None:
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            found[name] = path.read_bytes()[: cut.get(name)] if path.is_file() else None
        state = frozenset(found.items())
        if state in self._seen:
            return
        self._seen.add(state)
        target = self._kept / str(len(self.copies))
        target.mkdir(parents=True)
        for name, content in found.items():
            if content is None:
                (target / name).mkdir(parents=True, exist_ok=True)
            else:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(content)
        self.copies.append(target)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    global _watching
    if _watching is None or event not in _CHANGES:
        return
    states, _watching = _watching, None  # what is copied is no operation of theirs
    try:
        states.operation(event, arguments)
    finally:
        _watching = states


@contextlib.contextmanager
def every_state(root: Path, kept: Path) -> Iterator[States]:
    """Collect the states of a folder while the block runs, the last one included.

    Args:
        root: the folder.
        kept: an empty folder for the copies.
    """
    global _watching, _hooked
    if not _hooked:  # for good: Python has no way to take one away
        sys.addaudithook(_hook)
        _hooked = True
    states = States(root, kept)
    _watching = states
    try:
        yield states
    finally:
        _watching = None
    states.keep()


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, without locks and beginnings of files, which are hidden."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        name.as_posix(): (folder / name).read_bytes()
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    }


def put(state: Path, root: Path) -> None:
    """Bring a folder into a state that was kept."""
    shutil.rmtree(root)
    shutil.copytree(state, root)
