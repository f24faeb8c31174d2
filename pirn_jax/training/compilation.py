"""Compiled programs kept on disk, so that only the first run of a shape waits for the compiler."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

_log = logging.getLogger("pirn_jax")
DEFAULT_FOLDER = Path("~/.cache/pirn_jax/xla")


def use_compilation_cache(folder: Path | str | None = None) -> Path | None:
    """Turn JAX's persistent compilation cache on; to be called before anything is compiled.

    Programs of any size and any compilation time are kept. The folder holds executable code: it is
    the user's own, and nobody else may look into it or write to it.

    Args:
        folder: None takes `~/.cache/pirn_jax/xla`.

    Returns:
        The folder, or None where it cannot be made or is another's: everything then works, only
        without the cache.
    """
    path = Path(folder or DEFAULT_FOLDER).expanduser()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            raise PermissionError("the folder belongs to another user")
        path.chmod(0o700)
    except OSError as error:
        _log.warning("compiled programs are not kept in %s: %s", path, error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic garbage collection inside: for calls that trace and compile.

    A trace makes a great many objects, all of which stay, and each pass of the collector walks over
    them again: a fifth of the time it takes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
