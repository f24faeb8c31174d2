"""Tokens and truth of scans, each picture encoded once, whatever looks at it afterwards.

A bank belongs to one way of looking (encoder, size, layers, background, …). What it computes lies
in the cache folder, one entry per scan: `features/` for tokens (`pirn_jax.training.FeatureCache`)
and `truth/` for label, mask and the way back to the scan's pixels. The name of an entry is the hash
of everything it depends on: the scan's files or the generator's hash, the encoder's weights, the
transformation of the scan where there is one, and the source of the rooms that make pictures and
tokens. So changed code, weights or files can never meet old tokens.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

import pirn_jax
from experiments.arrays import pack, unpack
from pirn_jax.config import Config
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.geometry.views import Frame
from pirn_jax.judging import BATCH, layers_of, open_encoder, read_ahead, some_of
from pirn_jax.geometry.augmentation import VERSION, Plan, with_copies
from pirn_jax.storage import read_object, write_json
from pirn_jax.scans import Dataset, Scan, Split
from pirn_jax.scans.datasets.shots import file_hashes
from pirn_jax.training import FeatureCache, Features, extract

MEMORY = 2 << 30
"""Bytes of tokens kept in memory by one bank."""
_STRETCH = 32  # scans encoded between two writes: what a kill can cost
_ROOMS = (
    "scans",
    "geometry",
    "encoder",
    "judging/reading.py",
    "judging/copies.py",
    "training/features.py",
)

Transform = Callable[[Scan], Scan]


class Truth(NamedTuple):
    """What is known of a scan, without its pictures.

    Attributes:
        key: of the scan within its category.
        label: 0 good, 1 defective, None unknown.
        defect: its name, "good", or "".
        mask: (H, W); None where no truth is known. All False for a good scan.
        ignore: (H, W) or None.
        frame: from the model's pixels back to the scan's.
    """

    key: str
    label: int | None
    defect: str
    mask: Bool[np.ndarray, "H W"] | None
    ignore: Bool[np.ndarray, "H W"] | None
    frame: Frame


class Bank:
    """Tokens and truth of one way of looking at scans.

    Args:
        config: a detector's; only what decides its tokens matters. Its background is decided.
        encoder: its encoder.
        modalities: the streams to make, whatever the detector's own.
        cache: the folder.
        encoded: called with the number of scans just encoded.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        modalities: Sequence[str],
        cache: Path,
        encoded: Callable[[int], None] = lambda count: None,
    ):
        self.config = replace(config, modalities=tuple(modalities))
        self.encoder = encoder
        self._features = FeatureCache(cache / "features")
        self._truth = cache / "truth"
        self._encoded = encoded
        self._held: OrderedDict[str, tuple[Features, Truth]] = OrderedDict()
        self._about = {
            "encoder": encoder.config.name,
            "weights": encoder.source.sha256,
            "size": str(encoder.image_size),
            "layers": str(encoder.layers),
            "groups": str(encoder.groups),
            "dtype": encoder.dtype.name,
            "modalities": str(self.config.modalities),
            "background": config.background,
            "geometry": config.geometry,
            "code": source_hash(_ROOMS),
        }

    def get(
        self,
        data: Dataset,
        split: Split,
        origin: str,
        transform: Transform | None = None,
        copies: Plan = (),
        seed: int = 0,
    ) -> tuple[Features, list[Truth]]:
        """Tokens and truth of scans, in their order.

        Args:
            data: the category they are of.
            split: the scans.
            origin: what they are, beyond their files: the generator and its options, for instance.
            transform: what is done to each scan first.
            copies: made of each scan; their tokens follow its own.
            seed: of the copies.
        """
        about = self._about | {"dataset": data.name, "category": data.category, "origin": origin}
        if transform is not None:
            about["transform"] = transform_hash(transform)
        if copies:
            about |= {"copies": f"{VERSION} {copies}", "seed": str(seed)}
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
            made = self._make(split, places, transform, copies, seed)
            for place, features, truth in zip(places, *made, strict=True):
                write_json(self._truth / f"{names[place]}.json", _to_json(truth))
                self._features.get(parts[place], lambda one=features: one)
                found[names[place]] = (features, truth)
            self._encoded(len(places))
        for name in names:
            self._held[name] = found[name]
            self._held.move_to_end(name)
        whole = _join([found[name][0] for name in names])
        self._forget()
        return whole, [found[name][1] for name in names]

    def _read(self, name: str, part: dict[str, str]) -> tuple[Features, Truth] | None:
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
        copies: Plan,
        seed: int,
    ) -> tuple[list[Features], list[Truth]]:
        truths: list[Truth] = []

        def views() -> Iterator[Views]:
            wanted = changed(split, [split.keys[place] for place in places], transform)
            for scan, view in read_ahead(wanted, self.config, 2 * BATCH, None):
                truths.append(_truth_of(scan, view))
                yield from with_copies(view, copies, seed)

        features = extract(self.encoder, views(), self.config.modalities, batch=BATCH)
        each = np.arange(1 + len(copies))
        own = [some_of(features, place * len(each) + each) for place in range(len(places))]
        return own, truths

    def _forget(self) -> None:
        """Drop what was used longest ago, down to MEMORY."""
        sizes = [sum(x.nbytes for x in f if x is not None) for f, _ in self._held.values()]
        excess = sum(sizes) - MEMORY
        for size in sizes:
            if excess <= 0:
                break
            self._held.popitem(last=False)
            excess -= size


