"""The one evaluator: truth and maps of many scans, gathered one by one; then the metrics.

Maps are kept at the model's size and compared in each scan's own pixels.

Dimension letters: M modalities, H W scan pixels, h w model pixels, K prototypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.detector.result import Inferred
from pirn_jax.geometry import Views
from pirn_jax.geometry.views import Frame
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.scans import Scan

Curves = dict[str, dict[str, list[float]]]
"""Points of the "roc" and "pro" curves."""


class Truth(NamedTuple):
    """What is known of a scan, without its pictures.

    Attributes:
        key: of the scan within its category.
        label: 0 good, 1 defective, None unknown.
        defect: its name, "good", or "".
        mask: True on defects; None where no truth is known. All False for a good scan.
        ignore: True where nothing may be scored; None if nowhere.
        frame: from the model's pixels back to the scan's.
    """

    key: str
    label: int | None
    defect: str
    mask: Bool[np.ndarray, "H W"] | None
    ignore: Bool[np.ndarray, "H W"] | None
    frame: Frame

    @classmethod
    def of(cls, scan: Scan, views: Views) -> Truth:
        """The one rule for truth masks: any value above 0 is a defect; a good scan has none."""
        mask = None if scan.mask is None else scan.mask > 0
        if mask is None and scan.label == 0:
            mask = np.zeros(scan.valid.shape, bool)
        return cls(scan.key, scan.label, scan.defect, mask, scan.ignore, views.frame)


class Evaluator:
    """Gathers scans, and measures.

    Args:
        threshold: of the image score; None: without.
    """

    def __init__(self, threshold: float | None = None):
        self.threshold = threshold
        self.truths: list[Truth] = []
        self.scores: list[float] = []
        self._maps: list[Float32[np.ndarray, "h w"]] = []

    def add(self, truth: Truth, inferred: Inferred) -> None:
        """Take in one scan."""
        self.truths.append(truth)
        self.scores.append(inferred.score)
        self._maps.append(inferred.fused)

    def figures(
        self,
        curves: int = 0,
        *,
        protocol: Literal["exact", "cfm99"] = "exact",
        maps: Sequence[Float32[np.ndarray, "h w"]] | None = None,
    ) -> tuple[dict[str, float], Curves]:
        """The metrics that are defined, and points of the ROC and PRO curves.

        Of good scans alone the rate of false alarms is defined where there is a threshold, of
        defective ones the recall. Those of pixels are of the scans whose mask is known.

        Args:
            curves: how many points; 0: none.
            protocol: of pixel metrics, as for `evaluate_maps`.
            maps: in place of the fused ones, such as those of one modality; scores are then their
                largest values, and the threshold is left out.
        """
        known_maps = self._maps if maps is None else list(maps)
        scores = self.scores if maps is None else [float(one.max()) for one in known_maps]
        found: dict[str, float] = {"scans": float(len(scores))}
        known = [(s, t.label) for s, t in zip(scores, self.truths, strict=True)]
        known = [(score, label) for score, label in known if label in (0, 1)]
        found["defective"] = float(sum(label == 1 for _, label in known))
        threshold = self.threshold if maps is None else None
        if 0 < found["defective"] < len(known):
            values, labels = (np.asarray(column) for column in zip(*known, strict=True))
            found |= image_metrics(values, labels, threshold=threshold)
        elif known and threshold is not None:  # of one kind alone no ranking, but this is known
            rate = "i_recall" if found["defective"] else "i_false_alarm_rate"
            found[rate] = sum(score > threshold for score, _ in known) / len(known)
        drawn: Curves = {}
        places = [place for place, truth in enumerate(self.truths) if truth.mask is not None]
        truths = [self.truths[place] for place in places]
        masks = [truth.mask for truth in truths if truth.mask is not None]
        if _hold_both_kinds(truths):
            pixels = evaluate_maps(
                _AtScanSize([known_maps[place] for place in places], truths),
                masks,
                ignore=[truth.ignore for truth in truths],
                curves=curves,
                protocol=protocol,
            )
            drawn = {name: pixels.pop(name) for name in ("roc", "pro") if name in pixels}
            found |= pixels
        return {name: float(value) for name, value in found.items()}, drawn


def _hold_both_kinds(truths: Sequence[Truth]) -> bool:
    """Whether there is a defective and a good pixel among those that are not ignored."""
    defective = good = False
    for truth in truths:
        assert truth.mask is not None
        counted = truth.mask if truth.ignore is None else truth.mask[~truth.ignore]
        defective, good = defective or bool(counted.any()), good or not counted.all()
    return defective and good


class _AtScanSize:
    """Maps at the model's size, seen at their scans' size; can be walked through again."""

    def __init__(self, maps: Sequence[Float32[np.ndarray, "h w"]], truths: Sequence[Truth]):
        self.names = [truth.key for truth in truths]
        self._maps, self._truths = maps, truths

    def __iter__(self) -> Iterator[Float32[np.ndarray, "H W"]]:
        pairs = zip(self._maps, self._truths, strict=True)
        return (truth.frame.to_scan(one) for one, truth in pairs)
