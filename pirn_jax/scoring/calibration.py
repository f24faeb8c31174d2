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
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from pirn_jax.errors import BadInputError, ConfigError

CONFIDENCE = 0.95
_LARGEST = 1e30  # of a number in a file
_MOST_SCORES = 1_000_000


class Calibration(NamedTuple):
    """A threshold and where it came from; plain numbers, so `_asdict()` is JSON.

    Attributes:
        threshold: scores > it are called defective.
        spread: threshold minus the median normal score, or the threshold's absolute value where
            that is not above 0 or no score is known: the unit of normalised scores.
        scans: n, normal scans it was set with.
        rank: k, the threshold is the k-th largest of their scores.
        wanted_rate: the false-alarm rate asked for.
        mean_rate: k / (n + 1), the rate promised on average.
        rate_bound: the rate not exceeded with 95 % confidence.
        leave_one_out: the scores came from models trained without the scan; approximate.
        scores: of those scans, from the lowest up: what another threshold would do to them.
    """

    threshold: float
    spread: float
    scans: int
    rank: int
    wanted_rate: float
    mean_rate: float
    rate_bound: float
    leave_one_out: bool = False
    scores: tuple[float, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether n scans suffice for the rate asked for (on average)."""
        return self.mean_rate <= self.wanted_rate

    def label(self, score: float) -> int:
        """The one verdict: 1 for a score above the threshold, else 0; the score is finite."""
        return int(score > self.threshold)

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
        lines.append("holds for the same part, camera and light; says nothing about misses")
        return "\n".join(lines)


def calibrate(
    scores: ArrayLike, wanted_rate: float = 0.05, *, leave_one_out: bool = False
) -> Calibration:
    """Set the threshold from the scores of normal scans the model was not trained on.

    Args:
        scores: one per normal scan, by the same rule as at prediction.
        wanted_rate: false-alarm rate asked for, in (0, 1). Where n scans cannot promise it on
            average, the largest score is the threshold and `kept` is False.
        leave_one_out: the scores came from leave-one-out models; the promise is approximate.

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
    count = len(values)
    # The smallest slack forgives 0.05 * 20 = 1.0000000000000002 and the like.
    rank = min(count, max(1, math.floor(wanted_rate * (count + 1) * (1 + 1e-12))))
    threshold = float(np.sort(values)[count - rank])
    return Calibration(
        threshold,
        _spread(threshold, values),
        count,
        rank,
        wanted_rate,
        mean_rate=rank / (count + 1),
        rate_bound=rate_bound(count, rank),
        leave_one_out=leave_one_out,
        scores=tuple(np.sort(values).tolist()),
    )


def fix_threshold(threshold: float, known: Calibration | None = None) -> Calibration:
    """A threshold that somebody chose; it promises nothing about false alarms.

    Args:
        threshold: scores above it are called defective.
        known: the calibration in whose place it comes: its scores stay known.

    Raises:
        ConfigError: it is no finite number.
    """
    if not math.isfinite(threshold):
        raise ConfigError(f"threshold: expected a finite number, got {threshold}")
    scores = () if known is None else known.scores
    spread = _spread(threshold, np.asarray(scores, np.float64))
    return Calibration(threshold, spread, 0, 0, 1.0, 1.0, 1.0, scores=scores)


def _spread(threshold: float, scores: Float[np.ndarray, " n"]) -> float:
    spread = threshold - float(np.median(scores)) if len(scores) else 0.0
    if spread <= 0:  # no scan or one, equal scores, or a rate above one half
        spread = abs(threshold) or 1.0
    return spread


def read_calibration(document: Mapping[str, object]) -> Calibration:
    """A calibration from a file's fields, none of which is believed; others are passed over.

    Raises:
        BadInputError: naming the first field that is missing, of another kind, or out of range.
    """
    values: dict[str, Any] = {"scores": _read_scores(document.get("scores", ()))}
    for name, kind in get_type_hints(Calibration).items():
        if name == "scores":
            continue
        value: Any = document.get(name, Calibration._field_defaults.get(name))
        kinds = (int, float) if kind is float else (kind,)
        # True is no int here; NaN is not below anything.
        if type(value) not in kinds or not abs(value) < _LARGEST:
            raise BadInputError(f"{name}: expected a finite {kind.__name__}, got {value!r:.80}")
        values[name] = kind(value)
    found = Calibration(**values)
    rates = (found.wanted_rate, found.mean_rate, found.rate_bound)
    for name, fits in (
        ("spread", found.spread > 0),
        # A fixed threshold was set with no scans at all.
        ("rank", 1 <= found.rank <= found.scans or found.rank == found.scans == 0),
        ("rates", all(0 <= rate <= 1 for rate in rates)),
    ):
        if not fits:
            raise BadInputError(f"{name}: out of range in {found}")
    return found


def _read_scores(found: object) -> tuple[float, ...]:
    """The scores a file has, from the lowest up; none where an older version wrote it."""
    scores: Any = (
        found if isinstance(found, list | tuple) and len(found) <= _MOST_SCORES else (None,)
    )
    if not all(type(score) in (int, float) and abs(score) < _LARGEST for score in scores):
        raise BadInputError(f"scores: expected a list of finite numbers, got {found!r:.80}")
    return tuple(sorted(map(float, scores)))


def rate_bound(scans: int, rank: int = 1, confidence: float = CONFIDENCE) -> float:
    """The false-alarm rate not exceeded, with this confidence, by the k-th largest of n scores."""
    from scipy import stats  # for learning only

    return float(stats.beta.ppf(confidence, rank, scans + 1 - rank))


def scans_needed(rate: float) -> int:
    """Fewest normal scans that promise a false-alarm rate, in (0, 1), on average."""
    return max(1, math.ceil(1 / rate * (1 - 1e-12)) - 1)


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
        score: the scan's score, as it was given.
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
    score: float | np.floating,
    valid: Bool[np.ndarray, "H W"] | None = None,
) -> Decision:
    """Label and mask of a scan from its score and its map, which cannot contradict each other.

    The score sets the label. It need not be this map's largest value: it is taken on the model's
    grid, and may be the mean of the top 1 %. So the mask is emptied where the label is 0, and where
    it is 1 but no pixel of this map passes, the map's largest pixel is marked.

    Args:
        anomaly_map: at the size the mask is wanted in.
        calibration: set with scores of the same rule.
        score: the scan's.
        valid: pixels that count.

    Raises:
        BadInputError: for a score that is not finite, which no threshold can judge.
    """
    score = float(score)
    if not math.isfinite(score):
        raise BadInputError(
            f"the scan's score is {score}, expected a finite number", "mend the detector"
        )
    mask = anomaly_map > _just_below(calibration.threshold, anomaly_map.dtype)
    mask = mask if valid is None else mask & valid
    if not calibration.label(score):
        return Decision(score, 0, np.zeros_like(mask))
    if not mask.any():
        counted = anomaly_map if valid is None else np.where(valid, anomaly_map, -np.inf)
        mask.reshape(-1)[np.argmax(counted)] = True
    return Decision(score, 1, mask)


def _just_below(threshold: float, kind: np.dtype) -> np.floating:
    """The largest number of that type that is not above a threshold; the same values are above it.

    numpy would round the threshold, perhaps upwards past a value that is above it.
    """
    rounded = kind.type(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, kind.type(-np.inf))


def _ordinal(rank: int) -> str:
    if rank == 1:
        return ""
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending} "
