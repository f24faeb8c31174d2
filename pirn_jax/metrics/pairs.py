"""Maps and masks, walked through in step and checked on the way.

A set of maps may be larger than memory, so it is anything `iter()` can be called on twice: a list,
an array (n, H, W), a memory map, an object that reads files. Maps may differ in size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import ArrayLike

from pirn_jax.errors import BadInputError

_END = object()


class Pair(NamedTuple):
    """One anomaly map and its truth.

    Attributes:
        name: what to call it in a message.
        scores: the map, float32 or float64, finite.
        mask: its mask, 0 good, > 0 defective.
        seen: True where metrics may look; None where they may look everywhere.
    """

    name: str
    scores: Shaped[np.ndarray, "H W"]
    mask: Shaped[np.ndarray, "H W"]
    seen: Bool[np.ndarray, "H W"] | None


class Pairs:
    """Maps, masks and ignore masks as one source that can be walked through again and again.

    Args:
        maps: anomaly maps, (H, W) each; larger is more anomalous. An attribute `names`, where the
            source has one, is used in messages.
        masks: one per map, > 0 is defective.
        ignore: one per map (or None for a map), > 0 is left out altogether.

    Raises:
        BadInputError: for a source that can be walked through only once. Walking raises it, naming
            the map, for NaN or infinite scores, shapes that do not agree, a missing mask, masks
            with negative values, an empty source, or sources of different length.
    """

    def __init__(
        self,
        maps: Iterable[ArrayLike],
        masks: Iterable[ArrayLike | None],
        ignore: Iterable[ArrayLike | None] | None,
    ):
        for what, source in (("maps", maps), ("masks", masks), ("ignore", ignore)):
            if isinstance(source, Iterator):
                raise BadInputError(
                    f"{what} must be a source that can be read twice, got a one-shot "
                    f"{type(source).__name__}",
                    "pass a list, an array, or an object whose __iter__ starts afresh",
                )
        self.maps, self.masks, self.ignore = maps, masks, ignore
        self.names = getattr(maps, "names", None)

    def __iter__(self) -> Iterator[Pair]:
        sources = [iter(self.maps), iter(self.masks)]
        if self.ignore is not None:
            sources.append(iter(self.ignore))
        index = 0
        while True:
            values: list[Any] = [next(source, _END) for source in sources]
            if all(value is _END for value in values):
                break
            if any(value is _END for value in values):
                what = ("maps", "masks", "ignore")
                short = next(w for w, value in zip(what, values, strict=False) if value is _END)
                raise BadInputError(
                    f"{short} ended after {index}, the others go on",
                    "give one mask (and one ignore mask) per map, in the same order",
                )
            name = f"map {index}" if self.names is None else str(self.names[index])
            yield _pair(name, *values)
            index += 1
        if index == 0:
            raise BadInputError("there are no maps to evaluate", "check the source or its folder")


def _pair(
    name: str, scores: ArrayLike, mask: ArrayLike | None, ignore: ArrayLike | None = None
) -> Pair:
    scores = _scores(name, scores)
    if mask is None:
        raise BadInputError(
            f"{name}: its mask is None, which could mean good or unknown",
            "give a mask of zeros for a good image, or leave the image out",
        )
    mask = _mask(name, "mask", mask, scores.shape)
    seen = None if ignore is None else _mask(name, "ignore mask", ignore, scores.shape) == 0
    return Pair(name, scores, mask, seen)


def _scores(name: str, value: ArrayLike) -> np.ndarray:
    """The map as float32 or float64, whichever holds every score exactly."""
    array = np.asarray(value)
    if array.ndim != 2 or array.size == 0:
        raise BadInputError(
            f"{name}: a map has two dimensions (H, W), got shape {array.shape}",
            "pass one channel per map; average or pick channels first",
        )
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind not in "bfiu" or (kind == "f" and width > 8):
        raise BadInputError(
            f"{name}: scores must be real numbers of at most 64 bits, got {array.dtype}",
            "convert the map to float32 or float64",
        )
    small = kind == "b" or (kind == "f" and width <= 4) or (kind in "iu" and width <= 2)
    exact = np.float32 if small else np.float64
    if kind in "iu" and width == 8 and max(abs(int(array.min())), abs(int(array.max()))) > 2**53:
        raise BadInputError(
            f"{name}: integer scores beyond 2^53 would be rounded and tied",
            "rescale the map to float64",
        )
    array = array.astype(exact, copy=False)
    # NaN survives min and max, infinities are one of the two: no boolean map is needed.
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        nans, bad = int(np.isnan(array).sum()), int((~np.isfinite(array)).sum())
        raise BadInputError(
            f"{name}: scores must be finite, got {nans} NaN and {bad - nans} infinite "
            f"of {array.size} pixels",
            "mend the detector, or pass these pixels as `ignore` with a finite score",
        )
    return array


def _mask(name: str, what: str, value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != shape:
        raise BadInputError(
            f"{name}: its {what} has shape {array.shape}, the map {shape}",
            "bring both to one size first; masks by nearest neighbour",
        )
    if array.dtype.kind not in "biuf":
        raise BadInputError(f"{name}: its {what} must hold numbers, got {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array.min()):
        raise BadInputError(f"{name}: its {what} holds NaN", "0 is good, > 0 defective")
    if array.dtype.kind in "if" and array.min() < 0:
        raise BadInputError(
            f"{name}: its {what} holds negative values (a uint8 mask read as int8?)",
            "0 is good, > 0 defective",
        )
    return array
