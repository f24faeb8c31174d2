"""Nothing unseen: the files and folders of a dataset that are part of no scan, and why."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pirn_jax.places import walk
from pirn_jax.scans.datasets.dataset import Entry, Note
from pirn_jax.scans.datasets.names import is_junk, is_notice, why_not
from pirn_jax.scans.formats.files import File

_NAMED = 3


class LeftOut(NamedTuple):
    """A file or folder that is not read.

    Attributes:
        name: its path below the folder that was listed, "/" on every system.
        reason: why.
    """

    name: str
    reason: str


def find_left_out(
    folder: Path, used: Iterable[File], known: Iterable[str] = ()
) -> tuple[LeftOut, ...]:
    """Every file below a folder that is none of those used; a folder without one counts as one.

    Args:
        folder: of a category.
        used: files of its scans.
        known: names of files and folders that are not read on purpose.
    """
    files = {str(file.path) for file in used}
    places = {str(parent) for file in map(Path, files) for parent in file.parents}
    quiet = {name.lower() for name in known}
    found: list[LeftOut] = []
    for here, folders, names in walk(folder):
        below = Path(here).relative_to(folder)
        kept = []
        for name in sorted(folders):
            if is_junk(name) or name.lower() in quiet:
                continue
            path = os.path.join(here, name)
            if path in places:
                kept.append(name)
            elif count := sum(not is_junk(n) for _, _, each in walk(Path(path)) for n in each):
                what = f"no scan in this folder ({count} file{'s' if count > 1 else ''})"
                found.append(LeftOut((below / name).as_posix() + "/", what))
        folders[:] = kept
        for name in sorted(names):
            passed = is_junk(name) or is_notice(name) or name.lower() in quiet
            if not passed and os.path.join(here, name) not in files:
                found.append(LeftOut((below / name).as_posix(), why_not(name)))
    return tuple(found)


def describe_left_out(left_out: Iterable[LeftOut]) -> list[str]:
    """One line for each reason and folder, naming the first few files."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, reason in left_out:
        groups[os.path.dirname(name.rstrip("/")), reason].append(name)
    return [
        f"left out: {', '.join(names[:_NAMED])}"
        f"{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}: {reason}"
        for (_, reason), names in groups.items()
    ]


def left_out_notes(
    folder: Path, entries: Iterable[Entry], known: Iterable[str] = ()
) -> tuple[Note, ...]:
    """A note for every file of a category that is part of none of its scans."""
    used = (file for entry in entries for file in entry.files.values())
    return tuple(map(Note, describe_left_out(find_left_out(folder, used, known))))
