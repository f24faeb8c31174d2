"""What good scans look like in a few numbers: has the camera or the light moved since?

Each number is a length, a share, a distance: one a scan, and all positive. A model keeps those of
its shots and of the scans it was calibrated with, and judges others by the interval in which one
further scan of the same kind lies with 99 % confidence:

    exp(m ± t s sqrt(1 + 1 / n))

with mean m and standard deviation s of the n logarithms, and Student's t of n - 1 degrees of
freedom. Few scans make a wide interval, and a single one none.

    score            image score; compared to those that the threshold was set with
    tokens_rgb, tokens_normals   how far the mean token lies from the shots': root mean square over
                     channels, each in units of the standard deviation of the shots' tokens
    tilt             degrees by which normals, sorted by their angle to the line of sight, differ
    measured, brightness, contrast, size   those of `pirn_jax.geometry.sight`
    resolution       scan pixels along a millimetre, where the view is a square around the part

What a shot's tokens and tilt are compared to are the other shots'. Scores and distances may be as
small as they like.

Source: prediction interval of one normal observation (Hahn & Meeker 1991, sec. 4.7); the tilt's
distance is the Wasserstein distance of order 1.
Differs from the paper: PIRN says nothing of what changes at a line.

Dimension letters: S shots, M modalities, N tokens, C channels, A bins of the tilt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.geometry.sight import Sight

SCORE = "score"
_FROM_ZERO = (SCORE, "tokens_rgb", "tokens_normals", "tilt")
CONFIDENCE = 0.99
LEAST_SPREAD = 0.01
"""Standard deviation of the logarithms is taken to be this at least: generated scans, and those of
one and the same part, agree better than a camera can be set up again."""
_BINS = 90  # of the angle between a normal and the line of sight, 0 to 90 degrees
_LARGEST = 1e30


class Seen(NamedTuple):
    """What a reference needs of one scan.

    Attributes:
        sight: of its view.
        tokens: mean of its valid tokens.
        tilts: share of its normals by their angle to the line of sight; None without normals.
        resolution: pixels a millimetre; None where the view shows the whole frame.
    """

    sight: Sight
    tokens: Float[np.ndarray, "M C"]
    tilts: Float[np.ndarray, " A"] | None
    resolution: float | None

    @classmethod
    def of(
        cls, views: Views, tokens: Float[np.ndarray, "M C"] | None, part_side: float | None
    ) -> Seen:
        """What is seen of a scan.

        Args:
            views: of it.
            tokens: mean of its valid tokens.
            part_side: side of the square that the views show, in metres; None: the whole frame.
        """
        assert tokens is not None
        side = None if part_side is None else views.frame.window[0] / (1000 * part_side)
        return cls(views.sight, np.asarray(tokens, np.float64), _tilts(views), side)


class Reference(NamedTuple):
    """What the good scans of a model look like.

    Attributes:
        tokens: mean token of the shots.
        weight: one over the standard deviation of their tokens; 0 where a channel never changes.
        tilts: mean of their shares; None without normals.
        shots: numbers of the shots, by name.
        calibration: numbers of the scans it was calibrated with.
    """

    tokens: Float[np.ndarray, "M C"]
    weight: Float[np.ndarray, "M C"]
    tilts: Float[np.ndarray, " A"] | None
    shots: Mapping[str, tuple[float, ...]]
    calibration: Mapping[str, tuple[float, ...]] = {}

    def numbers(self, seen: Seen, modalities: Sequence[str]) -> dict[str, float]:
        """A scan's numbers, but for its score; those that are known."""
        distances = np.sqrt((((seen.tokens - self.tokens) * self.weight) ** 2).mean(axis=1))
        found: dict[str, float | None] = {
            f"tokens_{name}": float(value)
            for name, value in zip(modalities, distances, strict=True)
        }
        if seen.tilts is not None and self.tilts is not None:
            apart = np.abs(np.cumsum(seen.tilts - self.tilts)).sum()
            found["tilt"] = float(apart * 90 / _BINS)
        found |= seen.sight._asdict() | {"resolution": seen.resolution}
        return {name: value for name, value in found.items() if value is not None}

    def with_calibration(self, seen: Sequence[Seen], modalities: Sequence[str]) -> Reference:
        """The same, calibrated with these scans instead of others."""
        return self._replace(calibration=_gathered([self.numbers(s, modalities) for s in seen]))

    def limits(self, scores: Sequence[float]) -> dict[str, tuple[float, float]]:
        """The interval of each number of which two scans or more are known.

        Args:
            scores: that the threshold was set with.
        """
        names = dict.fromkeys((*self.shots, *self.calibration))
        known = {n: (*self.shots.get(n, ()), *self.calibration.get(n, ())) for n in names}
        known = {SCORE: tuple(scores), **known}
        found = {name: interval(values) for name, values in known.items() if len(values) > 1}
        return {n: (0.0 if n in _FROM_ZERO else low, high) for n, (low, high) in found.items()}

    def tensors(self) -> dict[str, np.ndarray]:
        """What was learned of the shots, to be kept beside the model's own arrays."""
        found = {"tokens": self.tokens, "weight": self.weight}
        return found if self.tilts is None else {**found, "tilts": self.tilts}

    def document(self) -> dict[str, Any]:
        """The numbers of scans, as plain JSON values."""
        return {"shots": dict(self.shots), "calibration": dict(self.calibration)}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of one further number, see the module.

    Args:
        values: two or more.
    """
    from scipy import stats  # for `doctor` only

    logarithms = np.log(np.maximum(np.asarray(values, np.float64), 1e-9))
    count = len(logarithms)
    spread = max(float(logarithms.std(ddof=1)), LEAST_SPREAD)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * spread * math.sqrt(1 + 1 / count)
    middle = float(logarithms.mean())
    return math.exp(max(middle - reach, -50.0)), math.exp(min(middle + reach, 50.0))


def learn_reference(
    views: Sequence[Views], tokens: Tokens, modalities: Sequence[str], part_side: float | None
) -> Reference:
    """The reference of shots.

    Args:
        views: of the S shots.
        tokens: of the same, (M, S, N, C), each followed by those of as many copies as there are.
        modalities: of the model.
        part_side: as for `Seen.of`.
    """
    means, squares = [], []
    step = tokens.values.shape[1] // len(views)
    for place in range(0, step * len(views), step):  # one by one: many shots' lie on disk
        values = np.asarray(tokens.values[:, place], np.float64)
        if tokens.valid is not None:
            values = values[:, np.asarray(tokens.valid[place])]
        means.append(values.mean(axis=1))
        squares.append((values**2).mean(axis=1))
    mean = np.mean(means, axis=0)
    variance = np.maximum(np.mean(squares, axis=0) - mean**2, 0.0)
    # A channel that never changes, as what fills up the narrower modality, says nothing.
    changes = variance > 1e-10 * (1 + mean**2)
    weight = np.where(changes, 1 / np.sqrt(np.where(changes, variance, 1.0)), 0.0)
    seen = [Seen.of(view, m, part_side) for view, m in zip(views, means, strict=True)]
    tilts = [one.tilts for one in seen if one.tilts is not None]
    reference = Reference(mean, weight, np.mean(tilts, axis=0) if tilts else None, {})
    if len(seen) == 1:  # there is no other to compare its tokens and normals to
        numbers = reference.numbers(seen[0], modalities)
        own = {n: v for n, v in numbers.items() if n in (*Sight._fields, "resolution")}
        return reference._replace(shots=_gathered([own]))
    numbers = []
    for place, one in enumerate(seen):
        others = [s.tilts for s in (*seen[:place], *seen[place + 1 :]) if s.tilts is not None]
        without = reference._replace(
            tokens=(mean * len(seen) - one.tokens) / (len(seen) - 1),
            tilts=np.mean(others, axis=0) if others else None,
        )
        numbers.append(without.numbers(one, modalities))
    return reference._replace(shots=_gathered(numbers))


def reference_shapes(tilts: bool, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What `Reference.tensors` has.

    Args:
        tilts: whether there are shares of normals.
        shape: modalities and channels of the model's tokens.
    """
    shapes = {"tokens": shape, "weight": shape, **({"tilts": (_BINS,)} if tilts else {})}
    return {name: np.broadcast_to(0.0, size) for name, size in shapes.items()}


