"""Scans judged as a lot, by a detector with shots and by one without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import BATCH, PIRN, Lot, open_encoder
from pirn_jax.detector import lot as lot_module
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import open_dataset
from pirn_jax.scoring import above_own_level, score_distances

SMALL = {"prototypes": 4, "rank": 4, "rounds": 1, "jitter": 1, "rotations": 1}
CONFIG = with_settings(Config(encoder="pirn-tiny", image_size=56), SMALL)


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=96, train=2, validation=2, test=4)


@pytest.fixture(scope="module")
def encoder():
    return open_encoder(CONFIG)


@pytest.fixture(scope="module")
def model(data, encoder):
    model = PIRN(CONFIG, encoder=encoder).fit(data.train)
    model.set_fixed_threshold(0.1)
    return model


@pytest.fixture(scope="module")
def scans(data):
    return list(data.test)


def maps(found):
    return {one.scan.key: one.inferred.fused for one in found}


def test_a_lot_without_shots_is_judged_by_its_own_distances(scans, encoder):
    """The same figures from tokens, standardised, compared and fused here."""
    lot = Lot(PIRN(CONFIG, encoder=encoder))
    found = list(lot.predict_scans(scans))
    assert [one.scan.key for one in found] == [scan.key for scan in scans]
    assert lot.scans == len(scans)
    assert lot.calibration is None
    assert lot.postprocess(found[0]).pred_label is None
    tokens, valid = encoded(lot, scans)
    assert 0 < valid.mean() < 1
    tokens = (
        tokens - np.stack([tokens[:, s, v].mean(1) for s, v in enumerate(valid)], 1)[:, :, None]
    )
    every = tokens[:, valid]
    tokens = (tokens - every.mean(1)[:, None, None]) / every.std(1)[:, None, None]
    distance = np.zeros(tokens.shape[:3], np.float32)
    for m, s, n in zip(*np.nonzero(np.broadcast_to(valid, distance.shape)), strict=True):
        others = [tokens[m, o][valid[o]] for o in range(len(scans)) if o != s]
        distance[m, s, n] = min(np.linalg.norm(o - tokens[m, s, n], axis=1).min() for o in others)
    distance = distance**2 / (2 * tokens.shape[-1])
    for m, s in np.ndindex(*distance.shape[:2]):
        counted = distance[m, s][valid[s]]
        distance[m, s] -= 0.5 * np.percentile(counted, 25, method="inverted_cdf")
    expected = score_distances(jnp.asarray(np.maximum(distance, 0)), (56, 56))
    for place, one in enumerate(found):
        np.testing.assert_allclose(one.inferred.fused, expected.fused[place], atol=1e-4)
        np.testing.assert_allclose(one.inferred.maps, expected.modalities[:, place], atol=1e-4)
        assert one.inferred.score == pytest.approx(float(expected.score[place]), abs=1e-4)


def encoded(lot, scans):
    tokens = lot._encode(scans, BATCH, [])
    return np.asarray(tokens.values), np.asarray(tokens.valid)


def test_shots_and_lot_are_added_up(model, scans):
    both = Lot(model)
    alone = Lot(PIRN(model.config, encoder=model.encoder))
    tokens = both._encode(scans, BATCH, [])
    judged = model.predict_tokens(tokens), alone.predict_tokens(tokens)
    shots, usage = model.method.distances(*jax.device_put(model.parameters), tokens)
    valid = jnp.asarray(tokens.valid)
    added = above_own_level(alone.distances(tokens).lot + shots, valid, 0.5)
    expected = score_distances(jnp.where(valid[None], added, 0), (56, 56))
    for place, (one, own, lot) in enumerate(zip(both.predict_scans(scans), *judged, strict=True)):
        np.testing.assert_allclose(one.inferred.fused, expected.fused[place], atol=1e-4)
        np.testing.assert_allclose(one.inferred.usage, usage[:, place], atol=1e-5)
        np.testing.assert_allclose(one.inferred.usage, own.usage, atol=1e-5)
        assert lot.usage is None
    assert model.calibration is not None
    assert both.calibration is None  # the model's own says nothing of these scores


def test_the_order_of_a_lot_changes_no_score(model, scans):
    lot = Lot(model)
    found, again = maps(lot.predict_scans(scans)), maps(lot.predict_scans(scans[::-1]))
    for key, one in found.items():
        np.testing.assert_allclose(again[key], one, atol=1e-4)


@pytest.mark.slow
def test_turned_parts_are_looked_for_in_all_positions(scans, encoder):
    """A scan finds itself turned, and so nothing odd, only where copies are turned as well."""
    flat = scans[0]._replace(xyz=None, mask=None)
    turned = {name: np.rot90(getattr(flat, name)).copy() for name in ("rgb", "valid")}
    pair = [flat, flat._replace(key="turned", **turned)]
    rgb = dataclasses.replace(CONFIG, modalities=("rgb",))
    scores = []
    for rotations in (1, 4):
        lot = Lot(PIRN(with_settings(rgb, {"rotations": rotations}), encoder=encoder))
        scores.append([one.inferred.score for one in lot.predict_scans(pair, batch=2 * BATCH)])
    assert max(scores[1]) < 0.2 * min(scores[0])


def test_good_scans_that_join_a_lot_set_its_threshold(model, data, scans):
    some, lot = scans[:2], Lot(model).calibrate(data.validation)
    found = list(lot.predict_scans(some))
    assert lot.scans == len(some) + len(data.validation)
    good = [scan._replace(key=f"good {place}") for place, scan in enumerate(data.validation)]
    joined = {one.scan.key: one.inferred.score for one in Lot(model).predict_scans([*some, *good])}
    for one in found:
        assert one.inferred.score == pytest.approx(joined[one.scan.key], abs=1e-5)
        label = int(one.inferred.score > lot.calibration.threshold)
        assert lot.postprocess(one).pred_label == label
    goods = [score for key, score in joined.items() if key.startswith("good")]
    assert lot.calibration.threshold == pytest.approx(max(goods), abs=1e-5)
    with pytest.raises(ConfigError, match="good scans that join it"):
        lot.calibrate()
    bad = next(scan for scan in scans if scan.label == 1)
    with pytest.raises(BadInputError, match="can calibrate good scans only"):
        lot.calibrate([bad]).predict_scans(scans)


def test_a_scan_that_cannot_be_judged_is_in_no_lot(model, scans):
    black = scans[0]._replace(key="black", rgb=np.zeros_like(scans[0].rgb))
    said = []
    lot = Lot(model)
    found = list(
        lot.predict_scans([black, *scans], failed=lambda key, error: said.append((key, error)))
    )
    assert [(key, "bright" in str(error)) for key, error in said] == [("black", True)]
    expected = maps(lot.predict_scans(scans))
    assert set(maps(found)) == set(expected)
    for one in found:
        np.testing.assert_allclose(one.inferred.fused, expected[one.scan.key], atol=1e-5)


def test_what_is_no_lot_is_refused(model, scans, monkeypatch):
    lot = Lot(model)
    with pytest.raises(BadInputError, match="a lot of 1: each scan is judged against the others"):
        lot.predict(scans[0])
    with pytest.raises(BadInputError, match="two scans of the lot have the key"):
        lot.predict_scans([scans[0], scans[0]])
    monkeypatch.setattr(lot_module, "MOST_BYTES", 3 * 4 * 2 * 16 * model.encoder.channels)
    with pytest.raises(BadInputError, match="a lot of 4 scans: the tokens of more than 3") as error:
        lot.predict_scans(scans)
    assert "lots of 3 or fewer" in error.value.remedy
    points = PIRN(dataclasses.replace(model.config, method="shape-guided", recipe="default"))
    with pytest.raises(ConfigError, match="of method shape-guided these are points"):
        Lot(points)
