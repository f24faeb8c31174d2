"""What a scan shows in numbers, and who is not judged for it."""

import json

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, NotJudgedError
from pirn_jax.geometry.sight import Sight, SightLimits, learn_sight, read_sight, sight_of

SHOTS = [Sight(0.4, 0.1, 0.8, 0.05), Sight(0.5, 0.12, 0.7, 0.06), Sight(0.45, 0.11, 0.9, 0.055)]
KEYS = ["a", "b", "c"]


def test_numbers_of_a_scan_against_its_own_pixels():
    rng = np.random.default_rng(0)
    rgb = rng.random((20, 20, 3), np.float32)
    part = np.zeros((20, 20), bool)
    part[3:17, 3:17] = True  # its outermost two pixels are not looked at
    rows, columns = np.mgrid[:100, :100] * 1e-3
    xyz = np.stack([columns, rows, np.full((100, 100), 0.5)], -1).astype(np.float32)
    valid = np.ones((100, 100), bool)
    valid[:25] = False  # marked as missing
    xyz[25:50] = np.nan  # and missing though not marked
    shown = np.zeros((100, 100), bool)
    shown[:, :50] = True
    found = sight_of(rgb, part, xyz, None, shown, valid)
    assert found.brightness == pytest.approx(rgb[5:15, 5:15].mean(), abs=1e-6)
    assert found.contrast == pytest.approx(rgb[5:15, 5:15].mean(-1).std(), abs=1e-6)
    assert found.measured == 0.5
    assert found.size == pytest.approx(np.hypot(0.049, 0.049), rel=0.05)
    assert sight_of(None, part, None, None, shown, valid) == Sight()
    assert sight_of(rgb, ~np.ones_like(part), None, None, shown, valid) == Sight()
    # Normals without points: the pixels that carry one.
    assert sight_of(None, part, None, xyz, shown, valid) == Sight(measured=0.75)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"brightness": 0.0}, "dark"),
        ({"brightness": 0.99}, "bright"),
        ({"contrast": 0.0}, "next to nothing"),
        ({"measured": 0.01}, "few points"),
        ({"measured": 0.0, "size": None}, "few points"),
        ({"size": 0.01}, "far smaller"),
        ({"size": 0.5}, "far larger"),
    ],
)
def test_what_is_far_from_all_shots_is_not_judged(changes, words):
    limits = learn_sight(SHOTS, KEYS)
    for shot in SHOTS:
        limits.check("", shot)
    with pytest.raises(NotJudgedError, match=words) as caught:
        limits.check("test/7", SHOTS[0]._replace(**changes))
    assert "test/7 is not judged" in caught.value.problem
    assert caught.value.remedy


def test_half_as_bright_or_a_third_missing_is_judged():
    """What recordings of another day differ by, and defects do to a part."""
    limits = learn_sight(SHOTS, KEYS)
    limits.check("", Sight(0.2, 0.05, 0.4, 0.03))
    limits.check("", Sight(0.8, 0.3, 1.0, 0.1))
    limits.check("", Sight())  # of what is not known nothing is asked
    SightLimits().check("", Sight(0.0, 0.0, 0.0, 0.0))


def test_a_shot_unlike_the_others_is_named(caplog):
    limits = learn_sight([*SHOTS[:2], Sight(0.01, 0.1, 0.8, 0.05)], KEYS)
    assert "c is unlike the other shots" in caplog.text
    assert "dark" in caplog.text
    assert limits.brightness[0] == 0.01
    with pytest.raises(NotJudgedError, match="a: the photograph is a single colour"):
        learn_sight([Sight(0.5, 0.0)], ["a"])


def test_limits_come_back_from_a_file_and_damage_is_named():
    for limits in (learn_sight(SHOTS, KEYS), learn_sight([Sight(measured=0.5)], ["a"])):
        document = json.loads(json.dumps(limits._asdict()))
        assert read_sight(document) == limits
    assert read_sight(None) is None
    good = json.loads(json.dumps(learn_sight(SHOTS, KEYS)._asdict()))
    for damage in ([0.5], [0.5, 0.1], [float("nan"), 1.0], ["a", "b"], 3, [0, 1], [-1.0, 1.0]):
        with pytest.raises(BadInputError, match="sight: expected contrast"):
            read_sight(good | {"contrast": damage})
    with pytest.raises(BadInputError, match="sight"):
        read_sight([1])