def read_reference(document: Any, tensors: Mapping[str, np.ndarray]) -> Reference:
    """A reference from a file's fields, none of which is believed.

    Args:
        document: what `Reference.document` gave.
        tensors: what `Reference.tensors` gave, checked already.

    Raises:
        BadInputError: not what was written.
    """
    numbers = []
    for part in ("shots", "calibration"):
        found = document.get(part) if isinstance(document, Mapping) else None
        if not isinstance(found, Mapping) or not all(map(_are_numbers, found.values())):
            raise BadInputError(f"reference: expected lists of numbers by name, got {found!r:.80}")
        numbers.append({str(name): tuple(map(float, values)) for name, values in found.items()})
    return Reference(tensors["tokens"], tensors["weight"], tensors.get("tilts"), *numbers)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) in (int, float) and 0 <= value < _LARGEST for value in values
    )


def _gathered(scans: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Numbers of scans by name."""
    names = dict.fromkeys(name for numbers in scans for name in numbers)
    return {n: tuple(numbers[n] for numbers in scans if n in numbers) for n in names}


def _tilts(views: Views) -> Float[np.ndarray, " A"] | None:
    """Shares of the part's normals by their angle to the line of sight."""
    if views.normals is None:
        return None
    shown = views.normals[views.valid & views.normals.any(axis=-1)]
    if not len(shown):
        return None
    towards = np.clip(1 - 2 * shown[:, 2].astype(np.float64), -1.0, 1.0)  # the sensor is at -z
    counts, _ = np.histogram(np.degrees(np.arccos(np.abs(towards))), _BINS, (0.0, 90.0))
    return counts / len(shown)
