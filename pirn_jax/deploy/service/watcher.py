"""A folder as the source of parts: what lies there whole is judged once; nothing in it is touched.

Files are paired as `predict` pairs them. A part is taken when its files have not changed for two
looks; which files were taken is in the journal, by name, size and time, so that a restart takes
none twice and a file that was replaced is judged again. One that is too large is named and left.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pirn_jax.deploy.service.batcher import Batcher
from pirn_jax.deploy.service.intake import ROLE_NAMES, accept
from pirn_jax.deploy.service.journal import Journal
from pirn_jax.errors import PirnError, printable
from pirn_jax.scans import Entry
from pirn_jax.scans.datasets.inputs import CAMERAS, list_inputs
from pirn_jax.storage import open_regular

_log = logging.getLogger("pirn_jax")


class _Seen(NamedTuple):
    """Files of a part, as they lie.

    Attributes:
        state: their names, sizes and times, as one number.
        size: bytes of all of them.
    """

    state: str
    size: int


class Watcher:
    """The thread that looks.

    Args:
        folder: that is watched, to the bottom.
        journal: where parts are written down.
        batcher: that judges them.
        model: the name of the one that judges.
        streams: of that model: rgb, xyz.
        largest: bytes of a part's files; larger ones are not copied.
        seconds: between two looks.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        batcher: Batcher,
        *,
        model: str,
        streams: tuple[str, ...],
        largest: int,
        seconds: float = 1.0,
    ):
        self._folder, self._journal, self._batcher = folder, journal, batcher
        self._model, self._streams = model, streams
        self._largest, self._seconds = largest, seconds
        self._before: dict[str, _Seen] = {}
        self._taken: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End after the part at hand."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.look()
            except Exception as error:  # whatever it is, the folder is looked at again
                _log.warning("%s: %s", self._folder, error)

    def look(self) -> int:
        """Take what is whole; returns how many parts that were."""
        found = list_inputs([self._folder], self._streams)
        lying = {e.key: seen for e in found.entries if (seen := _seen(e, self._folder))}
        taken = 0
        for entry in found.entries:
            seen = lying.get(entry.key)
            if seen is None or self._before.get(entry.key) != seen or seen.state in self._taken:
                continue
            if self._journal.has_seen(seen.state):
                self._taken.add(seen.state)
                continue
            if seen.size > self._largest:
                self._taken.add(seen.state)  # to be named once
                words = "%s: not judged: %s bytes are more than --largest-mib allows"
                _log.warning(words, printable(entry.key), f"{seen.size:,}")
                continue
            while not self._batcher.take_slot(wait=0.5):  # the folder waits, it is not refused
                if self._stop.is_set():
                    return taken
            try:
                self._take(entry, seen.state)
                taken += 1
            except (PirnError, OSError) as error:  # of this one; the others go on
                _log.warning("%s: %s", printable(entry.key), error)
        self._before = lying
        self._taken &= {
            seen.state for seen in lying.values()
        }  # files that went are forgotten; the journal knows
        return taken

    def _take(self, entry: Entry, state: str) -> None:
        try:
            with ExitStack() as stack:
                files = {
                    role: (path.name, stack.enter_context(open_regular(path)))
                    for role, path in _files(entry, self._folder).items()
                }
                part = accept(
                    self._journal,
                    files,
                    key=printable(entry.key),
                    model=self._model,
                    source="folder",
                    origin=state,
                )
        except BaseException:
            self._batcher.free_slot()
            raise
        self._taken.add(state)
        self._batcher.put(part)


def _files(entry: Entry, top: Path) -> Mapping[str, Path]:
    """The files of a part, and the nearest cameras beside them or above, up to the folder."""
    kept = (*ROLE_NAMES, "ignore")
    found = {role: file.path for role, file in entry.files.items() if role in kept}
    place = next(path for role, path in found.items() if role != "ignore").parent
    above = [one for one in place.parents if one == top or top in one.parents]
    for folder in (place, *above):
        for name in CAMERAS:
            if (folder / name).is_file():
                found.setdefault(Path(name).stem, folder / name)
    return found


def _seen(entry: Entry, top: Path) -> _Seen | None:
    """What is seen of a part's files; None where one has gone meanwhile."""
    digest, size = hashlib.sha256(os.fsencode(entry.key)), 0
    try:
        for role, path in sorted(_files(entry, top).items()):
            known = path.stat()
            about = f"|{role} {path} {known.st_size} {known.st_mtime_ns}"
            digest.update(os.fsencode(about))
            size += known.st_size
    except OSError:
        return None
    return _Seen(digest.hexdigest(), size)
