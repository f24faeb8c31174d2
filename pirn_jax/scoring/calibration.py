"""A threshold from normal scans alone, and what it can promise.

The threshold t is an order statistic: the k-th largest score of n normal scans the model has not
been trained on, and a scan is called defective where its score is > t. If those n scans and the
next normal one are exchangeable (the same part, camera, light and process, in no particular order),
then, whatever the scores' distribution,

* the chance of a false alarm is k / (n + 1) on average over calibrations (less with ties);
* with 95 % confidence the rate of this very threshold is at most beta.ppf(0.95, k, n + 1 - k).

n = 5 promises 17 % on average and 45 % with confidence, n = 10 9 % and 26 %; a confident 1 % takes
299 scans. Nothing is promised once parts, camera or light have changed, and nothing about misses.
Scores of leave-one-out models stand in where no scan can be spared; their promise is approximate.

One threshold rules label and mask: a scan is called defective exactly when its mask is not empty.

Source: split conformal prediction (Vovk et al. 2005; Angelopoulos & Bates 2023, sec. 3.2 for the
Beta distribution of the conditional rate).
Differs from the paper: PIRN reports ranking metrics only and sets no threshold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import ArrayLike
from scipy import stats

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics.pixel import label_regions

CONFIDENCE = 0.95


class Calibration(NamedTuple):
    """A threshold and where it came from; plain numbers, so `_asdict()` is JSON.

    Attributes:
        threshold: scores > it are called defective.
        spread: threshold minus the median normal score (> 0): the unit of normalised scores.
        scans: n, normal scans it was set with.
        rank: k, the threshold is the k-th largest of their scores.
        wanted_rate: the false-alarm rate asked for.
        mean_rate: k / (n + 1), the rate promised on average.
        rate_bound: the rate not exceeded with 95 % confidence.
        leave_one_out: the scores came from models trained without the scan; approximate.
        minimum_area: smallest region that counts, in `area_unit`; 0: any pixel.
        area_unit: "pixels" or "mm2".
    """

    threshold: float
    spread: float
    scans: int
    rank: int
    wanted_rate: float
    mean_rate: float
    rate_bound: float
    leave_one_out: bool = False
    minimum_area: float = 0.0
    area_unit: str = "pixels"

    @property
    def kept(self) -> bool:
        """Whether n scans suffice for the rate asked for (on average)."""
        return self.mean_rate <= self.wanted_rate

    def statement(self) -> str:
        """What this calibration promises, for people."""
        lines = [
            f"threshold {self.threshold:.6g}: the {_ordinal(self.rank)}largest score of "
            f"{self.scans} normal scans",
            f"false alarms on new normal scans: {self.mean_rate:.1%} on average, at most "
            f"{self.rate_bound:.1%} with {CONFIDENCE:.0%} confidence",
        ]
        if not self.kept:
            lines.append(
                f"{self.wanted_rate:.1%} was asked for: that takes "
                f"{scans_needed(self.wanted_rate)} scans"
            )
        if self.leave_one_out:
            lines.append("approximate: the scores are of models that left one scan out each")
        if self.minimum_area > 0:
            unit = "mm²" if self.area_unit == "mm2" else self.area_unit
            lines.append(f"regions smaller than {self.minimum_area:g} {unit} do not count")
        lines.append("holds for the same part, camera and light; says nothing about misses")
        return "\n".join(lines)


def calibrate(
    scores: ArrayLike,
    wanted_rate: float = 0.05,
    *,
    leave_one_out: bool = False,
    minimum_area: float = 0.0,
    area_unit: str = "pixels",
) -> Calibration:
    """Set the threshold from the scores of normal scans the model was not trained on.

    Args:
        scores: one per normal scan, by the same rule as at prediction (`region_score` with a
            minimum area).
        wanted_rate: false-alarm rate asked for, in (0, 1). Where n scans cannot promise it on
            average, the largest score is the threshold and `kept` is False.
        leave_one_out: the scores came from leave-one-out models; the promise is approximate.
        minimum_area: recorded, and used by `decide`.
        area_unit: "pixels" or "mm2".

    Raises:
        BadInputError: no score, or scores that are not finite.
        ConfigError: for options out of range.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise BadInputError(
            f"calibration takes a list of normal scans' scores, got shape {values.shape}",
            "hold back normal scans, or score the shots by leave-one-out",
        )
    if not np.isfinite(values).all():
        raise BadInputError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} scores are not finite"
        )
    if not 0.0 < wanted_rate < 1.0:
        raise ConfigError(f"wanted_rate must lie between 0 and 1, got {wanted_rate}", "e.g. 0.05")
    if not (math.isfinite(minimum_area) and minimum_area >= 0):
        raise ConfigError(f"minimum_area must be >= 0, got {minimum_area}")
    if area_unit not in ("pixels", "mm2"):
        raise ConfigError(f"area_unit must be 'pixels' or 'mm2', got {area_unit!r}")
    count = len(values)
    # The smallest slack forgives 0.05 * 20 = 1.0000000000000002 and the like.
    rank = min(count, max(1, math.floor(wanted_rate * (count + 1) * (1 + 1e-12))))
    threshold = float(np.sort(values)[count - rank])
    spread = threshold - float(np.median(values))
    if spread <= 0:  # one scan, equal scores, or a rate above one half
        spread = abs(threshold) or 1.0
    return Calibration(
        threshold,
        spread,
        count,
        rank,
        wanted_rate,
        mean_rate=rank / (count + 1),
        rate_bound=rate_bound(count, rank),
        leave_one_out=leave_one_out,
        minimum_area=float(minimum_area),
        area_unit=area_unit,
    )


