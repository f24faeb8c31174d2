"""What good scans look like, in numbers: against scipy, and what is known of a simulation."""

import numpy as np
import pytest
from scipy import stats

from pirn_jax.decoder import Tokens
from pirn_jax.detector.reference import Seen, interval, learn_reference, read_reference
from pirn_jax.errors import BadInputError
from pirn_jax.geometry.sight import Sight
from pirn_jax.geometry.views import Views, fit_frame

SIDE, BOTH = 32, ("rgb", "normals")


def views(tilts, brightness=0.5):
    """A view whose part, its upper half, has normals of these tilts, in degrees."""
    normals = np.zeros((SIDE, SIDE, 3), np.float32)
    angles = np.radians(np.resize(tilts, (SIDE // 2, SIDE)))
    unit = np.stack([np.sin(angles), np.zeros_like(angles), -np.cos(angles)], -1)
    normals[: SIDE // 2] = (unit + 1) / 2
    valid = np.zeros((SIDE, SIDE), bool)
    valid[: SIDE // 2] = True
    frame = fit_frame((2 * SIDE, 2 * SIDE), (SIDE, SIDE))
    return Views(None, normals, valid, None, None, frame, Sight(brightness=brightness))


@pytest.fixture(scope="module")
def shots():
    random = np.random.default_rng(0)
    every = [random.uniform(1, 60, 400) for _ in range(5)]
    tokens = random.normal(3.0, 2.0, (2, 5, 30, 8)).astype(np.float32)
    tokens[1, :, :, 6:] = 0.0  # of a modality with fewer channels
    valid = random.random((5, 30)) < 0.7
    return every, tokens, valid


@pytest.fixture(scope="module")
def reference(shots):
    every, tokens, valid = shots
    seen = [views(tilts, 0.5 + place / 100) for place, tilts in enumerate(every)]
    copies = np.repeat(tokens, 2, axis=1) + np.arange(10)[:, None, None] % 2  # of each shot one
    return learn_reference(seen, Tokens(copies, np.repeat(valid, 2, axis=0)), BOTH, part_side=0.032)


def test_each_shot_is_compared_to_the_others(reference, shots):
    every, tokens, valid = shots
    means = np.stack([tokens[:, place, valid[place]].mean(axis=1) for place in range(5)])
    spread = [
        np.concatenate([tokens[m, p, valid[p]] for p in range(5)]).std(axis=0) for m in (0, 1)
    ]
    for place in range(5):
        others = np.delete(means, place, axis=0).mean(axis=0)
        for modality, name in enumerate(BOTH):
            there = spread[modality] > 0
            apart = (means[place] - others)[modality, there] / spread[modality][there]
            expected = np.sqrt((apart**2).sum() / 8)  # channels that never change count as equal
            assert reference.shots[f"tokens_{name}"][place] == pytest.approx(expected, rel=0.05)
        rest = np.concatenate([every[other] for other in range(5) if other != place])
        expected = stats.wasserstein_distance(every[place], rest)
        assert reference.shots["tilt"][place] == pytest.approx(expected, abs=0.5)  # half a bin
    assert reference.shots["brightness"] == pytest.approx((0.5, 0.51, 0.52, 0.53, 0.54))
    assert reference.shots["resolution"] == pytest.approx([2.0] * 5)  # 64 pixels, 32 mm


def test_a_tilted_camera_shows_by_how_much(reference, shots):
    every, tokens, valid = shots
    seen = Seen.of(views(every[0] + 20), tokens[:, 0, valid[0]].mean(axis=1), 0.032)
    assert reference.numbers(seen, BOTH)["tilt"] == pytest.approx(20, abs=2)
    assert reference.limits([])["tilt"][1] < 20


@pytest.mark.parametrize("count", [3, 12])
def test_one_further_scan_lies_within_the_limits_as_often_as_promised(count):
    random = np.random.default_rng(count)
    inside = 0
    for _ in range(2000):
        *known, one = np.exp(random.normal(-1.0, 0.4, count + 1))
        low, high = interval(known)
        inside += low <= one <= high
    assert inside / 2000 == pytest.approx(0.99, abs=0.007)


def test_few_scans_say_little(shots):
    every, tokens, valid = shots
    one = Tokens(tokens[:, :1], valid[:1])
    alone = learn_reference([views(every[0])], one, BOTH, None)
    assert (alone.limits([]), set(alone.shots)) == ({}, {"brightness"})
    seen = [Seen.of(views(every[p]), tokens[:, p].mean(axis=1), None) for p in (1, 2)]
    known = alone.with_calibration(seen, BOTH)
    assert set(known.limits([1.0, 2.0])) == {
        *("score", "tokens_rgb", "tokens_normals", "tilt", "brightness")
    }
    low, high = interval([2.0, 2.1])
    assert high / low > 10


def test_what_is_kept_is_read_again_and_what_is_no_reference_is_not(reference):
    again = read_reference(
        reference.document() | {"shots": {"tilt": [1, 2.5]}}, reference.tensors()
    )
    assert again.shots == {"tilt": (1.0, 2.5)}
    np.testing.assert_array_equal(again.weight, reference.weight)
    for damage in (None, [], {"shots": {}}, {"shots": {"tilt": [None]}, "calibration": {}},
                   {"shots": {"tilt": [-1.0]}, "calibration": {}},
                   {"shots": {"tilt": 3.0}, "calibration": {}}):  # fmt: skip
        with pytest.raises(BadInputError, match="reference: expected"):
            read_reference(damage, reference.tensors())
