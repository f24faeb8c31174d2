"""Where results may be written: never over anything that is not ours, never over what is read.

A folder of ours says so by its manifest. It is only replaced where that was asked for, and then at
the very end: what is new is written beside it, so that a wrong flag, a full disk or a kill leaves
what was there as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pirn_jax.errors import ConfigError
from pirn_jax.manifest import MANIFEST, is_ours, write_manifest
from pirn_jax.storage import sole_writer, whole_folder

RUN_FORMAT = "pirn_jax run 1"
EVALUATION_FORMAT = "pirn_jax evaluation 1"
PREDICTIONS_FORMAT = "pirn_jax predictions 1"
_BEGUN = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def contents(folder: Path) -> list[Path]:
    """What is in a folder, without locks and the beginnings of files that a kill left."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def is_taken(folder: Path) -> bool:
    """Whether there is anything in the folder.

    Raises:
        NotADirectoryError: it is a file, or lies below one.
        PermissionError: nothing may be written there.
    """
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "expected a folder to write into", str(there))
    if there.exists() and not os.access(there, os.W_OK):
        raise PermissionError(errno.EACCES, "no permission to write there", str(there))
    return folder.exists() and bool(contents(folder))


def is_begun(folder: Path, kind: str) -> bool:
    """Whether a work of that kind was stopped there before it wrote anything."""
    if not is_ours(folder, kind):
        return False
    return {path.name for path in folder.iterdir()} <= {MANIFEST, ".lock"}


def check_free(
    folder: Path,
    kind: str,
    *,
    overwrite: bool,
    inputs: Iterable[Path] = (),
    last: str | None = None,
) -> None:
    """Refuse a folder that holds something, unless it is of ours and may be replaced.

    Args:
        folder: for the results.
        kind: of its manifest.
        overwrite: whether results that are there may be replaced.
        inputs: files and folders that are read; none may lie where something is replaced.
        last: the file without which they are no results yet, and may be replaced.

    Raises:
        ConfigError: it must not be written to.
        NotADirectoryError: it is a file.
    """
    if not is_taken(folder) or is_begun(folder, kind):
        return
    if not is_ours(folder, kind):
        raise ConfigError(
            "there are other files in this folder, and results never go among them",
            "name a new folder with --out",
            folder,
        )
    if not overwrite and (last is None or (folder / last).is_file()):
        raise ConfigError(
            "there are results in this folder already",
            "--overwrite replaces them once the new ones are whole, --out names another folder",
            folder,
        )
    place = folder.resolve()
    for path in inputs:
        if path.resolve().is_relative_to(place):
            raise ConfigError(
                f"{path} lies in the folder whose results would be replaced",
                "name another with --out",
                folder,
            )


@contextlib.contextmanager
def writing(folder: Path, kind: str) -> Iterator[Path]:
    """The place to write results to, by one process at a time.

    Args:
        folder: as `check_free` has let it pass; made if missing.
        kind: of its manifest.

    Yields:
        The folder where nothing is to be replaced; else one beside it, which takes its place when
        the block ends well.

    Raises:
        MachineError: another process is writing there.
    """
    free = not is_taken(folder) or is_begun(folder, kind)
    with going_on(folder, kind) if free else _replacing(folder, kind) as place:
        yield place


@contextlib.contextmanager
def going_on(folder: Path, kind: str) -> Iterator[Path]:
    """`writing` into the folder itself, whatever there is of it but beginnings of files."""
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        _sweep(folder)
        write_manifest(folder, kind)
        yield folder


def _sweep(folder: Path) -> None:
    """Remove files that a killed process had begun to write, as `pirn_jax.storage` names them."""
    for leftover in folder.rglob(".*.tmp"):
        if _BEGUN.fullmatch(leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _replacing(folder: Path, kind: str) -> Iterator[Path]:
    with sole_writer(folder), whole_folder(folder) as beside:
        write_manifest(beside, kind)
        yield beside
