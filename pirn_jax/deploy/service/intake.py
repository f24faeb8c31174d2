"""The one door: files are copied into a request's folder, synced, and the request written down."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from pirn_jax.deploy.service.journal import Journal
from pirn_jax.deploy.service.judge import Part
from pirn_jax.detector.records import now
from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.inputs import CAMERAS
from pirn_jax.scans.datasets.names import ROLES


@runtime_checkable
class Readable(Protocol):
    """An open file, or what stands for one."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes at most."""
        ...


ROLE_NAMES = ("rgb", "xyz", "depth", "normals")
"""What a part's files may be."""


def name_of(role: str, filename: str) -> str:
    """What an uploaded file is called in its request's folder; nothing of its own name is kept.

    Args:
        role: one of `ROLE_NAMES`, or intrinsics or calibration: a camera's JSON.
        filename: as the client says; its extension alone is looked at.

    Raises:
        BadInputError: an extension that no reader knows.
    """
    if f"{role}.json" in CAMERAS:
        return f"{role}.json"
    extension = os.path.splitext(filename)[1].lower()
    known = ROLES[role][1]
    if extension not in known:
        raise BadInputError(
            f"{role}: a file named {filename[:80]!r}",
            f"send it under its name, which ends in one of {', '.join(known)}",
            role,
        )
    return f"{role}{extension}"


def accept(
    journal: Journal,
    files: Mapping[str, tuple[str, Readable]],
    *,
    key: str,
    model: str,
    source: str,
    origin: str | None = None,
) -> Part:
    """Accept a part, whose verdict is then never lost.

    Args:
        journal: where it is written down.
        files: by role: the name, which says of which kind it is, and what is in it.
        key: what whoever sent it calls it.
        model: that is to judge it.
        source: http or folder.
        origin: as for `Journal.accept`.

    Raises:
        BadInputError: a kind of file that no reader knows.
        OSError: it could not be kept.
    """
    names = {role: name_of(role, filename) for role, (filename, _) in files.items()}
    # Sorted by time, so that a folder of them reads as a history.
    request = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
    place = journal.place(request)
    place.mkdir()
    try:
        for role, (_, content) in files.items():
            with (place / names[role]).open("xb") as kept:
                shutil.copyfileobj(content, kept, 1 << 20)
                kept.flush()
                os.fsync(kept.fileno())
        _sync_folder(place)
        _sync_folder(journal.requests)
        paths = {role: place / names[role] for role in files if role in (*ROLE_NAMES, "ignore")}
        part = Part(request, key, model, paths)
        journal.accept(part, source=source, time=now(), origin=origin)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return part


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
