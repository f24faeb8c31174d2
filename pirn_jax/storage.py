"""Our own files: written whole or not at all, and read as untrusted.

JSON and safetensors are all there is; nothing is ever unpickled, and what a file claims is checked
before it is used. Every file of ours, from an anomaly map to a report, goes through `write_whole`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from pirn_jax.errors import BadInputError, MachineError
from pirn_jax.places import is_remote, open_remote, write_remote

LARGEST_JSON = 16 * 2**20  # Python's objects are up to thirty times larger than the text
LARGEST_FILE = 8 * 2**30
LARGEST_HEADER = 8 * 2**20  # of a safetensors file; the largest networks have one of a few 100 KiB
_DEEPEST = 50  # levels of a JSON document
_PLAIN = (str, int, float, bool, type(None))

Tree = Mapping[Any, Any]  # not an alias of itself: run-time type checkers follow it one step only
"""Arrays in dictionaries in dictionaries; keys are text or whole numbers."""


@runtime_checkable
class HasShape(Protocol):
    """What has a shape: an array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """In which -1 is any size."""
        ...


def cache_folder(folder: str | None) -> Path:
    """Where everything lies that can be computed again.

    Args:
        folder: None: what the variable PIRN_CACHE names, else ~/.cache/pirn_jax.
    """
    return Path(folder or os.environ.get("PIRN_CACHE") or Path.home() / ".cache" / "pirn_jax")


