"""One manifest for a folder of ours: what it is, and the SHA-256 of every file in it.

It is written last, and checked before a byte of the folder is believed: a file that was changed,
swapped, cut short or left over from an older save is named, and nothing is loaded. It says what
belongs together, not who wrote it. Only a folder with our manifest is ever removed or replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pirn_jax.errors import BadInputError
from pirn_jax.storage import LARGEST_FILE, read_object, read_regular, write_json

MANIFEST = "manifest.json"


class Whole(NamedTuple):
    """A folder that is what its manifest says.

    Attributes:
        about: what else the manifest says, as `write_manifest` was given it.
        files: what was read and found unchanged, by name.
    """

    about: dict[str, Any]
    files: dict[str, bytes]


def write_manifest(
    folder: Path, kind: str, files: Sequence[str] = (), about: Mapping[str, object] | None = None
) -> None:
    """Say what lies in a folder; to be called when all of it does.

    Args:
        folder: that is there.
        kind: what it is, with its version.
        files: names in it that belong together.
        about: kept with it; plain JSON values.
    """
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    write_json(folder / MANIFEST, {"format": kind, "files": sums, "about": dict(about or {})})


def is_ours(folder: Path, kind: str) -> bool:
    """Whether the folder holds our manifest of that kind, whatever else has become of it."""
    try:
        return read_object(folder / MANIFEST).get("format") == kind
    except BadInputError:
        return False


def read_whole(folder: Path, kind: str, files: Sequence[str]) -> Whole:
    """The files of a folder, each read once and found to be what was written.

    Args:
        folder: with a manifest.
        kind: that it must be of.
        files: names that it must have.

    Raises:
        BadInputError: no manifest, one of another kind or version, or a file that differs.
    """
    document = read_object(folder / MANIFEST)
    if document.get("format") != kind:
        raise BadInputError(
            f"expected a {kind!r}, got {document.get('format')!r}",
            "train again with this version",
            folder / MANIFEST,
        )
    sums, about = document.get("files"), document.get("about")
    if not isinstance(sums, dict) or set(sums) != set(files) or not isinstance(about, dict):
        raise BadInputError("the manifest is damaged", "train again", folder / MANIFEST)
    found = {name: read_regular(folder / name, LARGEST_FILE) for name in files}
    for name, content in found.items():
        digest = hashlib.sha256(content).hexdigest()
        if digest != sums[name]:
            raise BadInputError(
                f"it is not the file that was saved: SHA-256 {digest}, expected {sums[name]}",
                "copy the whole folder again from where it was saved, or train again",
                folder / name,
            )
    return Whole(about, found)


def digest_of(document: object) -> str:
    """SHA-256 of plain JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
