"""Rules on a plane of known millimetres: who decides, and what excuses nothing."""

import tomllib

import numpy as np
import pytest

from pirn_jax.errors import ConfigError
from pirn_jax.scoring.rules import (
    NO_RULE,
    PART_RULE,
    SIZE_RULE,
    NotOk,
    Rules,
    apply_rules,
    parse_rules,
)

SHAPE = (60, 80)


def plane():
    """Half a millimetre from pixel to pixel, 300 mm away."""
    rows, columns = np.indices(SHAPE)
    return np.stack([columns * 5e-4, rows * 5e-4, np.full(SHAPE, 0.3)], -1).astype(np.float32)


def marks(*boxes):
    scores = np.zeros(SHAPE, np.float32)
    for place, (top, left, bottom, right) in enumerate(boxes):
        scores[top:bottom, left:right] = 9 - place
    return scores


SCRATCH, DOT = (10, 10, 12, 34), (40, 60, 43, 63)  # 12 by 1 mm; 1.5 by 1.5 mm


def verdict(rules, *boxes, score=8.0, xyz=True, share=1.0, **options):
    scores = marks(*boxes)
    return apply_rules(
        rules, scores, score=score, threshold=5.0, xyz=plane() if xyz is True else xyz,
        modalities={"rgb": share * scores, "normals": (1 - share) * scores}, **options,
    )  # fmt: skip


def test_without_a_word_the_models_threshold_decides():
    for score, label in ((5.0, 0), (5.1, 1)):
        found = verdict(Rules(), DOT, score=score)
        assert (found.label, found.rule, found.threshold) == (label, PART_RULE, 5.0)
        assert found.mask.sum() == label * 9
    stand_in = verdict(Rules(), score=8.0)  # no pixel passes: the largest stands in
    assert (stand_in.label, stand_in.mask.sum()) == (1, 1)


@pytest.mark.parametrize(
    ("area", "length", "label", "rule"),
    [
        (2.0, 0.0, 1, PART_RULE),
        (2.5, 0.0, 0, SIZE_RULE),
        (0.0, 1.4, 1, PART_RULE),
        (0.0, 1.6, 0, SIZE_RULE),
    ],
)
def test_a_region_below_the_least_size_does_not_count(area, length, label, rule):
    """The dot is 2.25 mm² and 1.5 mm long."""
    found = verdict(Rules(least_area_mm2=area, least_length_mm=length), DOT)
    assert (found.label, found.rule) == (label, rule)
    assert found.regions[0].counts == bool(label)
    assert found.regions[0].region.area_mm2 == pytest.approx(2.25, rel=0.01)


def test_what_was_not_measured_excuses_nothing():
    rules = Rules(least_area_mm2=1e6, not_ok=(NotOk("deep", depth_mm=1e6),))
    assert verdict(rules, DOT, xyz=None).rule == "deep"


@pytest.mark.parametrize(("rim", "label"), [(1, 1), (2, 1), (3, 0)])
def test_a_pit_measured_at_its_rim_alone_has_no_known_depth(rim, label):
    """A flat rim says nothing of the bottom; of 20 by 20 pixels 19, 36 and 51 % are measured."""
    xyz = plane()
    xyz[20 + rim : 40 - rim, 20 + rim : 40 - rim] = 0
    found = verdict(Rules(not_ok=(NotOk("deep", depth_mm=0.2),)), (20, 20, 40, 40), xyz=xyz)
    (judged,) = found.regions
    assert abs(judged.region.deviation_mm) < 0.01
    assert judged.region.measured_share == pytest.approx(1 - (20 - 2 * rim) ** 2 / 400)
    assert found.label == label


def test_two_thresholds():
    """Pixels of 9 and 8; the part's score is another matter."""
    assert verdict(Rules(pixel=8.5), SCRATCH, DOT).mask.sum() == 2 * 24
    assert verdict(Rules(part=8.0), SCRATCH, DOT).label == 0
    assert verdict(Rules(part=7.9), SCRATCH, DOT).label == 1


def test_the_first_rule_that_holds_decides():
    long, many = NotOk("long", length_mm=5.0), NotOk("many", count=2)
    assert verdict(Rules(not_ok=(long, many)), SCRATCH, DOT).rule == "long"
    assert verdict(Rules(not_ok=(many, long)), SCRATCH, DOT).rule == "many"
    none = verdict(Rules(not_ok=(long, many)), DOT)
    assert (none.label, none.rule, none.mask.any()) == (0, NO_RULE, False)
    assert verdict(Rules(not_ok=(long,)), SCRATCH, score=5.0).rule == PART_RULE
    assert verdict(Rules(not_ok=(NotOk("low", score=1.0),)), SCRATCH, score=2.0).rule == "low"
    assert verdict(Rules(least_area_mm2=3.0, not_ok=(many,)), DOT).rule == SIZE_RULE


