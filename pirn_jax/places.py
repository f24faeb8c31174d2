"""Folders of this machine and of object stores, looked at and read alike.

`s3://bucket/folder` and `gs://bucket/folder` may stand wherever a folder of data, a cache, a run or
an output is named. A `Path` holds such an address too (as `s3:/bucket/folder`), so that joining and
taking apart need no second way; what looks at files, or reads them, asks here. Object stores are
reached through fsspec; who may read them is known to their own tools (`AWS_PROFILE`,
`AWS_ENDPOINT_URL`, …) and is never part of an address: one that holds a password or a signature is
refused, before anything could write it down.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pirn_jax.errors import BadInputError, ConfigError, MachineError, MissingDependencyError

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "memory": "fsspec"}
"""Schemes of addresses, and what reads them; memory is that of this process, for tests."""
_ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]*):/{1,2}(?=[^/])", re.IGNORECASE)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether it lies in an object store."""
    return _scheme(path) in PACKAGES


def address(path: str | os.PathLike[str]) -> str:
    """The path as it is written: `s3://bucket/folder`; a local one as it is."""
    text = os.fspath(path)
    return _ADDRESS.sub(r"\1://", text, count=1) if is_remote(path) else text


def check_address(text: str) -> None:
    """Refuse an address that holds a secret.

    Raises:
        ConfigError: naming the address without it.
    """
    if not is_remote(text):
        return
    place = address(text)
    bucket = place.partition("://")[2].partition("/")[0]
    # A secret may hold a slash, so that no more of the address is shown than where it leads.
    if any(mark in bucket for mark in "@:") or "?" in place or "#" in place:
        raise ConfigError(
            f"the address {place.partition('://')[0]}://… holds a password, a signature or a query",
            "leave it out: name who you are by AWS_PROFILE, AWS_ACCESS_KEY_ID or the like",
        )


def _scheme(path: str | os.PathLike[str]) -> str:
    found = _ADDRESS.match(os.fspath(path))
    return found[1].lower() if found else ""


class _Store(NamedTuple):
    """An object store, and a name in it."""

    files: Any
    name: str


def _store(path: str | os.PathLike[str]) -> _Store:
    check_address(os.fspath(path))
    scheme = _scheme(path)
    try:
        import fsspec

        files, name = fsspec.core.url_to_fs(address(path))
    except ImportError as error:
        raise MissingDependencyError(
            f"{scheme}:// needs the package {PACKAGES[scheme]}", "pip install 'pirn-jax[cloud]'"
        ) from error
    return _Store(files, name)


@contextmanager
def _reaching(path: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong on the way to a store, in one line that names no credential."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BadInputError("there is no such file", "check the address", address(path)) from error
    except (BadInputError, ConfigError, MissingDependencyError, MachineError):
        raise
    except Exception as error:  # each store has errors of its own
        first = str(error).strip().partition("\n")[0][:200]
        raise MachineError(
            f"the store cannot be reached: {type(error).__name__}: {first}",
            "check its address, who you are to it (AWS_PROFILE, …), and the network",
            address(path),
        ) from error


def exists(path: Path) -> bool:
    """Whether there is a file or a folder."""
    if not is_remote(path):
        return path.exists()
    with _reaching(path):
        files, name = _store(path)
        return files.exists(name)


def is_file(path: Path) -> bool:
    """Whether there is a file."""
    if not is_remote(path):
        return path.is_file()
    with _reaching(path):
        files, name = _store(path)
        return files.isfile(name)


def is_dir(path: Path) -> bool:
    """Whether there is a folder; of a store, one with something in it."""
    if not is_remote(path):
        return path.is_dir()
    with _reaching(path):
        files, name = _store(path)
        return files.isdir(name)


def list_folder(path: Path) -> dict[str, bool]:
    """The names in a folder, sorted, and whether each is a folder.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    if not is_remote(path):
        return {name: (path / name).is_dir() for name in sorted(os.listdir(path))}
    with _reaching(path):
        files, name = _store(path)
        found = {one["name"].rstrip("/"): one["type"] for one in files.ls(name, detail=True)}
    own = name.rstrip("/")  # some stores have an empty object of the folder's own name
    return {n.rsplit("/", 1)[-1]: found[n] == "directory" for n in sorted(found) if n != own}


def open_remote(path: Path) -> io.BufferedReader:
    """An object, to be read from any place in it.

    Raises:
        BadInputError: there is none.
        MachineError: the store cannot be reached.
    """
    with _reaching(path):
        files, name = _store(path)
        return io.BufferedReader(files.open(name, "rb"))


def write_remote(path: Path, file: Path) -> None:
    """Put a local file there: whole or not at all, as stores do it."""
    with _reaching(path):
        files, name = _store(path)
        files.put_file(str(file), name)


def remove_remote(path: Path) -> None:
    """Remove an object."""
    with _reaching(path):
        files, name = _store(path)
        files.rm_file(name)


def find_remote(path: Path) -> dict[str, int]:
    """Every object below a folder: its size, by its name relative to it."""
    with _reaching(path):
        files, name = _store(path)
        files.invalidate_cache()
        try:
            found = files.find(name, detail=True)
        except FileNotFoundError:
            return {}
    start = name.rstrip("/") + "/"
    return {
        one.removeprefix(start): int(about["size"])
        for one, about in sorted(found.items())
        if one.startswith(start) and not one.endswith("/")
    }


def walk(
    folder: Path, unseen: Callable[[OSError], None] | None = None, *, follow_links: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk`: of each folder its path, and the names of the folders and files in it.

    Args:
        folder: where to begin.
        unseen: called with the error of a folder that cannot be listed.
        follow_links: go where links lead.
    """
    if not is_remote(folder):
        yield from os.walk(folder, onerror=unseen, followlinks=follow_links)
        return
    found = list_folder(folder)
    folders = [name for name, inner in found.items() if inner]
    yield str(folder), folders, [name for name, inner in found.items() if not inner]
    for name in folders:  # as the caller has left them
        yield from walk(folder / name)


def check_apart(out: Path, *inputs: Path | None) -> None:
    """Refuse a file to be written that is one of those that are read, or lies among them.

    Raises:
        ConfigError: naming both.
    """
    for path in inputs:
        if path is not None and out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"it would be written over or into {path}, which is read", "", out)
