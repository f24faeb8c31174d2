"""Rules: what an inspector calls not OK, said in millimetres, changeable without training again.

    [threshold]                # without it both are the model's own
    part = 6.2                 # a part is looked at where its score is above this
    pixel = 5.0                # and pixels above this make its regions
    [least]                    # a region below either does not count
    area_mm2 = 0.3
    length_mm = 0.5
    [severity.zones]           # names from the file of zones; 1 where nothing is said
    sealing_face = 3.0
    [severity.modalities]
    normals = 2.0
    [[not_ok]]                 # the first that holds decides; without any: one region that counts
    name = "scratch longer than 5 mm"
    length_mm = 5.0            # all of one table must hold, of `count` regions or more
    [[not_ok]]
    name = "dent on the sealing face"
    zone = "sealing_face"
    modality = "normals"
    depth_mm = 0.2
    severity = 4.0

A region's severity is its zone's, the largest where it touches several, times the mean of its
modalities', each weighed by its share of the region's excess. Nothing excuses what could not be
measured: a size that is not known counts as large enough; nor is a depth known where less than half
of the region was measured, as of a pit whose bottom returns nothing its rim is measured alone.

Differs from the paper: PIRN stops at the anomaly map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pirn_jax.errors import ConfigError, check_name
from pirn_jax.pixels import label as number_parts
from pirn_jax.scoring.regions import Region, find_regions

PART_RULE = "part threshold"
"""Decides where a part's score is not above it; and where it is, unless a rule file says more."""
SIZE_RULE = "least size"
"""Decides for OK where no region counts."""
NO_RULE = "no rule holds"
"""Decides for OK where regions count and the file's `not_ok` hold of none."""

LEAST_MEASURED = 0.5
"""Of a region with a smaller `measured_share` the depth is not known."""
_LARGEST = 1e9  # of a number in a file


@dataclass(frozen=True)
class NotOk:
    """When a part is not OK: `count` regions that count meet everything that is said.

    Attributes:
        name: what the verdict calls it.
        zone: the region touches it.
        modality: the one with the largest share of the region's excess.
        area_mm2: at least so large.
        length_mm: at least so long.
        depth_mm: at least so far from the surface around it, in either direction; or not known.
        severity: at least so severe.
        score: the part's score is above this; without it above the threshold of parts.
        count: so many regions.
    """

    name: str
    zone: str | None = None
    modality: str | None = None
    area_mm2: float = 0.0
    length_mm: float = 0.0
    depth_mm: float = 0.0
    severity: float = 0.0
    score: float | None = None
    count: int = 1


@dataclass(frozen=True)
class Rules:
    """A file of rules.

    Attributes:
        part: threshold of scores; None: the model's.
        pixel: threshold of pixels; None: the model's.
        least_area_mm2: regions smaller than this do not count.
        least_length_mm: nor do shorter ones.
        zones: their severities.
        modalities: theirs.
        not_ok: the first that holds decides.
    """

    part: float | None = None
    pixel: float | None = None
    least_area_mm2: float = 0.0
    least_length_mm: float = 0.0
    zones: Mapping[str, float] = field(default_factory=dict)
    modalities: Mapping[str, float] = field(default_factory=dict)
    not_ok: tuple[NotOk, ...] = ()

    def check_names(self, zones: Iterable[str], modalities: Iterable[str]) -> None:
        """Refuse a zone or modality that there is not.

        Raises:
            ConfigError: naming those there are.
        """
        for what, known, named in (
            ("zone", tuple(zones), [*self.zones, *(rule.zone for rule in self.not_ok)]),
            ("modality", tuple(modalities), [*self.modalities, *(r.modality for r in self.not_ok)]),
        ):
            for name in filter(None, named):
                if not known:
                    raise ConfigError(f"the rules name the {what} {name!r}, and there are none")
                check_name(f"{what} in the rules", name, known)


class JudgedRegion(NamedTuple):
    """A region, and what the rules make of it.

    Attributes:
        region: as measured.
        zones: that it touches.
        severity: of its zone and modalities.
        counts: it is not below the least size.
    """

    region: Region
    zones: tuple[str, ...]
    severity: float
    counts: bool

    def document(self) -> dict[str, Any]:
        """Its fields in one JSON object."""
        said = {"zones": self.zones, "severity": self.severity, "counts": self.counts}
        return {**self.region._asdict(), **said}


