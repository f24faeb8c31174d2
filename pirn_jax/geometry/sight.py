"""What a scan shows, in four numbers, and whether a sensor that works could have shown it.

A black photograph and a cloud of a few points look like nothing that a detector has learned, and
some of them score lower than any good part. So a detector keeps how bright and rich in contrast its
shots are, how much of them was measured and how large the part is, and judges no scan that is far
from all of them.

The bounds are wide: they are there for what is broken, and not for what is defective. Of 21,330
verdicts on real scans (cable_gland with its darker recording of all defective parts, road, tire,
cookie, hazelnut_toy; validation and test scans by limits of 90 draws of one, three and five shots
each) and 4,320 on generated ones none is refused. What differs most: brightness 0.44-0.51 of the
shots against 0.36-0.49, share measured 0.66-0.67 against 0.54-0.63 (cable_gland), size 0.36 m
against 0.36-0.50 m (road).

Dimension letters: H, W the pixels of the scan; h, w the view's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.errors import BadInputError, NotJudgedError
from pirn_jax.pixels import erode

DARKER = 1 / 3
"""A photograph may have this share of the darkest shot's brightness; and be as far from white, as
a share of the brightest one's distance."""
FLATTER = 1 / 4
"""Its contrast may be this share of the flattest shot's."""
EMPTIER = 1 / 3
"""This share of the emptiest shot's measured share must have been measured."""
SMALLER, LARGER = 0.4, 2.5
"""A part may be these times as large as the smallest and the largest shot's."""

_log = logging.getLogger("pirn_jax")
_TELL = 50_000  # points that tell the size
_EDGE = 2  # pixels
_MEND = "see to camera, light and place of the part; where good parts may look so, fit with such"


class Sight(NamedTuple):
    """What a scan shows.

    Attributes:
        brightness: mean grey of the part, in [0, 1]; None without a photograph.
        contrast: standard deviation of that.
        measured: share of the scan's pixels that carry a point, or a normal where the scan came
            with these alone, in [0, 1]; None without geometry.
        size: diagonal of the box around the part's points but for the outermost hundredths, metres.
    """

    brightness: float | None = None
    contrast: float | None = None
    measured: float | None = None
    size: float | None = None


def sight_of(
    rgb: Float32[np.ndarray, "h w 3"] | None,
    part: Bool[np.ndarray, "h w"],
    xyz: Float32[np.ndarray, "H W 3"] | None,
    normals: Float32[np.ndarray, "H W 3"] | None,
    object_points: Bool[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"],
) -> Sight:
    """What a scan shows.

    Args:
        rgb: the photograph in its view.
        part: where the view shows the part.
        xyz: points in metres.
        normals: those of a scan that came without points.
        object_points: those of the part.
        valid: the pixels that carry a measurement.
    """
    found = Sight()
    if rgb is not None and part.any():
        inside = erode(part, _EDGE)  # its edge is blended with black
        counted = inside if inside.any() else part
        grey = rgb[counted].mean(axis=-1, dtype=np.float64)
        found = found._replace(brightness=float(grey.mean()), contrast=float(grey.std()))
    if xyz is None and normals is not None:
        found = found._replace(measured=float(valid.mean()))
    if xyz is not None:
        step = max(1, math.isqrt(valid.size // _TELL))
        some = xyz[::step, ::step]
        there = valid[::step, ::step] & np.isfinite(some).all(axis=-1)
        found = found._replace(measured=float(there.mean()))
        points = some[there & object_points[::step, ::step]]
        if len(points):
            low, high = np.percentile(points, (1, 99), axis=0)
            found = found._replace(size=float(np.linalg.norm(high - low)))
    return found


class SightLimits(NamedTuple):
    """The least and the most that shots show, of each number of `Sight`; None where unknown."""

    brightness: tuple[float, float] | None = None
    contrast: tuple[float, float] | None = None
    measured: tuple[float, float] | None = None
    size: tuple[float, float] | None = None

    def problem(self, sight: Sight) -> str:
        """Why a scan that shows this cannot be judged; "" where it can."""
        for name, (words, bounds) in _QUANTITIES.items():
            value, seen = getattr(sight, name), getattr(self, name)
            if value is None or seen is None:
                continue
            low, high = bounds(*seen)
            if not low <= value <= high:
                unlike = f"that of the shots is {seen[0]:.3g} to {seen[1]:.3g}"
                return f"{words[value > high]}: {name} {value:.3g}, {unlike}"
        return ""

    def check(self, key: str, sight: Sight) -> None:
        """Refuse to judge a scan that is far from all shots.

        Raises:
            NotJudgedError: with the reason.
        """
        if problem := self.problem(sight):
            raise NotJudgedError(f"{key or 'the scan'} is not judged: {problem}", _MEND)


_QUANTITIES = {
    "brightness": (
        ("the photograph is dark", "the photograph is bright"),
        lambda low, high: (DARKER * low, 1 - DARKER * (1 - high)),
    ),
    "contrast": (
        ("the photograph shows next to nothing", ""),
        lambda low, high: (FLATTER * low, math.inf),
    ),
    "measured": (
        ("few points were measured", ""),
        lambda low, high: (EMPTIER * low, math.inf),
    ),
    "size": (
        ("what was found is far smaller than the part", "what was found is far larger"),
        lambda low, high: (SMALLER * low, LARGER * high),
    ),
}


def learn_sight(sights: Sequence[Sight], keys: Sequence[str]) -> SightLimits:
    """The limits that shots give; one that is far from what the others show is named.

    Args:
        sights: of the shots.
        keys: theirs.

    Raises:
        NotJudgedError: one of them is a single colour.
    """
    for key, sight in zip(keys, sights, strict=True):
        if sight.contrast == 0:
            raise NotJudgedError(
                f"{key or 'a shot'}: the photograph is a single colour", "leave that scan out"
            )
    for place, (key, sight) in enumerate(zip(keys, sights, strict=True)):
        others = [*sights[:place], *sights[place + 1 :]]
        if problem := _limits(others, np.median, np.median).problem(sight):
            _log.warning(
                "%s is unlike the other shots, and widens what is judged: %s; leave that scan out "
                "unless good parts may look so",
                key or "a shot",
                problem,
            )
    return _limits(sights)


def _limits(
    sights: Sequence[Sight],
    least: Callable[[list[float]], Any] = min,
    most: Callable[[list[float]], Any] = max,
) -> SightLimits:
    """The least and the most of every number that is known of some."""
    limits = {}
    for name in Sight._fields:
        known = [value for sight in sights if (value := getattr(sight, name)) is not None]
        if known:
            limits[name] = (float(least(known)), float(most(known)))
    return SightLimits(**limits)


def read_sight(document: Any) -> SightLimits | None:
    """Limits from a file's fields, none of which is believed.

    Raises:
        BadInputError: not what was written.
    """
    if document is None:
        return None
    values: dict[str, tuple[float, float] | None] = {}
    for name in SightLimits._fields:
        pair: Any = document.get(name) if isinstance(document, Mapping) else ()
        if pair is not None:
            numbers = isinstance(pair, list) and [type(value) for value in pair] == [float] * 2
            if not numbers or not 0 <= pair[0] <= pair[1] < math.inf:
                raise BadInputError(f"sight: expected {name} as two numbers, got {pair!r:.80}")
            pair = (pair[0], pair[1])
        values[name] = pair
    return SightLimits(**values)
