"""Frozen features: pictures → tokens once, kept on disk for every later run.

Dimension letters: S scans, N tokens, C channels, h w pixels of the views.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views

_log = logging.getLogger("pirn_jax")
# Files larger than this stay on disk and are read page by page as they are used.
MAPPED_BYTES = 256 * 2**20


class Features(NamedTuple):
    """Encoder tokens of one category's scans, frozen.

    Attributes:
        rgb: (S, N, C); None where the modality was not asked for.
        normals: (S, N, C), the same.
        valid: (S, N), True where the token's patch carries foreground.
    """

    rgb: Float[np.ndarray | Array, "S N C"] | None
    normals: Float[np.ndarray | Array, "S N C"] | None
    valid: Bool[np.ndarray | Array, "S N"]


def extract(
    encoder: Encoder,
    views: Iterable[Views],
    modalities: Sequence[str],
    *,
    batch: int = 8,
    advance: Callable[[int], None] | None = None,
) -> Features:
    """Tokens of every view, in order.

    Both modalities of a scan go through the encoder in one stacked batch, so that its weights are
    read once; the last batch is padded, so that one program serves all. While the device works the
    next views are read.

    Args:
        encoder: of the views' size.
        views: read one after the other; never more than two batches are held.
        modalities: "rgb", "normals", or both.
        batch: scans a call.
        advance: called with the number of scans just finished.

    Raises:
        BadInputError: no views, or one that lacks a modality.
    """
    tokens: list[np.ndarray] = []
    valid: list[np.ndarray] = []
    waiting: tuple[Array, int] | None = None

    def finish(waiting: tuple[Array, int]) -> None:
        result, count = waiting
        # (modalities, batch, N, C), without the padding
        tokens.append(
            np.asarray(result).reshape(len(modalities), batch, *result.shape[1:])[:, :count]
        )
        if advance is not None:
            advance(count)

    for some in _batched(views, batch):
        pictures = [[_picture(view, name) for view in some] for name in modalities]
        padded = [row + [row[-1]] * (batch - len(row)) for row in pictures]
        result = encoder(np.concatenate([np.stack(row) for row in padded]))
        valid += [foreground(view.valid, encoder.grid) for view in some]
        if waiting is not None:
            finish(waiting)
        waiting = (result, len(some))
    if waiting is None:
        raise BadInputError("no scans to take features from", "check the folder and the split")
    finish(waiting)
    streams = dict(zip(modalities, np.concatenate(tokens, axis=1), strict=True))
    return Features(streams.get("rgb"), streams.get("normals"), np.stack(valid))


def foreground(valid: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Bool[np.ndarray, " N"]:
    """True for each token with any valid pixel in its patch; row by row, as tokens are."""
    rows, columns = grid
    height, width = valid.shape[0] // rows, valid.shape[1] // columns
    return valid.reshape(rows, height, columns, width).any((1, 3)).reshape(-1)


def _batched(views: Iterable[Views], size: int) -> Iterator[list[Views]]:
    iterator = iter(views)
    while some := list(islice(iterator, size)):
        yield some


def _picture(view: Views, name: str) -> np.ndarray:
    picture = getattr(view, name)
    if picture is None:
        raise BadInputError(
            f"a scan has no {name}, which this model needs", "leave it out, or train without them"
        )
    return picture


class FeatureCache:
    """Features on disk, each entry a folder of .npy files named by what it was made from.

    An entry appears whole or not at all: it is written beside its place and renamed. One that does
    not match its own checksums is made again.

    Args:
        folder: where entries are kept; made when needed. None: nothing is kept.
    """

    def __init__(self, folder: Path | str | None):
        self.folder = None if folder is None else Path(folder)

    def get(self, key_parts: Mapping[str, str], make: Callable[[], Features]) -> Features:
        """The features of that key, read or made.

        Args:
            key_parts: everything they depend on: SHA-256 of the weights, size, layers, dtype,
                preprocessing, SHA-256 of the scans.
            make: called if they are not at hand.
        """
        if self.folder is None:
            return make()
        name = hashlib.sha256(json.dumps(dict(key_parts), sort_keys=True).encode()).hexdigest()
        entry = self.folder / name
        if entry.is_dir():
            try:
                return _read(entry)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("cached features are damaged and will be made again: %s", error)
        features = make()
        try:
            _write(entry, features, dict(key_parts))
        except OSError as error:
            _log.warning("features could not be cached in %s: %s", self.folder, error)
        return features


def _read(entry: Path) -> Features:
    """Raises one of those errors for anything but a whole, unchanged entry."""
    sums = json.loads((entry / "entry.json").read_text())["sha256"]
    arrays: dict[str, np.ndarray | None] = dict.fromkeys(Features._fields)
    for name, expected in sums.items():
        path = entry / f"{name}.npy"
        if name not in arrays or _sha256(path) != expected:
            raise ValueError(f"{path} is not what was written")
        mapped = "r" if path.stat().st_size > MAPPED_BYTES else None
        arrays[name] = np.load(path, mmap_mode=mapped, allow_pickle=False)
    if arrays["valid"] is None:
        raise ValueError(f"{entry} holds no validity")
    return Features(arrays["rgb"], arrays["normals"], arrays["valid"])


def _write(entry: Path, features: Features, key_parts: dict[str, str]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=entry.parent) as temporary:
        whole = Path(temporary) / "entry"
        whole.mkdir()
        sums = {}
        for name, array in features._asdict().items():
            if array is not None:
                np.save(whole / f"{name}.npy", np.asarray(array), allow_pickle=False)
                sums[name] = _sha256(whole / f"{name}.npy")
        about = {"made_from": key_parts, "sha256": sums}
        (whole / "entry.json").write_text(json.dumps(about, indent=1) + "\n")
        if entry.exists():  # damaged
            shutil.rmtree(entry)
        os.replace(whole, entry)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