class Verdict(NamedTuple):
    """What is said of a part.

    Attributes:
        label: 1 not OK, 0 OK; exactly where the mask holds a pixel or none. None without any
            threshold.
        rule: what decided.
        threshold: of scores, that was used.
        mask: pixels of the regions that count, where the part is not OK.
        regions: of all pixels above the threshold, the highest peak first.
    """

    label: int | None
    rule: str
    threshold: float | None
    mask: Bool[np.ndarray, "H W"] | None
    regions: list[JudgedRegion]


def apply_rules(
    rules: Rules,
    anomaly_map: Float[np.ndarray, "H W"],
    *,
    score: float,
    threshold: float | None,
    modalities: Mapping[str, Float[np.ndarray, "H W"]],
    usual: Mapping[str, float] | None = None,
    xyz: Float[np.ndarray, "H W 3"] | None = None,
    valid: Bool[np.ndarray, "H W"] | None = None,
    ignore: Bool[np.ndarray, "H W"] | None = None,
    zones: Mapping[str, Bool[np.ndarray, "H W"]] | None = None,
) -> Verdict:
    """The verdict on one part.

    Args:
        rules: from `parse_rules`.
        anomaly_map: at the scan's size.
        score: the part's.
        threshold: the model's own; None for a model without.
        modalities: each one's own map.
        usual: as for `find_regions`.
        xyz: organised points in metres, for sizes in mm.
        valid: pixels that carry a measurement.
        ignore: pixels that are not judged.
        zones: their pixels, by name.

    Raises:
        ConfigError: neither rules nor model have a threshold.
    """
    part = threshold if rules.part is None else rules.part
    pixel = threshold if rules.pixel is None else rules.pixel
    if part is None or pixel is None:
        raise ConfigError(
            "neither the rules nor the model say above which score a part is not OK",
            "give both thresholds in the rules, or calibrate the model",
        )
    found = anomaly_map.astype(np.float64) > pixel  # in float64, as `decide` does
    found = found if ignore is None else found & ~ignore
    # A score stands in for the part's threshold: the least of both has a pixel to speak of.
    lowest = min([part, *(rule.score for rule in rules.not_ok if rule.score is not None)])
    if score > lowest and not found.any():
        counted = anomaly_map if ignore is None else np.where(ignore, -np.inf, anomaly_map)
        found.reshape(-1)[np.argmax(counted)] = True
    regions = find_regions(
        found, anomaly_map, modalities=modalities, usual=usual, xyz=xyz, valid=valid
    )
    judged = judge_regions(rules, regions, found, zones or {})
    label, rule = _decide(rules, judged, score, part)
    mask = np.zeros_like(found)
    if label:
        labels, _ = number_parts(found)
        counting = [labels[one.region.peak_pixel] for one in judged if one.counts]
        mask = np.isin(labels, counting)
    return Verdict(label, rule, part, mask, judged)


def judge_regions(
    rules: Rules,
    regions: Sequence[Region],
    mask: Bool[np.ndarray, "H W"],
    zones: Mapping[str, Bool[np.ndarray, "H W"]],
) -> list[JudgedRegion]:
    """What the rules make of each region by itself.

    Args:
        rules: those without a word make all severities 1, and all regions count.
        regions: of the mask.
        mask: what is called defective.
        zones: their pixels, by name.
    """
    return [_judged(region, rules, _touched(region, mask, zones)) for region in regions]


def _touched(
    region: Region,
    mask: Bool[np.ndarray, "H W"],
    zones: Mapping[str, Bool[np.ndarray, "H W"]],
) -> tuple[str, ...]:
    if not zones:
        return ()
    top, left, bottom, right = region.box
    window = slice(top, bottom), slice(left, right)
    labels, _ = number_parts(mask[window])  # others may reach into its box
    row, column = region.peak_pixel
    pixels = labels == labels[row - top, column - left]
    return tuple(name for name, zone in zones.items() if (zone[window] & pixels).any())


def _judged(region: Region, rules: Rules, touched: tuple[str, ...]) -> JudgedRegion:
    severity = max((rules.zones.get(name, 1.0) for name in touched), default=1.0)
    if rules.modalities and region.shares:
        severity *= sum(rules.modalities.get(n, 1.0) * part for n, part in region.shares.items())
    counts = _reaches(region.area_mm2, rules.least_area_mm2)
    counts &= _reaches(region.length_mm, rules.least_length_mm)
    return JudgedRegion(region, touched, severity, counts)


