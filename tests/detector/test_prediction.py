"""What is said of a scan in its own pixels, of maps at hand."""

import numpy as np
import pytest

from pirn_jax.detector.judging import Judging
from pirn_jax.detector.prediction import postprocess
from pirn_jax.detector.result import Inferred, ScanResult
from pirn_jax.geometry.views import Frame, Views
from pirn_jax.geometry.zones import Zone, Zones
from pirn_jax.scans import Scan
from pirn_jax.scoring import fix_threshold
from pirn_jax.scoring.rules import Rules

SIDE, BOTH, THRESHOLD = 8, ("rgb", "normals"), fix_threshold(5.3)


def result(table: int) -> ScanResult:
    """A part with a defect of 2 by 2 pixels, and so many pixels of table around it."""
    size = (SIDE + 2 * table,) * 2
    maps = np.empty((2, SIDE, SIDE), np.float32)
    maps[0], maps[1] = 0.1, 5.0
    maps[:, 2:4, 2:4] += np.float32([0.3, 0.1])[:, None, None]
    frame = Frame(size, -table, -table, (SIDE, SIDE), (SIDE, SIDE))
    views = Views(None, None, np.ones((SIDE, SIDE), bool), None, None, frame)
    scan = Scan(np.zeros((*size, 3), np.uint8), None, np.ones(size, bool))
    return ScanResult(scan, views, Inferred(5.5, maps.sum(0), maps, None))


@pytest.mark.parametrize("table", [0, 20])
def test_which_modality_spoke_does_not_depend_on_the_table_around_the_part(table):
    found = result(table)
    prediction = postprocess(found, BOTH, THRESHOLD)
    assert prediction.usual == pytest.approx({"rgb": 0.1, "normals": 5.0})
    by_rules = Judging(Rules(part=5.3)).verdict(found.scan, prediction, THRESHOLD, _valid)
    (region,), (judged,) = prediction.regions, by_rules.regions
    assert region.shares == pytest.approx({"rgb": 0.75, "normals": 0.25}, rel=1e-4)
    assert judged.region.shares == region.shares


def test_without_rules_a_region_has_its_zones_too():
    found = result(0)
    place = np.zeros((SIDE, SIDE), bool)
    place[3, 3] = True
    zones = Zones({"seal": Zone(place, True), "rim": Zone(np.zeros_like(place), True)})
    prediction = postprocess(found, BOTH, THRESHOLD)
    verdict = Judging(None, zones).verdict(found.scan, prediction, THRESHOLD, _valid)
    (judged,) = verdict.regions
    assert (judged.zones, judged.severity, judged.counts) == (("seal",), 1.0, True)


def _valid(scan):
    return scan.valid
