"""Where weights came from: everything needed to name them in a result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple


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
