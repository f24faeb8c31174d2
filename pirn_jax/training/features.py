"""Frozen features: pictures → tokens once, kept on disk for every later run.

Dimension letters: M modalities, S scans, N tokens, C channels, h w pixels of the views.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jax import Array
from jaxtyping import Bool

from pirn_jax.decoder import Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.storage import open_regular, read_object, try_lock, whole_folder

_log = logging.getLogger("pirn_jax")
# Files larger than this stay on disk and are read page by page as they are used.
MAPPED_BYTES = 256 * 2**20
# Of what lies in an entry; part of its name, so that entries of another are not met.
FORMAT = 2


def extract(
    encoder: Encoder,
    views: Iterable[Views],
    modalities: Sequence[str],
    *,
    batch: int = 8,
    advance: Callable[[int], None] | None = None,
) -> Tokens:
    """Tokens of every view, in order: values (M, S, N, C), valid (S, N).

    Both modalities of a scan go through the encoder in one stacked batch, so that its weights are
    read once; the last batch is padded, so that one program serves all. While the device works the
    next views are read.

    Args:
        encoder: of the views' size.
        views: read one after the other; never more than two batches are held.
        modalities: "rgb", "normals", or both; M of them, in this order.
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
        valid += [token_validity(view.valid, encoder.grid) for view in some]
        if waiting is not None:
            finish(waiting)
        waiting = (result, len(some))
    if waiting is None:
        raise BadInputError("no scans to take features from", "check the folder and the split")
    finish(waiting)
    return Tokens(np.concatenate(tokens, axis=1), np.stack(valid))


def token_validity(
    pixels: Bool[np.ndarray, "h w"], grid: tuple[int, int]
) -> Bool[np.ndarray, " N"]:
    """True for each token with any valid pixel in its patch; row by row, as tokens are."""
    rows, columns = grid
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    return pixels.reshape(rows, height, columns, width).any((1, 3)).reshape(-1)


def _batched(views: Iterable[Views], size: int) -> Iterator[list[Views]]:
    iterator = iter(views)
    while some := list(islice(iterator, size)):
        yield some


def _picture(view: Views, name: str) -> np.ndarray:
    picture = view.picture(name)
    if picture is None:
        raise BadInputError(
            f"a scan has no {name}, which this model needs", "leave it out, or train without them"
        )
    return picture


class FeatureCache:
    """Features on disk, each entry a folder of .npy files named by what it was made from.

    An entry appears whole or not at all: it is written beside its place and renamed, by one process
    at a time. One that does not match its own checksums is made again.

    Args:
        folder: where entries are kept; made when needed. None: nothing is kept.
    """

    def __init__(self, folder: Path | str | None):
        self.folder = None if folder is None else Path(folder)

    def get(self, key_parts: Mapping[str, str], make: Callable[[], Tokens]) -> Tokens:
        """The features of that key, read or made.

        Args:
            key_parts: everything they depend on: SHA-256 of the weights, size, layers, dtype,
                preprocessing, SHA-256 of the scans.
            make: called if they are not at hand.
        """
        if self.folder is None:
            return make()
        named = json.dumps({"format": FORMAT, "made_from": dict(key_parts)}, sort_keys=True)
        entry = self.folder / hashlib.sha256(named.encode()).hexdigest()
        if entry.is_dir():
            try:
                return _read(entry)
            except Exception as error:  # damaged bytes raise anything
                _log.warning("cached features are damaged and will be made again: %s", error)
        tokens = make()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with try_lock(self.folder / f".{entry.name}.lock") as ours:
                if ours:  # who else holds it writes the same
                    _write(entry, tokens, dict(key_parts))
        except OSError as error:
            _log.warning("features could not be cached in %s: %s", self.folder, error)
        return tokens


def _read(entry: Path) -> Tokens:
    """Raises for anything but a whole, unchanged entry."""
    sums = read_object(entry / "entry.json")["sha256"]
    arrays: dict[str, np.ndarray] = {}
    for name, expected in sums.items():
        path = entry / f"{name}.npy"
        if name not in Tokens._fields or _sha256(path) != expected:
            raise ValueError(f"{path} is not what was written")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # fails where bytes are missing
        arrays[name] = mapped if path.stat().st_size > MAPPED_BYTES else np.array(mapped)
    return Tokens(arrays["values"], arrays.get("valid"))


def _write(entry: Path, tokens: Tokens, key_parts: dict[str, str]) -> None:
    with whole_folder(entry) as folder:
        sums = {}
        for name, array in tokens._asdict().items():
            if array is not None:
                np.save(folder / f"{name}.npy", np.asarray(array), allow_pickle=False)
                sums[name] = _sha256(folder / f"{name}.npy")
        about = {"made_from": key_parts, "sha256": sums}
        (folder / "entry.json").write_text(json.dumps(about, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
