"""Tokens and truth of scans, each picture encoded once, whatever looks at it afterwards.

A store belongs to one way of looking (encoder, size, layers, background, foreground, …). What it
computes lies in the cache folder, one entry per scan: `features/` for tokens
(`pirn_jax.training.FeatureCache`) and `truth/` for label, mask and the way back to the scan's
pixels. The name of an entry is the hash of everything it depends on: the scan's files or the
generator's hash, the encoder's weights, the transformation of the scan where there is one, and the
source of the rooms that make pictures and tokens. So changed code, weights or files can never meet
old tokens.

Dimension letters: M modalities, B scans, N tokens, C channels, H W scan pixels.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.arrays import pack, unpack
from harness.provenance import function_hash, source_hash
from pirn_jax.config import Config
from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector import BATCH, Truth, prefetch, view_scan
from pirn_jax.detector.encoders import points_digest
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.geometry.augmentation import VERSION, Augmentations, augment
from pirn_jax.geometry.prepared import PreparedCache
from pirn_jax.geometry.views import Frame
from pirn_jax.scans import Dataset, Scan, Split
from pirn_jax.scans.datasets.shots import file_hashes
from pirn_jax.storage import read_object, write_json
from pirn_jax.training import FeatureCache, extract

MEMORY = 2 << 30
"""Bytes of tokens kept in memory by one store."""
_STRETCH = 32  # scans encoded between two writes: what a kill can cost
_ROOMS = (
    "scans",
    "geometry",
    "encoder",
    "detector/preprocessing.py",
    "detector/evaluation.py",
    "training/features.py",
)

Transform = Callable[[Scan], Scan]


class TokenStore:
    """Tokens and truth of one way of looking at scans.

    Args:
        config: a detector's; only what decides its tokens matters. Its background is decided.
        encoder: its encoder.
        modalities: the streams to make, whatever the detector's own.
        features: tokens that are kept.
        prepared: normals and object masks at hand.
        truth: folder of what is known of the scans.
        encoded: called with the number of scans just encoded.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        modalities: Sequence[str],
        features: FeatureCache,
        prepared: PreparedCache,
        truth: Path,
        encoded: Callable[[int], None] = lambda count: None,
    ):
        self.config = replace(config, modalities=tuple(modalities))
        self.encoder = encoder
        self._features, self._prepared, self._truth = features, prepared, truth
        self._encoded = encoded
        self._held: OrderedDict[str, tuple[Tokens, Truth]] = OrderedDict()
        self._about = {
            "encoder": encoder.config.name,
            "weights": encoder.source.sha256,
            "size": str(encoder.image_size),
            "tiles": str(encoder.tiles),
            "layers": str(encoder.layers),
            "groups": str(encoder.groups),
            "normalised": str(encoder.normalised),
            "features": encoder.features,
            "points": points_digest(encoder),
            "dtype": encoder.dtype.name,
            "runtime": encoder.runtime,
            "modalities": str(self.config.modalities),
            "background": config.background,
            "part_side": str(config.part_side),
            "geometry": config.geometry_method,
            "foreground": config.chosen_recipe.foreground,
            "code": source_hash(_ROOMS),
        }

    def get(
        self,
        data: Dataset,
        split: Split,
        origin: str,
        transform: Transform | None = None,
        augmentations: Augmentations = (),
        seed: int = 0,
    ) -> tuple[Tokens, list[Truth]]:
        """Tokens and truth of scans, in their order.

        Args:
            data: the category they are of.
            split: the scans.
            origin: what they are, beyond their files: the generator and its options, for instance.
            transform: what is done to each scan first.
            augmentations: copies made of each scan; their tokens follow its own.
            seed: of the copies.
        """
        about = self._about | {"dataset": data.name, "category": data.category, "origin": origin}
        if transform is not None:
            about["transform"] = function_hash(transform)
        if augmentations:
            about |= {"augmentations": f"{VERSION} {augmentations}", "seed": str(seed)}
        parts = []
        for entry in split.entries:
            files = json.dumps(file_hashes(entry.files), sort_keys=True)
            parts.append(about | {"key": entry.key, "files": files})
        names = [_hash(part) for part in parts]
        found = {name: self._held[name] for name in names if name in self._held}
        found |= {
            name: known
            for name, part in zip(names, parts, strict=True)
            if name not in found and (known := self._read(name, part)) is not None
        }
        missing = [place for place, name in enumerate(names) if name not in found]
        for start in range(0, len(missing), _STRETCH):
            places = missing[start : start + _STRETCH]
            made = self._make(split, places, transform, augmentations, seed)
            for place, tokens, truth in zip(places, *made, strict=True):
                write_json(self._truth / f"{names[place]}.json", _to_json(truth))
                self._features.get(parts[place], lambda one=tokens: one)
                found[names[place]] = (tokens, truth)
            self._encoded(len(places))
        for name in names:
            self._held[name] = found[name]
            self._held.move_to_end(name)
        whole = _join([found[name][0] for name in names])
        self._forget()
        return whole, [found[name][1] for name in names]

    def _read(self, name: str, part: dict[str, str]) -> tuple[Tokens, Truth] | None:
        try:
            truth = _from_json(read_object(self._truth / f"{name}.json"))
            return self._features.get(part, _not_there), truth
        except (_NotThereError, BadInputError, KeyError, TypeError, ValueError):
            return None

    def _make(
        self,
        split: Split,
        places: Sequence[int],
        transform: Transform | None,
        augmentations: Augmentations,
        seed: int,
    ) -> tuple[list[Tokens], list[Truth]]:
        truths: list[Truth] = []

        def views() -> Iterator[Views]:
            wanted = transformed(split, [split.keys[place] for place in places], transform)
            look = functools.partial(view_scan, config=self.config, prepared=self._prepared)
            for scan, view in prefetch(wanted, look, 2 * BATCH):
                truths.append(Truth.of(scan, view))
                yield from augment(view, augmentations, seed)

        tokens = extract(self.encoder, views(), self.config.modalities, batch=BATCH)
        each = np.arange(1 + len(augmentations))
        own = [select_scans(tokens, place * len(each) + each) for place in range(len(places))]
        return own, truths

    def _forget(self) -> None:
        """Drop what was used longest ago, down to MEMORY."""
        sizes = [sum(np.asarray(array).nbytes for array in one) for one, _ in self._held.values()]
        excess = sum(sizes) - MEMORY
        for size in sizes:
            if excess <= 0:
                break
            self._held.popitem(last=False)
            excess -= size


