"""What a result was made by: hashes of source, so that changed code never meets old results."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import pirn_jax


@functools.cache
def source_hash(rooms: Sequence[str] = ("",)) -> str:
    """SHA-256 of the package's source in these folders or files; everything without."""
    root = Path(pirn_jax.__file__).parent
    digest = hashlib.sha256()
    for room in rooms:
        place = root / room
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def function_hash(function: Callable[..., object]) -> str:
    """SHA-256 of the file a function is defined in, and of its parameters.

    A `functools.partial` is told from another by its arguments; a lambda by its text's place alone,
    so give it parameters that way.
    """
    if isinstance(function, functools.partial):
        inner = function_hash(function.func)
        text = f"{inner} {function.args} {sorted(function.keywords.items())}"
    else:
        file = inspect.getsourcefile(function)
        source = Path(file).read_bytes() if file else b""
        text = f"{hashlib.sha256(source).hexdigest()} {function.__qualname__}"
    return hashlib.sha256(text.encode()).hexdigest()
