"""New scans against what a model learned: has the camera or the light moved, is it another product?

Scans are found as `predict` finds them. Of each number of `pirn_jax.detector.reference` the median
over the scans is what is judged: a single odd part moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pirn_jax.detector import PIRN
from pirn_jax.detector.reference import SCORE, Seen
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.scans import Split
from pirn_jax.scans.datasets.judged import find_scans, options_of
from pirn_jax.scans.datasets.left_out import LeftOut
from pirn_jax.scans.formats.options import Reading

_MEANING = {
    SCORE: ("scores", "other parts, camera or light"),
    "tokens_rgb": ("look of the photograph", "light, focus, or another product"),
    "tokens_normals": ("look of the surface", "camera, sensor, or another product"),
    "tilt": ("tilt of the surface, degrees", "the camera or the part's holder is tilted"),
    "measured": ("share of pixels measured", "the sensor, its exposure, or what reflects"),
    "brightness": ("brightness of the part", "light or exposure"),
    "contrast": ("contrast of the part", "light, exposure or focus"),
    "size": ("size of the part, metres", "another product, or another unit"),
    "resolution": ("pixels a millimetre", "the camera's distance or lens"),
}


class Compared(NamedTuple):
    """One number of a folder's scans beside the model's own.

    Attributes:
        name: of the number, as in `pirn_jax.detector.reference`.
        what: the same in words.
        value: the median over the scans.
        limits: the interval of one further scan like those the model knows; None: it knows too few.
        outside: how many of the scans lie outside it.
        cause: what moves this number.
    """

    name: str
    what: str
    value: float
    limits: tuple[float, float] | None
    outside: int
    cause: str

    @property
    def moved(self) -> bool:
        """Whether the median lies outside the limits."""
        return self.limits is not None and not self.limits[0] <= self.value <= self.limits[1]


class Against(NamedTuple):
    """What was found.

    Attributes:
        scans: that were compared.
        compared: every number.
        left_out: files that belong to no scan.
    """

    scans: int
    compared: tuple[Compared, ...]
    left_out: tuple[LeftOut, ...]


def compare(
    model: PIRN,
    folder: Path,
    reading: Reading,
    failed: Callable[[str, PirnError], None],
) -> Against:
    """Good scans of today beside those a model was made with.

    Args:
        model: trained; it is not changed.
        folder: of scans, or one scan's files by name.
        reading: flags of how files are to be understood.
        failed: called with the key and the error of each scan that cannot be read.

    Raises:
        ConfigError: the model keeps no reference.
        BadInputError: no scan could be read.
    """
    if model.reference is None:
        raise ConfigError(
            "this model does not know what its shots looked like: an older version saved it",
            "train again, or python -m pirn_jax.train --add",
        )
    options, camera = options_of(model.origin, reading)
    modalities = model.config.modalities
    scans, left_out = find_scans([folder], {}, modalities, options, None, camera)
    unread: list[PirnError] = []

    def keep(key: str, error: PirnError) -> None:
        unread.append(error)
        failed(key, error)

    found = _numbers(model, scans, keep)
    if not found:
        first = unread[0].problem if unread else left_out[0].reason
        raise BadInputError(f"no scan could be read: {first}", "give scans as to predict", folder)
    scores = () if model.calibration is None else model.calibration.scores
    limits = model.reference.limits(scores)
    names = [name for name in _MEANING if any(name in numbers for numbers in found)]
    return Against(len(found), tuple(_compared(n, found, limits.get(n)) for n in names), left_out)


def _numbers(
    model: PIRN, scans: Split, failed: Callable[[str, PirnError], None]
) -> list[dict[str, float]]:
    assert model.reference is not None
    found, sight, config = [], model.sight, model.config
    model.sight = None  # what is too far off to be judged is just what is looked for
    try:
        for result in model.predict_scans(scans, failed=failed):
            seen = Seen.of(result.views, result.inferred.tokens, config.part_side)
            numbers = model.reference.numbers(seen, config.modalities)
            found.append({SCORE: result.inferred.score, **numbers})
    finally:
        model.sight = sight
    return found


def _compared(
    name: str, found: Sequence[Mapping[str, float]], limits: tuple[float, float] | None
) -> Compared:
    values = [numbers[name] for numbers in found if name in numbers]
    what, cause = _MEANING[name]
    outside = 0 if limits is None else sum(not limits[0] <= v <= limits[1] for v in values)
    return Compared(name, what, median(values), limits, outside, cause)