class _NotThereError(Exception):
    """Raised in place of making what is not in the cache."""


def _not_there() -> Tokens:
    raise _NotThereError


def transformed(split: Split, keys: Sequence[str], transform: Transform | None) -> Split:
    """The scans with these keys, transformed as they are read."""
    if transform is None:
        return split.select(keys)
    places = {key: place for place, key in enumerate(split.keys)}
    chosen = split.select(keys)
    return Split(chosen.entries, lambda entry: transform(split[places[entry.key]]))


def _to_json(truth: Truth) -> dict[str, Any]:
    document = truth._asdict()
    document["frame"] = truth.frame._asdict()
    for name in ("mask", "ignore"):
        array = document[name]
        document[name] = None if array is None else pack(array)
    return document


_SHAPES = ("scan", "window", "size")


def _from_json(document: dict[str, Any]) -> Truth:
    frame = document["frame"]
    scan, window, size = ((int(a), int(b)) for a, b in (frame[k] for k in _SHAPES))
    mask, ignore = (
        None if document[name] is None else unpack(document[name]) for name in ("mask", "ignore")
    )
    return Truth(
        str(document["key"]),
        document["label"],
        str(document["defect"]),
        mask,
        ignore,
        Frame(scan, int(frame["top"]), int(frame["left"]), window, size),
    )


def _join(tokens: Sequence[Tokens]) -> Tokens:
    """The scans of all, one after the other."""
    return Tokens(
        np.concatenate([np.asarray(one.values) for one in tokens], axis=1),
        np.concatenate([np.asarray(one.valid) for one in tokens]),
    )


def _hash(part: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
