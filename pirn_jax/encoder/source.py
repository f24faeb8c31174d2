"""Where weights came from: everything needed to name them in a result."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from pirn_jax.errors import BadInputError
from pirn_jax.storage import cache_folder, read_object, write_json


class Source(NamedTuple):
    """A file of weights.

    Attributes:
        path: of the file; "" for seeded weights, which come from none.
        sha256: of the file; "" like it.
        repository: on the hub, where it is from there.
        revision: the commit there.
        about: who made it from what, and under which licence, where the package knows.
    """

    path: str
    sha256: str
    repository: str = ""
    revision: str = ""
    about: str = ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(source: Source) -> None:
    """Note in the user's cache where their own file of weights lies, to find it by its hash."""
    if source.path and not (source.repository or source.about):
        with contextlib.suppress(OSError):  # of use, but not needed
            write_json(_note(source.sha256), {"path": str(Path(source.path).resolve())})


def remembered(digest: str) -> Path | None:
    """Where this user last had the weights of that SHA-256; None if nowhere, or no longer."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    with contextlib.suppress(BadInputError, OSError):
        path = Path(str(read_object(_note(digest)).get("path")))
        return path if path.is_file() else None
    return None


def _note(digest: str) -> Path:
    return cache_folder(None) / "weights" / f"{digest}.json"