def test_severity_is_the_zones_times_that_of_the_modalities():
    zone, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    zone[:20, :11] = True  # one column of the scratch
    other[42:, 70:] = True  # touches none
    rules = Rules(zones={"seal": 3.0, "rim": 7.0}, modalities={"normals": 2.0})
    found = verdict(rules, SCRATCH, DOT, share=0.25, zones={"seal": zone, "rim": other})
    scratch, dot = found.regions
    assert (scratch.zones, dot.zones) == (("seal",), ())
    assert scratch.severity == pytest.approx(3 * (0.25 * 1 + 0.75 * 2))
    assert dot.severity == pytest.approx(1.75)
    for condition, label in (
        (NotOk("a", severity=5.2), 1),
        (NotOk("a", severity=5.3), 0),
        (NotOk("a", zone="seal", modality="normals"), 1),
        (NotOk("a", zone="rim"), 0),
        (NotOk("a", zone="seal", modality="rgb"), 0),
        (NotOk("a", zone="seal", count=2), 0),
    ):
        with_rule = Rules(zones=rules.zones, modalities=rules.modalities, not_ok=(condition,))
        got = verdict(with_rule, SCRATCH, DOT, share=0.25, zones={"seal": zone, "rim": other})
        assert got.label == label, condition


def test_a_region_touches_no_zone_for_another_that_reaches_into_its_box():
    zone = np.zeros(SHAPE, bool)
    zone[40:43, 60:63] = True
    found = verdict(Rules(), (30, 50, 50, 52), (48, 50, 50, 70), DOT, zones={"seal": zone})
    assert [one.zones for one in found.regions] == [(), ("seal",)]
    assert [one.severity for one in found.regions] == [1.0, 1.0]


def test_what_is_ignored_is_neither_marked_nor_stood_in_for():
    ignore = np.zeros(SHAPE, bool)
    ignore[:30] = True
    found = verdict(Rules(), SCRATCH, DOT, ignore=ignore)
    assert [one.region.peak for one in found.regions] == [8.0]
    assert not found.mask[:30].any()
    assert not verdict(Rules(), SCRATCH, ignore=ignore).mask[:30].any()


EXAMPLE = """
[threshold]
part = 6.2
pixel = 5
[least]
area_mm2 = 0.3
[severity.zones]
sealing_face = 3.0
[[not_ok]]
name = "scratch"
length_mm = 5.0
count = 2
score = -1
"""


def test_a_file_of_rules():
    rules = parse_rules(tomllib.loads(EXAMPLE))
    assert rules == Rules(
        6.2, 5.0, 0.3, 0.0, {"sealing_face": 3.0}, {},
        (NotOk("scratch", length_mm=5.0, count=2, score=-1.0),),
    )  # fmt: skip
    rules.check_names(["sealing_face"], ["rgb"])
    with pytest.raises(ConfigError, match="did you mean 'sealing_face_2'"):
        rules.check_names(["sealing_face_2"], ["rgb"])
    with pytest.raises(ConfigError, match="there are none"):
        rules.check_names([], ["rgb"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("treshold = 3", "did you mean 'threshold'"),
        ("threshold = 3", "threshold: expected a table"),
        ("[threshold]\npart = nan", "threshold.part: expected a number"),
        ("[threshold]\npart = true", "threshold.part: expected a number"),
        (f"[threshold]\npart = {10**400}", "threshold.part: expected a number"),
        ("[threshold]\npart = inf", "threshold.part: expected a number"),
        ("[least]\narea_mm2 = -1", "0 or more"),
        ('[least]\narea_mm2 = "0.3"', "expected a number"),
        ("[severity.zones]\na = -1", "0 or more"),
        ("[not_ok]\nname = 'a'", "in double brackets"),
        ("[[not_ok]]\nlength_mm = 3", "no name"),
        ("[[not_ok]]\nname = ''", "200 letters"),
        ("[[not_ok]]\nname = 'a'\ncount = 0", "1 or more"),
        ("[[not_ok]]\nname = 'a'\nlenght_mm = 1", "did you mean 'length_mm'"),
        ("[[not_ok]]\nname = 'a'\n[[not_ok]]\nname = 'a'", "two rules are called 'a'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_rules(tomllib.loads(text))