def _decide(
    rules: Rules, judged: Sequence[JudgedRegion], score: float, part: float
) -> tuple[int, str]:
    counting = [one for one in judged if one.counts]
    if not rules.not_ok:
        if score <= part:
            return 0, PART_RULE
        return (1, PART_RULE) if counting else (0, SIZE_RULE)
    asked = [(rule, part if rule.score is None else rule.score) for rule in rules.not_ok]
    open_rules = [rule for rule, above in asked if score > above]
    for rule in open_rules:
        if sum(_meets(one, rule) for one in counting) >= rule.count:
            return 1, rule.name
    if not open_rules:
        return 0, PART_RULE
    return 0, NO_RULE if counting else SIZE_RULE


def _meets(one: JudgedRegion, rule: NotOk) -> bool:
    region, shares = one.region, one.region.shares
    depth = None
    if region.deviation_mm is not None and region.measured_share >= LEAST_MEASURED:
        depth = abs(region.deviation_mm)
    return (
        (rule.zone is None or rule.zone in one.zones)
        and (rule.modality is None or rule.modality == max(shares, key=shares.__getitem__))
        and _reaches(region.area_mm2, rule.area_mm2)
        and _reaches(region.length_mm, rule.length_mm)
        and _reaches(depth, rule.depth_mm)
        and one.severity >= rule.severity
    )


def _reaches(size: float | None, least: float) -> bool:
    return size is None or size >= least


# --- from a file, none of which is believed -------------------------------------------------------


def parse_rules(document: Mapping[str, Any]) -> Rules:
    """Rules from a TOML document, as in the module's description.

    Raises:
        ConfigError: an unknown name, something of another kind, or a number out of range.
    """
    _check_names("the rules", document, ("threshold", "least", "severity", "not_ok"))
    threshold = _table("threshold", document.get("threshold", {}), ("part", "pixel"))
    least = _table("least", document.get("least", {}), ("area_mm2", "length_mm"))
    severity = _table("severity", document.get("severity", {}), ("zones", "modalities"))
    conditions = document.get("not_ok", [])
    if not isinstance(conditions, list):
        raise ConfigError("not_ok: expected tables", "write [[not_ok]], in double brackets")
    rules = tuple(_condition(place, one) for place, one in enumerate(conditions, 1))
    names = [rule.name for rule in rules]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two rules are called {doubled.pop()!r}", "give each its own name")
    return Rules(
        part=_number("threshold.part", threshold.get("part")),
        pixel=_number("threshold.pixel", threshold.get("pixel")),
        least_area_mm2=_number("least.area_mm2", least.get("area_mm2", 0.0), 0.0) or 0.0,
        least_length_mm=_number("least.length_mm", least.get("length_mm", 0.0), 0.0) or 0.0,
        zones=_severities("zones", severity.get("zones", {})),
        modalities=_severities("modalities", severity.get("modalities", {})),
        not_ok=rules,
    )


def _condition(place: int, given: object) -> NotOk:
    where = f"not_ok {place}"
    table = _table(where, given, [f.name for f in fields(NotOk)])
    if "name" not in table:
        raise ConfigError(f"{where}: no name", 'say what it is: name = "dent deeper than 0.2 mm"')
    values: dict[str, Any] = {}
    for name, value in table.items():
        said = f"{where}: {name}"
        if name in ("name", "zone", "modality"):
            if not isinstance(value, str) or not value.strip() or len(value) > 200:
                raise ConfigError(f"{said}: expected up to 200 letters, got {value!r:.80}")
            values[name] = value
        elif name == "count":
            if type(value) is not int or not 1 <= value <= _LARGEST:
                raise ConfigError(f"{said}: expected 1 or more, got {value!r:.80}")
            values[name] = value
        else:
            values[name] = _number(said, value, None if name == "score" else 0.0)
    return NotOk(**values)


def _severities(what: str, given: object) -> dict[str, float]:
    table = _table(f"severity.{what}", given, None)
    return {
        name: _number(f"severity.{what}.{name}", value, 0.0) or 0.0 for name, value in table.items()
    }


def _number(where: str, value: Any, least: float | None = None) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= _LARGEST:
        raise ConfigError(f"{where}: expected a number, got {value!r:.80}")
    if least is not None and value < least:
        raise ConfigError(f"{where}: expected {least:g} or more, got {value!r}")
    return float(value)


def _table(where: str, given: object, known: Sequence[str] | None) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a table, got {given!r:.80}", f"write [{where}]")
    if known is not None:
        _check_names(where, given, known)
    return given


def _check_names(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        check_name(where, name, known)
