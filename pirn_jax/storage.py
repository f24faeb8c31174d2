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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from pirn_jax.errors import BadInputError

LARGEST_JSON = 64 * 2**20

Tree = Mapping[Any, "Tree | np.ndarray"]
"""Arrays in dictionaries in dictionaries."""


class Shaped(Protocol):
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, sync it, and rename it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are for their owner alone, and results are to be shared.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its place, and that of what lay there, when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# --- JSON and arrays ------------------------------------------------------------------------------


def write_json(path: Path, document: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadInputError: it is missing, too large, or not one.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"cannot be read as JSON: {error}", "check the path", path=path
        ) from error
    if not isinstance(document, dict):
        raise BadInputError(
            f"expected a JSON object, got {type(document).__name__}", "check the path", path=path
        )
    return document


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    write_whole(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed NPZ file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


# --- trees of tensors -----------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    from safetensors.numpy import save

    # In C order: safetensors writes the memory as it lies.
    write_whole(path, save({name: np.array(x, order="C") for name, x in tensors.items()}))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file.

    Raises:
        BadInputError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInputError(f"cannot be read: {error}", "train again", path=path) from error


def flatten(prefix: str, tree: Tree) -> dict[str, np.ndarray]:
    """The arrays of a tree by their path, "prefix.layers.0.kernel"."""
    found: dict[str, np.ndarray] = {}
    _walk(prefix, tree, lambda name, leaf: found.setdefault(name, np.asarray(leaf)))
    return found


def unflatten(
    prefix: str, shapes: Mapping[Any, Any], tensors: Mapping[str, np.ndarray], path: Path
) -> dict[Any, Any]:
    """The tree of those shapes, in which -1 is any size, with the arrays that `flatten` named.

    Raises:
        BadInputError: one is missing, of another shape, or not finite; `path` is the file named.
    """

    def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        return len(found) == len(wanted) and all(
            size == other or (other == -1 and size > 0)
            for size, other in zip(found, wanted, strict=True)
        )

    def find(name: str, leaf: Shaped) -> np.ndarray:
        found = tensors.get(name)
        if found is None or not fits(found.shape, leaf.shape) or not np.isfinite(found).all():
            raise BadInputError(
                f"{name}: expected finite numbers of shape {leaf.shape}, got "
                f"{'nothing' if found is None else found.shape}",
                "train again",
                path=path,
            )
        return found

    return _walk(prefix, shapes, find)


_Leaf = TypeVar("_Leaf")


def _walk(name: str, tree: Mapping[Any, Any], visit: Callable[[str, Any], _Leaf]) -> dict[Any, Any]:
    """The same tree with each leaf replaced by what is made of its path and itself."""
    return {
        key: _walk(f"{name}.{key}", branch, visit)
        if isinstance(branch, Mapping)
        else visit(f"{name}.{key}", branch)
        for key, branch in tree.items()
    }