# --- whole or not at all --------------------------------------------------------------------------


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write a file under, which takes its place, synced, when the block ends.

    Folders are made. Where the block raises, nothing is left of it. Stores get it when it is whole.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            write_remote(path, Path(folder) / path.name)
        return
    temporary = _beside(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place, and that of what lay there, when the block ends.

    What lay there is renamed out of the way and only then deleted, so that no half of it is ever
    found under its name; where the block raises, it stays as it was.
    """
    temporary, old = _beside(path), _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if os.path.lexists(path):
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except BaseException:
            if os.path.lexists(old):
                os.replace(old, path)
            raise
    finally:
        for leftover in (temporary, old):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def sole_writer(folder: Path, flag: str = "--out") -> Iterator[None]:
    """One process at a time writes into a folder, which that flag named.

    Raises:
        MachineError: another process holds it.
    """
    with try_lock(folder / ".lock") as ours:
        if not ours:
            raise MachineError(
                "another run is writing into this folder",
                f"wait for it, or name another with {flag}",
                folder,
            )
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs; it falls with the process that holds it.

    Args:
        path: of an empty file, which stays; its folder is there.

    Yields:
        Whether it is held, and not by another process.
    """
    with path.open("ab") as lock:
        ours = True
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                ours = False
        yield ours


def _beside(path: Path) -> Path:
    """An unused hidden name in the same folder, which is made; so renaming needs no copying."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are for their owner alone, and results are to be shared. The file's
    # own name is cut, as it may be as long as a name can be.
    return path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")


def _sync(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


# --- read as untrusted ----------------------------------------------------------------------------


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file, or an object of a store (`pirn_jax.places`).

    A pipe, device or folder under the name would hang or never end.

    Raises:
        BadInputError: it cannot be opened, or is something else.
    """
    if is_remote(path):
        return open_remote(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"cannot be opened: {getattr(error, 'strerror', None) or error}",
            "check the path and its permissions",
            path=str(path),
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadInputError("not a regular file", "remove it, or give another", path=str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """A regular file, once and whole.

    Args:
        path: untrusted.
        most: the most bytes it may have.

    Raises:
        BadInputError: missing, something else than a file, larger, or unreadable.
    """
    with open_regular(path) as file:
        try:
            content = file.read(most + 1)
        except OSError as error:
            raise BadInputError(
                f"cannot be read: {error.strerror}", "check the disk it lies on", path=str(path)
            ) from error
    if len(content) > most:
        raise BadInputError(
            f"larger than {most >> 20} MiB", "check that it is the right file", path=str(path)
        )
    return content


# --- JSON and arrays ------------------------------------------------------------------------------


def write_json(path: Path, document: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadInputError: it is missing, too large, or not one. NaN and infinite numbers are no JSON.
    """
    return parse_object(read_regular(path, LARGEST_JSON), path)


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object from a file's bytes; see `read_object`."""
    try:
        document = json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            f"cannot be read as JSON: {error}", "check the path", path=path
        ) from error
    if not isinstance(document, dict):
        raise BadInputError(
            f"expected a JSON object, got {type(document).__name__}", "check the path", path=path
        )
    _check_depth(document, path)
    return document


def _check_depth(document: dict[str, Any], path: Path) -> None:
    """Refuse what is nested too deep: what is compared and printed later is so recursively."""
    level: list[object] = [document]
    for _ in range(_DEEPEST):
        inner = [
            i.values() if isinstance(i, dict) else i for i in level if isinstance(i, dict | list)
        ]
        level = [value for values in inner for value in values if not isinstance(value, _PLAIN)]
        if not level:
            return
    raise BadInputError(f"nested more than {_DEEPEST} levels deep", "write it again", path)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an NPY file."""
    write_whole(path, _npy(array))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed NPZ file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    # Not numpy.savez_compressed, which has names of its own ("file", "allow_pickle").
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # of 1980, whenever it is written
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, _npy(array))
    write_whole(path, buffer.getvalue())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


# --- trees of tensors -----------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    from safetensors.numpy import save

    # In C order: safetensors writes the memory as it lies.
    write_whole(path, save({name: np.array(x, order="C") for name, x in tensors.items()}))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file.

    Raises:
        BadInputError: it is missing, damaged, or of numbers that numpy does not have.
    """
    return parse_tensors(read_regular(path, LARGEST_FILE), path)


def parse_tensors(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file's bytes.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        BadInputError: it is damaged, or of numbers that numpy does not have.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if int.from_bytes(content[:8], "little") > LARGEST_HEADER:
        raise BadInputError("cannot be read: no header", "train again", path=path)
    try:
        return load(content)
    # The last three, by version, where the file holds a type of number that numpy has not.
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"cannot be read: {error}", "train again", path=path) from error


def flatten(prefix: str, tree: Tree) -> dict[str, np.ndarray]:
    """The arrays of a tree by their path, "prefix.layers.0.kernel"."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, leaf: ArrayLike) -> None:
        assert name not in found, f"two arrays are called {name}"
        found[name] = np.asarray(leaf)

    _walk(prefix, tree, keep)
    return found


def unflatten(
    prefix: str, shapes: Tree, tensors: Mapping[str, np.ndarray], path: Path
) -> dict[Any, Any]:
    """The tree of those shapes, in which -1 is any size, with the arrays that `flatten` named.

    Args:
        prefix: as it was given to `flatten`.
        shapes: the same tree with `HasShape` in place of arrays.
        tensors: arrays by name; others among them are passed over.
        path: the file they came from, for the message.

    Raises:
        BadInputError: one is missing, of another shape, or not finite.
    """

    def find(name: str, leaf: HasShape) -> np.ndarray:
        found = tensors.get(name)
        if found is None:
            problem = "nothing"
        elif not _fits(found.shape, leaf.shape):
            problem = f"shape {found.shape}"
        elif not np.isfinite(found).all():
            problem = "NaN or infinite ones"
        else:
            return found
        raise BadInputError(
            f"{name}: expected finite numbers of shape {leaf.shape}, got {problem}",
            "train again",
            path=path,
        )

    return _walk(prefix, shapes, find)


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        size == other or (other == -1 and size > 0)
        for size, other in zip(found, wanted, strict=True)
    )


_Leaf = TypeVar("_Leaf")


def _walk(name: str, tree: Tree, visit: Callable[[str, Any], _Leaf]) -> dict[Any, Any]:
    """The same tree with each leaf replaced by what is made of its path and itself."""
    return {
        key: _walk(f"{name}.{key}", branch, visit)
        if isinstance(branch, Mapping)
        else visit(f"{name}.{key}", branch)
        for key, branch in tree.items()
    }