def rate_bound(scans: int, rank: int = 1, confidence: float = CONFIDENCE) -> float:
    """The false-alarm rate not exceeded, with this confidence, by the k-th largest of n scores."""
    return float(stats.beta.ppf(confidence, rank, scans + 1 - rank))


def scans_needed(rate: float, confidence: float | None = None) -> int:
    """Fewest normal scans that promise a rate: on average, or with a confidence.

    Args:
        rate: false-alarm rate, in (0, 1).
        confidence: e.g. 0.95; None: on average.
    """
    if confidence is None:
        return max(1, math.ceil(1 / rate * (1 - 1e-12)) - 1)
    return max(1, math.ceil(math.log1p(-confidence) / math.log1p(-rate) * (1 - 1e-12)))


def normalise(scores: ArrayLike | float, calibration: Calibration) -> Float[np.ndarray, ...]:
    """Scores on a common scale: in (0, 1), 0.5 at the threshold, > 0.5 exactly where defective.

    With d = (score - threshold) / spread it is (1 + d / (1 + |d|)) / 2: strictly increasing, so all
    ranking metrics stay; 0.25 is the median normal scan, 0.75 lies as far above the threshold as
    that lies below. It is not a probability. Maps may be normalised as well as scores.

    Args:
        scores: of any shape.
        calibration: from `calibrate`.
    """
    values = np.asarray(scores, dtype=np.float64)
    distance = (values - calibration.threshold) / calibration.spread
    result = 0.5 + 0.5 * distance / (1.0 + np.abs(distance))
    over = values > calibration.threshold  # rounding must not move a score across 0.5
    return np.where(over, np.maximum(result, np.nextafter(0.5, 1.0)), np.minimum(result, 0.5))


class Decision(NamedTuple):
    """What one threshold says of one scan.

    Attributes:
        score: the scan's score, by the calibration's rule.
        label: 1 exactly when the mask holds a pixel.
        mask: pixels called defective.
    """

    score: float
    label: int
    mask: Bool[np.ndarray, "H W"]


