"""Prepared scans: object and normals of a scan, and the cache that keeps them.

Every run gets its normals here: `prepare_scan` computes them, `PreparedCache` has them already
where `python -m pirn_jax.prepare` ran. An entry is `FOLDER/<first two digits>/<fingerprint>.npz`;
the fingerprint is the SHA-256 of what was read from the scan's files (points, validity and normals,
so that another unit or reading rule counts as well) and of every setting. So no entry can be out of
date, and neither the dataset's name nor the scan's key is needed to find it.

What is read is what was computed, bit for bit: scores do not depend on whether there was a cache.
Another kind of device, or another release of JAX, may round the last bit of a normal differently.

An entry is an archive of plain arrays: `normals` (float32 (H, W, 3), unless the scan brings its
own), `object` (uint8 (H, W), 0 or 1) and `about` (JSON in UTF-8, with the SHA-256 of all the rest).
It is read as any untrusted file is, with the scan saying how large its arrays may be; a damaged one
counts as missing.

Dimension letters: H, W the pixels of the scan.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.errors import BadInputError
from pirn_jax.geometry.background import Background, choose_object
from pirn_jax.places import exists, is_remote
from pirn_jax.scans.formats import File, Limits, read_array
from pirn_jax.scans.scan import Scan
from pirn_jax.storage import write_arrays

FORMAT = 3
"""Raised whenever the same scan and settings would give another entry."""

_log = logging.getLogger("pirn_jax")
_LARGEST_ABOUT = 1 << 16  # bytes
_MEMBERS = 3


@dataclass(frozen=True)
class Settings:
    """What is computed. Every field is part of the fingerprint.

    Attributes:
        method: "grid", or the paper's "open3d", for normals and background.
        background: "plane": found and removed. "none": nothing is removed.
        seed: of the search for the plane.
        time_limit: seconds that "open3d" may take for one scan's normals.
    """

    method: Literal["grid", "open3d"]
    background: Literal["plane", "none"]
    seed: int = 0
    time_limit: float = 300.0


Fit = Callable[[np.ndarray, np.ndarray, Settings], tuple[np.ndarray, tuple[str, ...]]]
"""Points (H, W, 3), pixels to use (H, W) and settings → unit normals, and what was odd."""


class Prepared(NamedTuple):
    """What `make_views` needs of a scan's geometry.

    Attributes:
        normals: unit normals towards the sensor, zeros where undefined or not object; the scan's
            own where it brings them; None for a scan without points or normals.
        object: the pixels that show the object.
        stands: as in `Background`: the part stands on a plane.
        notes: what was odd: why nothing was removed, which fallback gave the normals.
    """

    normals: Float32[np.ndarray, "H W 3"] | None
    object: Bool[np.ndarray, "H W"]
    stands: bool
    notes: tuple[str, ...]


def prepare_scan(
    scan: Scan,
    settings: Settings,
    found: Background | None = None,
    *,
    normals: bool = True,
    fit: Fit | None = None,
) -> Prepared:
    """Object and normals of one scan.

    Args:
        scan: normals that it brings along are kept.
        settings: what is computed.
        found: what `choose_object` found in this scan by these settings, if it was asked already.
        normals: False: none are computed, for detectors that look at the photograph alone.
        fit: what computes them; None: `pirn_jax.geometry.normals.fit_normals`.
    """
    if found is None:
        found = choose_object(
            scan.xyz, scan.valid, settings.background, settings.seed, settings.method
        )
    if scan.xyz is None:
        return Prepared(scan.normals, found.object, found.stands, ())
    notes = (found.reason,) if found.reason else ()
    fitted = scan.normals
    if fitted is None and normals:
        use = found.object & scan.valid
        vectors, fallbacks = (fit or _fit_by_jax)(scan.xyz, use, settings)
        fitted, notes = np.asarray(vectors), notes + fallbacks
    return Prepared(fitted, found.object, found.stands, notes)


def _fit_by_jax(
    xyz: Float32[np.ndarray, "H W 3"], use: Bool[np.ndarray, "H W"], settings: Settings
) -> tuple[Float32[np.ndarray, "H W 3"], tuple[str, ...]]:
    from pirn_jax.geometry.normals import fit_normals  # imports JAX

    vectors, notes = fit_normals(xyz, use, settings.method, time_limit=settings.time_limit)
    return np.asarray(vectors), notes


def default_folder(cache: Path) -> Path:
    """Where, in the folder of everything that can be computed again, prepared scans lie."""
    return cache / "geometry"


def fingerprint(scan: Scan, settings: Settings) -> str:
    """SHA-256 of everything a prepared scan depends on."""
    digest = hashlib.sha256(f"{FORMAT} {sorted(asdict(settings).items())}".encode())
    for name in ("xyz", "normals", "valid"):
        array = getattr(scan, name)
        described = None if array is None else (array.dtype.str, array.shape)
        digest.update(f"|{name} {described}|".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class PreparedCache:
    """Prepared scans on disk, for any number of readers; see the module for how they lie there.

    Attributes:
        folder: None: nothing is kept, and nothing is found.
    """

    folder: Path | None

    def read(self, scan: Scan, settings: Settings) -> Prepared | None:
        """What `prepare_scan` gives, or None where it is not kept, or damaged."""
        if self.folder is None or not (is_remote(self.folder) or os.path.isdir(self.folder)):
            return None
        name = fingerprint(scan, settings)
        path = _entry(self.folder, name)
        # os.path, for which a folder that may not be looked into is none.
        if not (exists(path) if is_remote(path) else os.path.exists(path)):
            return None
        try:
            return _read(path, name, scan)
        except BadInputError as error:
            _log.warning("%s: %s; it is computed anew", path, error.problem)
            return None

    def write(self, scan: Scan, settings: Settings, prepared: Prepared) -> None:
        """Keep what `prepare_scan` gave, whole or not at all; the same gives the same bytes."""
        if self.folder is None:
            return
        name = fingerprint(scan, settings)
        about = {
            "format": FORMAT,
            "fingerprint": name,
            "stands": prepared.stands,
            "notes": list(prepared.notes),
        }
        arrays = {"object": prepared.object.astype(np.uint8)}
        if scan.normals is None and prepared.normals is not None:
            arrays["normals"] = prepared.normals
        text = json.dumps({**about, "sha256": _seal(about, arrays.values())}).encode()
        arrays = {"about": np.frombuffer(text, np.uint8)[None], **arrays}
        try:
            write_arrays(_entry(self.folder, name), arrays)
        except IsADirectoryError as error:
            _log.warning("a folder is in the way, and nothing is kept there: %s", error)


def _entry(folder: Path, name: str) -> Path:
    return folder / name[:2] / f"{name}.npz"


def _seal(about: Mapping[str, object], arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path, name: str, scan: Scan) -> Prepared:
    """The entry of a scan.

    Raises:
        BadInputError: it is not what `PreparedCache.write` wrote for this scan.
    """
    shape = scan.valid.shape
    pixels = shape[0] * shape[1]
    # An array costs its bytes, packed and unpacked, and the tests on them. Empty normals shrink as
    # far as deflate goes, so the cap is on the size.
    limits = Limits(
        pixels=max(pixels, _LARGEST_ABOUT),
        memory=100 * pixels + 100 * _LARGEST_ABOUT,
        ratio=float("inf"),
        members=_MEMBERS,
    )

    def read(member: str, kind: type[np.generic], expected: tuple[int, ...]) -> np.ndarray:
        found = read_array(File(path, f"{member}.npy", root=path.parent), limits)
        if found.dtype != kind or found.shape != expected:
            raise BadInputError(
                f"expected {member} as {kind.__name__} {expected}, got {found.dtype} {found.shape}",
                "remove the file",
                path,
            )
        return found

    # Little text: as objects it may take thirty times its size.
    little = replace(limits, pixels=_LARGEST_ABOUT, memory=10 * _LARGEST_ABOUT)
    about = read_array(File(path, "about.npy", root=path.parent), little)
    try:
        document = json.loads(about.tobytes())
        sealed = document.pop("sha256")
        stands, notes = document["stands"], list(document["notes"])
        whole = document["format"] == FORMAT and document["fingerprint"] == name
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInputError(f"not a prepared scan: {error!r}", "remove the file", path) from error
    if not whole or not isinstance(stands, bool) or not all(isinstance(n, str) for n in notes):
        raise BadInputError("the entry of another scan or format", "remove the file", path)
    kept = read("object", np.uint8, shape)
    arrays, normals = [kept], scan.normals
    if normals is None and scan.xyz is not None:
        normals = read("normals", np.float32, (*shape, 3))
        arrays.append(normals)
    if _seal(document, arrays) != sealed:
        raise BadInputError("not what was written", "remove the file", path)
    return Prepared(normals, kept.astype(bool), stands, tuple(notes))