class _NotThereError(Exception):
    """Raised in place of making what is not in the cache."""


def _not_there() -> Features:
    raise _NotThereError


def changed(split: Split, keys: Sequence[str], transform: Transform | None) -> Split:
    """The scans with these keys, transformed as they are read."""
    if transform is None:
        return split.select(keys)
    places = {key: place for place, key in enumerate(split.keys)}
    chosen = split.select(keys)
    return Split(chosen.entries, lambda entry: transform(split[places[entry.key]]))


def _truth_of(scan: Scan, view: Views) -> Truth:
    mask = None if scan.mask is None else scan.mask > 0
    if mask is None and scan.label == 0:
        mask = np.zeros(scan.valid.shape, bool)
    return Truth(scan.key, scan.label, scan.defect, mask, scan.ignore, view.frame)


def _to_json(truth: Truth) -> dict[str, Any]:
    document = truth._asdict()
    document["frame"] = truth.frame._asdict()
    for name in ("mask", "ignore"):
        array = document[name]
        document[name] = None if array is None else pack(array)
    return document


_SHAPES = ("scan", "padded", "size")


def _from_json(document: dict[str, Any]) -> Truth:
    frame = document["frame"]
    scan, padded, size = ((int(a), int(b)) for a, b in (frame[k] for k in _SHAPES))
    mask, ignore = (
        None if document[name] is None else unpack(document[name]) for name in ("mask", "ignore")
    )
    return Truth(
        str(document["key"]),
        document["label"],
        str(document["defect"]),
        mask,
        ignore,
        Frame(scan, int(frame["top"]), int(frame["left"]), padded, size),
    )


def _join(features: Sequence[Features]) -> Features:
    def joined(name: str) -> np.ndarray | None:
        streams = [getattr(one, name) for one in features]
        return None if streams[0] is None else np.concatenate(streams)

    valid = joined("valid")
    assert valid is not None
    return Features(joined("rgb"), joined("normals"), valid)


def _hash(part: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


@functools.cache
def source_hash(rooms: Sequence[str] = ("",)) -> str:
    """SHA-256 of the package's source in these folders or files; everything without."""
    root = Path(pirn_jax.__file__).parent
    digest = hashlib.sha256()
    for room in rooms:
        place = root / room
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def transform_hash(transform: Callable[..., Any]) -> str:
    """SHA-256 of the file a function is defined in, and of its parameters.

    A `functools.partial` is told from another by its arguments; a lambda by its text's place alone,
    so give it parameters that way.
    """
    if isinstance(transform, functools.partial):
        inner = transform_hash(transform.func)
        said = f"{inner} {transform.args} {sorted(transform.keywords.items())}"
    else:
        file = inspect.getsourcefile(transform)
        source = Path(file).read_bytes() if file else b""
        said = f"{hashlib.sha256(source).hexdigest()} {transform.__qualname__}"
    return hashlib.sha256(said.encode()).hexdigest()


_encoders: OrderedDict[Any, Encoder] = OrderedDict()


def encoder_of(config: Config) -> Encoder:
    """The encoder of a config; configs that differ elsewhere share it. The last four are kept."""
    own = (config.encoder, config.weights, config.require_weights, config.image_size, config.dtype)
    key = (*own, layers_of(config))
    if key not in _encoders:
        _encoders[key] = open_encoder(config)
        while len(_encoders) > 4:
            _encoders.popitem(last=False)
    return _encoders[key]
