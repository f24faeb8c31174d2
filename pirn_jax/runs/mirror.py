"""A folder of an object store, worked on in its copy on this machine.

A run, an evaluation, or predictions under `s3://…`: what is there comes first, so that a machine
that never saw the folder may resume it; what is new goes there at points that the work names, and
at its end. Files are put whole. A store cannot rename folders, so the order has to say what is
whole: what lies deepest goes first, and last the files whose presence says that all is there. Files
that are gone here go there too, when all others are up.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pirn_jax.errors import BadInputError, ConfigError, MachineError, PirnError
from pirn_jax.places import (
    address,
    find_remote,
    is_remote,
    open_remote,
    remove_remote,
    write_remote,
)
from pirn_jax.runs.folder import machine_cache
from pirn_jax.storage import LARGEST_FILE, sole_writer, whole_file

_log = logging.getLogger("pirn_jax")
_MOST = 1_000_000  # objects in a folder of ours
_PART = 1 << 22  # bytes at a time
_READ = "read-"
_UNLOCKED = 60  # seconds that a reader may take from making its copy's folder to locking it


class Mirror:
    """A folder, and its copy here; the same where it is a local one.

    Args:
        where: local, or in a store.
        folder: the copy.
        last: names of files in it that go up after all others, in that order.
    """

    def __init__(self, where: Path, folder: Path, last: Sequence[str] = ()):
        self.where, self.folder, self._last = where, folder, tuple(last)
        self._known: dict[str, tuple[int, int]] = {}
        self.kept = False
        """Whether what could not be put there is kept also when the work fails."""

    @property
    def remote(self) -> bool:
        """Whether the folder lies in a store."""
        return is_remote(self.where)

    def pull(self) -> None:
        """Bring what is there."""
        if not self.remote:
            return
        found = find_remote(self.where)
        if len(found) > _MOST:
            raise BadInputError(
                f"{len(found):,} objects, more than {_MOST:,}", "check the address", self.where
            )
        for name, size in found.items():
            if not _plain(name) and _within(name):
                continue  # locks, and what was never finished
            if size > LARGEST_FILE or not _within(name):
                raise BadInputError(
                    f"{name[:200]!r} of {size:,} bytes is no file of ours",
                    "check the address",
                    self.where,
                )
            with (
                open_remote(self.where / name) as source,
                whole_file(self.folder / name) as temporary,
                temporary.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, _PART)
        self._known = self._files()

    def push_so_far(self) -> bool:
        """`push` amid the work, which goes on where the store cannot be reached just now.

        Returns:
            Whether all is there.
        """
        self.kept = self.remote
        try:
            self.push()
        except PirnError as error:
            _log.warning("%s", error)
            return False
        return True

    def push(self) -> None:
        """Put there what is new or changed, and remove what is gone."""
        if not self.remote:
            return
        found = self._files()
        for name in sorted(found, key=self._order):
            if self._known.get(name) != found[name]:
                write_remote(self.where / name, self.folder / name)
        for name in sorted(self._known.keys() - found.keys()):
            remove_remote(self.where / name)
        self._known = found

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that is whole; what begins with a dot is not."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            with contextlib.suppress(FileNotFoundError):  # written and gone meanwhile
                if _plain(name) and path.is_file():
                    about = path.stat()
                    found[name] = about.st_size, about.st_mtime_ns
        return found

    def _order(self, name: str) -> tuple[int, int, str]:
        place = self._last.index(name) + 1 if name in self._last else 0
        return place, -name.count("/"), name


def _within(name: str) -> bool:
    """Whether it is the name of a file below the folder."""
    return not any(part in ("", "..") for part in name.split("/"))


def _plain(name: str) -> bool:
    """Whether it is a finished file of ours: neither hidden nor one that orbax is writing."""
    parts = name.split("/")
    unfinished = any(".orbax-checkpoint-tmp" in part for part in parts)
    return not unfinished and not any(part in ("", "..") or part[0] == "." for part in parts)


@contextlib.contextmanager
def mirrored(
    where: Path,
    last: Sequence[str] = (),
    *,
    read_only: bool = False,
    inputs: Sequence[Path] = (),
) -> Iterator[Mirror]:
    """A folder to work in: the local one itself, or a copy of one in a store.

    Args:
        where: local, or in a store.
        last: as for `Mirror`.
        read_only: nothing is put there.
        inputs: what is read; none of it may lie in a store's folder that is written.

    Yields:
        With what is there already; what is new goes there when the block ends well, and by `push`;
        after a `push_so_far` also when it fails.

    Raises:
        MachineError: the store cannot be reached, or another process works on the copy. What could
            not be put there in the end is kept, and named; the next command moves it aside and
            names it again, and one after that removes it.
        ConfigError: an input lies in the folder.
    """
    if not is_remote(where):
        yield Mirror(where, where, last)
        return
    for path in inputs:
        if is_remote(path) and f"{address(path)}/".startswith(f"{address(where).rstrip('/')}/"):
            raise ConfigError(
                f"{address(path)} lies in the folder that is written", "name another with --out"
            )
    digest = hashlib.sha256(address(where).encode()).hexdigest()[:16]
    place = machine_cache(None) / "remote" / digest
    place.mkdir(parents=True, exist_ok=True)
    if read_only:
        _sweep(place)
        with tempfile.TemporaryDirectory(dir=place, prefix=_READ) as own, sole_writer(Path(own)):
            mirror = Mirror(where, Path(own) / where.name)
            mirror.pull()
            yield mirror
        return
    with sole_writer(place):
        folder = place / where.name
        if folder.exists():  # what a killed command left, or could not put there
            left = place / f"{where.name}.left"
            shutil.rmtree(left, ignore_errors=True)
            folder.rename(left)
            _log.warning(
                "%s: what an earlier command may not have put there lies in %s",
                address(where),
                left,
            )
        mirror = Mirror(where, folder, last)
        try:
            mirror.pull()
            yield mirror
        except BaseException:
            if mirror.kept and not mirror.push_so_far():
                _log.warning("what could not be put there is kept in %s", folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            mirror.push()
        except PirnError as error:
            raise MachineError(
                f"{error.problem}; what could not be put there is kept",
                "copy it when the store can be reached",
                folder,
            ) from error
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove copies whose readers were killed."""
    for copy in place.glob(f"{_READ}*"):
        with contextlib.suppress(OSError):  # its reader ends just now, or lives
            if time.time() - copy.stat().st_mtime > _UNLOCKED:
                with sole_writer(copy):
                    shutil.rmtree(copy)