def decide(
    anomaly_map: Float[np.ndarray, "H W"],
    calibration: Calibration,
    *,
    score: float | np.floating | None = None,
    areas: Float[np.ndarray, "H W"] | None = None,
    valid: Bool[np.ndarray, "H W"] | None = None,
) -> Decision:
    """Score, label and mask of a scan from its map, which cannot contradict each other.

    Without `score`, the score is `region_score` of this map: the largest value, or with a minimum
    area the largest threshold a region of that area survives. A score from elsewhere (the model's
    grid, the mean of the top 1 %) sets the label; the mask is then emptied where the label is 0,
    and where it is 1 but no pixel of this map passes, the map's largest pixel is marked.

    Args:
        anomaly_map: at the size the mask is wanted in.
        calibration: set with scores of the same rule.
        score: the scan's score where it is not this map's.
        areas: area of each pixel in mm² (`regions.pixel_areas`), for a minimum area in mm².
        valid: pixels that count.

    Raises:
        BadInputError: for a map that is not finite, or has no valid pixel, or a part smaller than
            the minimum area.
        ConfigError: for a minimum area in mm² without areas, or a minimum area beside a `score`
            from elsewhere, which would follow another rule.
    """
    minimum = calibration.minimum_area
    if score is not None and minimum > 0:
        raise ConfigError(
            "a minimum area needs the score of regions, not one from elsewhere",
            "leave out score, or calibrate without a minimum area",
        )
    if calibration.area_unit == "mm2" and minimum > 0 and areas is None:
        raise ConfigError(
            f"a minimum area of {minimum:g} mm² needs the area of each pixel",
            "pass areas=pixel_areas(xyz), or give the minimum area in pixels",
        )
    if calibration.area_unit == "pixels":
        areas = None
    if score is None:
        score = region_score(anomaly_map, minimum, areas=areas, valid=valid)
    score = float(score)
    label = int(score > calibration.threshold)
    mask = _above(anomaly_map, calibration.threshold, valid)
    if label == 0:
        return Decision(score, 0, np.zeros_like(mask))
    if minimum > 0:
        mask = _large_enough(mask, minimum, areas)
    if not mask.any():
        counted = anomaly_map if valid is None else np.where(valid, anomaly_map, -np.inf)
        mask.reshape(-1)[np.argmax(counted)] = True
    return Decision(score, 1, mask)


def region_score(
    anomaly_map: Float[np.ndarray, "H W"],
    minimum_area: float = 0.0,
    *,
    areas: Float[np.ndarray, "H W"] | None = None,
    valid: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """The score of a scan: the largest threshold at which a region of the minimum area is left.

    A region is an 8-connected component of the pixels with at least that value. Without a minimum
    area that is the map's largest value. `score > t` holds exactly when a region of that area lies
    above t, so that one threshold rules label and mask.

    Args:
        anomaly_map: finite.
        minimum_area: in pixels, or in the unit of `areas`.
        areas: area of each pixel, >= 0; 1 each by default.
        valid: pixels that count.

    Raises:
        BadInputError: as for `decide`.
    """
    counted = anomaly_map.reshape(-1) if valid is None else anomaly_map[valid]
    if len(counted) == 0:
        raise BadInputError("no valid pixel to score", "check the background mask")
    if not np.isfinite(counted).all():
        raise BadInputError("the anomaly map holds NaN or infinite values", "mend the detector")
    if minimum_area <= 0:
        return float(counted.max())
    values = np.unique(counted)

    def survives(value: np.floating) -> bool:
        mask = anomaly_map >= value
        mask = mask if valid is None else mask & valid
        return bool(_large_enough(mask, minimum_area, areas).any())

    if not survives(values[0]):
        raise BadInputError(
            f"no connected part of the scan is as large as the minimum area of {minimum_area:g}",
            "lower the minimum area, or check the background mask",
        )
    low, high = 0, len(values)  # values[low] survives, values[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if survives(values[middle]) else (low, middle)
    return float(values[low])


def _above(
    anomaly_map: Shaped[np.ndarray, "H W"],
    threshold: float,
    valid: Bool[np.ndarray, "H W"] | None,
) -> Bool[np.ndarray, "H W"]:
    # In float64: numpy would round the threshold to a float32 map's type.
    mask = anomaly_map.astype(np.float64) > threshold
    return mask if valid is None else mask & valid


def _large_enough(
    mask: Bool[np.ndarray, "H W"], minimum: float, areas: Float[np.ndarray, "H W"] | None
) -> Bool[np.ndarray, "H W"]:
    """The mask without its regions below the minimum area."""
    labels = label_regions(mask)
    size = np.bincount(labels.reshape(-1), None if areas is None else areas.reshape(-1))
    keep = size >= minimum
    keep[0] = False
    return keep[labels]


def _ordinal(rank: int) -> str:
    if rank == 1:
        return ""
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending} "
