"""From a prediction to a verdict: zones laid on the scan before it is judged, rules after.

Shared with the runtime: numpy, and no JAX.

Dimension letters: H W scan pixels.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from pirn_jax.detector.prediction import Prediction
from pirn_jax.errors import ConfigError
from pirn_jax.geometry.prepared import PreparedCache, Settings, prepare_scan
from pirn_jax.geometry.showing import Looking
from pirn_jax.geometry.zones import Zones, read_zones
from pirn_jax.scans import File, Limits, Scan
from pirn_jax.scans.formats.files import decoding, read_bytes
from pirn_jax.scoring import Calibration
from pirn_jax.scoring.rules import (
    PART_RULE,
    Rules,
    Verdict,
    apply_rules,
    judge_regions,
    parse_rules,
)

FindPart = Callable[[Scan], Bool[np.ndarray, "H W"]]
"""The pixels of a scan that show the part."""
NO_THRESHOLD = "no threshold"
"""What decides nothing: a model that was not calibrated, and no rules."""
_LARGEST = 1 << 20  # bytes of a file of rules


class Judging(NamedTuple):
    """What is judged of a scan, and by which rules.

    Attributes:
        rules: None: the model's threshold alone.
        zones: of the view; None: the whole of it.
    """

    rules: Rules | None = None
    zones: Zones | None = None

    def check(self, looking: Looking, calibrated: bool = True) -> None:
        """Refuse rules and zones that do not fit a model.

        Args:
            looking: of the model.
            calibrated: it has a threshold.

        Raises:
            ConfigError: an unknown zone or modality, no threshold in rules and model, or zones that
                move with a part which is not told from its background.
        """
        if self.rules is not None:
            zones = {} if self.zones is None else self.zones.named
            named = [name for name, zone in zones.items() if zone.judged]
            self.rules.check_names(named, looking.modalities)
            if not calibrated and None in (self.rules.part, self.rules.pixel):
                raise ConfigError(
                    "neither the rules nor the model say above which score a part is not OK",
                    "give both thresholds in the rules, or calibrate the model",
                )
        moves = self.zones is not None and self.zones.part is not None
        if moves and looking.settings.background == "none":
            raise ConfigError(
                "the zones move with the part, which this model does not tell from its background",
                "leave `part` out of the file of zones",
            )

    def lay_on(self, scan: Scan, find_part: FindPart) -> Scan:
        """The scan with what is not to be judged of it left out.

        Args:
            scan: as it was read.
            find_part: says where the part is, for zones that move with it.

        Raises:
            BadInputError: the zones were drawn on scans of another size.
        """
        if self.zones is None:
            return scan
        ignored = self._place(scan, find_part).not_judged
        if scan.ignore is not None:
            ignored = ignored | scan.ignore
        return scan._replace(ignore=ignored)

    def verdict(
        self,
        scan: Scan,
        prediction: Prediction,
        calibration: Calibration | None,
        find_part: FindPart,
    ) -> Verdict:
        """What is said of a scan, by the rules, or without any by the model's threshold.

        Args:
            scan: as `lay_on` left it.
            prediction: of it.
            calibration: of the model.
            find_part: as for `lay_on`.
        """
        threshold = None if calibration is None else calibration.threshold
        zones = self._judged_zones(scan, find_part)
        if self.rules is None:
            rule = NO_THRESHOLD if calibration is None else PART_RULE
            mask, regions = prediction.pred_mask, []
            if mask is not None:
                regions = judge_regions(Rules(), prediction.regions, mask, zones)
            return Verdict(prediction.pred_label, rule, threshold, mask, regions)
        return apply_rules(
            self.rules,
            prediction.anomaly_map,
            score=prediction.pred_score,
            threshold=threshold,
            modalities=prediction.maps,
            usual=prediction.usual,
            xyz=scan.xyz,
            valid=scan.valid,
            ignore=scan.ignore,
            zones=zones,
        )

    def _judged_zones(self, scan: Scan, find_part: FindPart) -> dict[str, Bool[np.ndarray, "H W"]]:
        if self.zones is None or not any(zone.judged for zone in self.zones.named.values()):
            return {}
        placed = self._place(scan, find_part)
        return {name: zone.pixels for name, zone in placed.named.items() if zone.judged}

    def _place(self, scan: Scan, find_part: FindPart) -> Zones:
        assert self.zones is not None
        return self.zones.place(scan.valid if self.zones.part is None else find_part(scan))


def part_finder(looking: Looking, prepared: PreparedCache | None = None) -> FindPart:
    """What finds the part in scans as a detector that looks so does.

    Args:
        looking: of the detector.
        prepared: object masks at hand.
    """
    cache = PreparedCache(None) if prepared is None else prepared
    return functools.partial(_find_part, settings=looking.settings, prepared=cache)


def _find_part(scan: Scan, settings: Settings, prepared: PreparedCache) -> Bool[np.ndarray, "H W"]:
    known = prepared.read(scan, settings) or prepare_scan(scan, settings, normals=False)
    return known.object


def read_judging(rules: Path | None, zones: Path | None, limits: Limits) -> Judging:
    """What a file of rules and one of zones say; either may be left out.

    Raises:
        BadInputError: a file cannot be read.
        ConfigError: it says something else than is understood.
    """
    found = None
    if rules is not None:
        with decoding(rules, "TOML document", "see docs/serving.md for what it may hold"):
            document = tomllib.loads(read_bytes(File(rules), limits, _LARGEST).decode())
        try:
            found = parse_rules(document)
        except ConfigError as error:
            raise ConfigError(error.problem, error.remedy, rules) from error
    return Judging(found, None if zones is None else read_zones(zones, limits))
