"""Files of prepared scans: what lies in them, and how they are written and read.

One file per scan, `CACHE/<dataset>/<category>/<key>.npz`, an archive of plain arrays: `normals`
(int16, 1/32767), `object` (packed bits), `shape`, `fingerprint`, `notes`. The fingerprint is the
SHA-256 of what was read from the scan's files (points and validity, so that another unit or reading
rule counts as well) and of every setting. Files appear whole or not at all (written beside, synced,
renamed). `pirn_jax.prepare` makes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Scan
from pirn_jax.storage import write_whole

FORMAT = 1
"""Raised whenever the same input and settings would give other bytes."""

STEPS = 32767
"""A normal's component is stored as a whole number of 1/STEPS."""


@dataclass(frozen=True)
class Settings:
    """What is computed. Every field is part of the fingerprint.

    Attributes:
        method: "grid", or the paper's "open3d", for normals and background.
        background: "plane": found and removed. "mask": the object is where the object mask says.
            "none": nothing is removed.
        seed: of the search for the plane.
        time_limit: seconds that "open3d" may take for one scan's normals.
    """

    method: Literal["grid", "open3d"] = "grid"
    background: Literal["plane", "mask", "none"] = "plane"
    seed: int = 0
    time_limit: float = 300.0


class Prepared(NamedTuple):
    """What is cached for one scan.

    Attributes:
        normals: unit normals towards the sensor, to 1/32767, zeros where undefined or not object.
        object: the pixels that show the object.
        fingerprint: SHA-256 of input and settings.
        notes: what was odd, e.g. "no plane"; usually empty.
    """

    normals: Float32[np.ndarray, "H W 3"]
    object: Bool[np.ndarray, "H W"]
    fingerprint: str
    notes: tuple[str, ...]


def prepared_path(folder: str | os.PathLike[str], key: str) -> Path:
    """Where a scan's file lies: `folder` is `CACHE/<dataset>/<category>`.

    Raises:
        BadInputError: a key that would lead out of the folder.
    """
    path = Path(folder, f"{key}.npz")
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise BadInputError(f"the key {key!r} leads out of {folder}", "rename the scan's files")
    return path


def load_prepared(path: str | os.PathLike[str]) -> Prepared:
    """Reads one cached file, see `prepared_path`. Nothing in it is ever executed.

    Raises:
        BadInputError: it is missing, or not a whole file of this format.
    """
    remedy = "run `python -m pirn_jax.prepare` again: it makes anew what is missing or damaged"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            height, width = (int(n) for n in stored["shape"])
            packed, steps = stored["object"], stored["normals"]
            if steps.shape != (height, width, 3) or steps.dtype != np.int16:
                raise ValueError(f"normals of {steps.dtype} {steps.shape}")
            pixels = np.unpackbits(packed, count=height * width).reshape(height, width)
            return Prepared(
                normals=(steps / np.float32(STEPS)).astype(np.float32),
                object=pixels.astype(bool),
                fingerprint=str(stored["fingerprint"]),
                notes=tuple(json.loads(str(stored["notes"]))),
            )
    except FileNotFoundError as error:
        raise BadInputError("no such prepared scan", remedy, path=path) from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise BadInputError(f"not a prepared scan: {error}", remedy, path=path) from error


def fingerprint(
    scan: Scan, settings: Settings, object_mask: Bool[np.ndarray, "H W"] | None = None
) -> str:
    """SHA-256 of everything a scan's prepared file depends on."""
    digest = hashlib.sha256(f"{FORMAT} {sorted(asdict(settings).items())}".encode())
    for name, array in (
        ("xyz", scan.xyz),
        ("normals", scan.normals),
        ("valid", scan.valid),
        ("object", object_mask),
    ):
        described = None if array is None else (array.dtype.str, array.shape)
        digest.update(f"|{name} {described}|".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save_prepared(path: Path, prepared: Prepared) -> None:
    """Writes one file whole or not at all; the same content gives the same bytes."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        normals=np.rint(prepared.normals * STEPS).astype(np.int16),
        object=np.packbits(prepared.object),
        shape=np.array(prepared.object.shape, np.int32),
        fingerprint=np.array(prepared.fingerprint),
        notes=np.array(json.dumps(prepared.notes)),
    )
    write_whole(path, content.getvalue())
