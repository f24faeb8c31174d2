"""The detector through its public methods, on small generated scans."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from pirn_jax.config import Config, with_settings
from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector import PIRN, detector, fit_models, open_encoder, view_scan
from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.preprocessing import looking_of
from pirn_jax.detector.saving import MODEL_FORMAT, _facts
from pirn_jax.detector.shots import FOLDS, leave_one_out_folds
from pirn_jax.errors import BadInputError, ConfigError, NotJudgedError, WeightsError
from pirn_jax.geometry.zones import Zone, Zones
from pirn_jax.manifest import MANIFEST, write_manifest
from pirn_jax.runs.against import compare
from pirn_jax.scans import open_dataset
from pirn_jax.scans.formats.options import Reading
from pirn_jax.scoring.rules import PART_RULE, NotOk, Rules
from pirn_jax.storage import read_object, write_json

SMALL = {"epochs": 2, "decoder.layers": 1, "decoder.iterations": 5, "decoder.mlp_ratio": 0}
CONFIG = with_settings(Config(encoder="pirn-tiny", method="pirn", image_size=70), SMALL)


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=96, train=3, validation=4, test=5)


@pytest.fixture(scope="module")
def encoder():
    return open_encoder(CONFIG)


@pytest.fixture(scope="module")
def trained(data, encoder):
    """Three models trained at once: of seed 0, of seed 1, and of seed 0 again."""
    configs = [dataclasses.replace(CONFIG, seed=seed) for seed in (0, 1, 0)]
    models = [PIRN(config, encoder=encoder) for config in configs]
    fit_models(models, [data.train] * 3, ["a", "b", "c"], parallel="none")
    return models


@pytest.fixture(scope="module")
def model(trained, data):
    return trained[0].calibrate(data.validation)


@pytest.fixture(scope="module")
def predictions(model, data):
    return [model.predict(scan) for scan in data.test]


def test_batch_and_order_change_no_score(model, data, predictions):
    scans = list(data.test)
    for batch, order in ((2, range(5)), (8, (3, 0, 4, 1, 2))):
        found = list(model.predict_scans([scans[place] for place in order], batch=batch))
        for place, one in zip(order, found, strict=True):
            alone = predictions[place]
            assert one.scan.key == scans[place].key
            assert one.inferred.score == pytest.approx(alone.pred_score, abs=1e-5)
            fused = one.views.to_scan(one.inferred.fused)
            np.testing.assert_allclose(fused, alone.anomaly_map, atol=1e-5)


def test_the_next_batch_starts_before_the_last_is_waited_for(model, data, monkeypatch):
    order, start, results = [], PIRN._start, detector._results
    monkeypatch.setattr(PIRN, "_start", lambda *given: order.append("start") or start(*given))
    monkeypatch.setattr(detector, "_results", lambda *some: order.append("wait") or results(*some))
    found = list(model.predict_scans(list(data.test), batch=2))
    assert [one.scan.key for one in found] == list(data.test.keys)
    assert order == ["start", "start", "wait", "start", "wait", "wait"]


def test_what_was_learned_is_brought_to_the_device_once():
    model = PIRN(Config())
    for value in (1.0, 2.0):  # the second time anew
        model.parameters = {"mean": np.full(3, value, np.float32)}, {}
        assert isinstance(model.placed[0]["mean"], jax.Array)
        assert model.placed[0]["mean"][0] == value
        assert model.placed is model.placed


def test_a_prediction_is_of_the_scans_size_and_does_not_contradict_itself(data, predictions):
    for scan, prediction in zip(data.test, predictions, strict=True):
        assert prediction.anomaly_map.shape == scan.valid.shape
        assert set(prediction.maps) == {"rgb", "normals"}
        total = sum(prediction.maps.values())
        np.testing.assert_allclose(prediction.anomaly_map, total, atol=1e-5)
        assert prediction.pred_label == int(prediction.pred_mask.any())
        assert bool(prediction.regions) == bool(prediction.pred_label)


def test_the_threshold_is_the_largest_score_of_the_good_scans(model, data):
    scores = [model.predict(scan).pred_score for scan in data.validation]
    assert model.calibration.threshold == pytest.approx(max(scores), abs=1e-5)
    assert model.calibration.scans == 4
    assert not model.calibration.leave_one_out


def test_metrics_equal_those_of_sklearn(model, data, predictions):
    figures = model.evaluate(data.test)
    labels = [scan.label for scan in data.test]
    scores = [prediction.pred_score for prediction in predictions]
    assert figures["i_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert figures["i_ap"] == pytest.approx(average_precision_score(labels, scores))
    masks = np.concatenate([(scan.mask > 0).ravel() for scan in data.test])
    maps = np.concatenate([prediction.anomaly_map.ravel() for prediction in predictions])
    assert figures["p_auroc"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-4)
    alarms = np.array(scores) > model.calibration.threshold
    assert figures["i_recall"] == pytest.approx(alarms[np.array(labels) == 1].mean())


def test_scans_without_truth_are_judged_and_not_measured(model, data):
    scans = [scan._replace(mask=None, label=None) for scan in data.test[:2]]
    assert model.evaluate(scans) == {"scans": 2.0, "defective": 0.0}


def test_what_surrounds_the_part_changes_nothing(model, data, predictions):
    scan = data.test[0]
    near = view_scan(scan, CONFIG)
    assert 0.1 < near.valid.mean() < 0.9
    from pirn_jax.geometry import remove_background

    outside = ~remove_background(scan.xyz)
    rgb = scan.rgb.copy()
    rgb[outside] = np.random.default_rng(0).integers(0, 255, (outside.sum(), 3), dtype=np.uint8)
    assert model.predict(scan._replace(rgb=rgb)).pred_score == predictions[0].pred_score


def test_ignored_pixels_are_not_looked_at(model, data):
    scan = data.test[0]
    everywhere = np.ones(scan.valid.shape, bool)
    with pytest.raises(BadInputError, match="no measured pixel"):
        model.predict(scan._replace(ignore=everywhere))
    half = everywhere.copy()
    half[:, : scan.valid.shape[1] // 2] = False
    views = view_scan(scan._replace(ignore=half), CONFIG)
    assert not views.valid[:, 40:].any()
    assert views.valid[:, :35].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": None}, "has no points or normals"),
        ({"rgb": None}, "has no photograph"),
    ],
)
def test_a_missing_modality_is_named(model, data, change, message):
    with pytest.raises(BadInputError, match=message):
        model.predict(data.test[0]._replace(**change))


def test_a_bad_scan_is_passed_over_where_asked(model, data):
    scans = [data.test[0], data.test[1]._replace(xyz=None, key="broken"), data.test[2]]
    failed = {}
    found = list(model.predict_scans(scans, failed=failed.__setitem__))
    assert [one.scan.key for one in found] == [scans[0].key, scans[2].key]
    assert list(failed) == ["broken"]


def test_defective_scans_teach_nothing(model, data, encoder):
    defective = next(scan for scan in data.test if scan.label == 1)
    fresh = PIRN(CONFIG, encoder=encoder)
    with pytest.raises(BadInputError, match="learn from good scans only"):
        fresh.fit([defective])
    with pytest.raises(BadInputError, match="calibrate good scans only"):
        model.calibrate([defective])
    with pytest.raises(BadInputError, match="no scans to learn from"):
        fresh.fit([])
    with pytest.raises(ConfigError, match="has not been trained"):
        fresh.predict(defective)


def test_same_seed_same_parameters_and_another_seed_others(trained):
    first, other, again = (one.parameters for one in trained)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, again)))
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, first, other)))


@pytest.mark.slow
def test_trained_alone_it_is_the_same(data, encoder, predictions):
    alone = PIRN(CONFIG, encoder=encoder).fit(data.train)
    score = alone.predict(data.test[0]).pred_score
    assert score == pytest.approx(predictions[0].pred_score, abs=1e-4)


@pytest.mark.parametrize("copies", [0, 2])
def test_a_shot_is_never_scored_by_a_model_trained_on_it_or_on_a_copy_of_it(copies):
    for count in (2, 5, FOLDS + 3):
        shot = np.repeat(np.arange(count, dtype=np.float32), 1 + copies)
        tokens = shot[:, None, None] * np.ones((1, 4, 2), np.float32)
        shots = Tokens(tokens[None], np.ones((len(shot), 4), bool))
        folds = leave_one_out_folds("x", shots, 7, copies, copies // 2)
        assert len(folds) == min(count, FOLDS)
        places_scored = [place for fold in folds for place in fold.left_out]
        assert all(place % (1 + copies) == 0 for place in places_scored)  # no copy is scored
        scored = [int(shot[place]) for place in places_scored]
        assert sorted(scored) == list(range(count))
        assert len({fold.job.name for fold in folds}) == len(folds)
        for job, left_out in folds:
            learned = job.shots.values[0, :, 0, 0].astype(int).tolist()
            without = set(range(count)) - {int(shot[place]) for place in left_out}
            assert sorted(learned) == sorted(list(without) * (1 + copies))
            assert (job.seed, job.copies, job.spoiled) == (7, copies, copies // 2)
    with pytest.raises(BadInputError, match="one shot"):
        leave_one_out_folds("x", Tokens(tokens[None, :1], np.ones((1, 4), bool)), 0)


@pytest.mark.slow  # five models
def test_leave_one_out_scores_are_those_of_models_fitted_without_the_shot(data, encoder):
    model = PIRN(CONFIG, encoder=encoder).fit(data.train).calibrate()
    assert model.calibration.leave_one_out
    assert model.calibration.scans == 3
    scores = []
    for out in range(3):
        others = [scan for place, scan in enumerate(data.train) if place != out]
        without = PIRN(CONFIG, encoder=encoder).fit(others)
        scores.append(without.predict(data.train[out]).pred_score)
    assert model.calibration.threshold == pytest.approx(max(scores), abs=1e-3)


def test_leave_one_out_leaves_out_the_shot_and_its_pseudo_defects(data):
    small = {"prototypes": 4, "rank": 4, "jitter": 1, "photometric": 1}
    config = with_settings(Config(encoder="pirn-tiny", image_size=56), small)
    model = PIRN(config).fit(data.train).calibrate()
    assert model.config.chosen_recipe.pseudo_defects == "on"
    assert model.shots.values.shape[1] == 3 * 7
    scores = []
    for out in range(3):
        others = np.setdiff1d(np.arange(21), np.arange(7 * out, 7 * out + 7))
        without = PIRN(model.config, encoder=model.encoder)
        fit_models([without], [select_scans(model.shots, others)], ["without"])
        (found,) = without.predict_tokens(select_scans(model.shots, np.array([7 * out])))
        scores.append(found.score)
    assert model.calibration.threshold == pytest.approx(max(scores), abs=1e-4)


# Verdicts


def test_zones_and_rules_decide(model, data):
    """What is not judged has no part in score and mask; the rule that decides is named."""
    scan = data.test[0]
    found = next(iter(model.predict_scans([scan], batch=1)))
    prediction = model.postprocess(found)
    find_part = part_finder(model.looking)
    plain = Judging().verdict(scan, prediction, model.calibration, find_part)
    assert (plain.label, plain.rule) == (prediction.pred_label, PART_RULE)
    assert [one.region for one in plain.regions] == prediction.regions

    left = np.zeros(scan.valid.shape, bool)
    left[:, :48] = True
    zones = Zones({"left": Zone(left, judged=False), "right": Zone(~left, judged=True)})
    rules = Rules(part=-1.0, pixel=0.0, not_ok=(NotOk("on the right", zone="right", count=1),))
    judging = Judging(rules, zones)
    judging.check(model.looking)
    laid = judging.lay_on(scan, find_part)
    assert np.array_equal(laid.ignore, left)
    found = next(iter(model.predict_scans([laid], batch=1)))
    prediction = model.postprocess(found)
    verdict = judging.verdict(laid, prediction, model.calibration, find_part)
    assert (verdict.label, verdict.rule, verdict.threshold) == (1, "on the right", -1.0)
    assert verdict.mask.any()
    assert not verdict.mask[left].any()
    with pytest.raises(ConfigError, match="did you mean 'right'"):
        Judging(Rules(zones={"rigth": 2.0}), zones).check(model.looking)


def test_zones_that_move_need_a_part(model, data):
    zone = Zone(np.ones((96, 96), bool), judged=False)
    judging = Judging(None, Zones({"all": zone}, zone.pixels))
    judging.check(model.looking)
    scan = data.test[0]
    with pytest.raises(BadInputError, match="no measured pixel"):
        model.predict(judging.lay_on(scan, part_finder(model.looking)))
    whole = dataclasses.replace(model.config, background="none")
    with pytest.raises(ConfigError, match="does not tell from its background"):
        judging.check(looking_of(whole))


def test_a_light_that_changed_and_a_camera_that_moved_are_told(model, data, tmp_path):
    scans = list(data.validation)

    def moved(change):
        folder = tmp_path / f"{change.__name__}"
        folder.mkdir()
        for place, scan in enumerate(map(change, scans)):
            Image.fromarray(scan.rgb).save(folder / f"{place}.png")
            np.save(folder / f"{place}.npy", scan.xyz)
        found = compare(
            model, folder, Reading(unit="m"), failed=lambda key, error: pytest.fail(str(error))
        )
        assert found.scans == len(scans)
        return {one.name for one in found.compared if one.moved}

    def same(scan):
        return scan

    def darker(scan):
        return scan._replace(rgb=scan.rgb // 3)

    def farther(scan):  # the same part on fewer pixels
        return scan._replace(rgb=scan.rgb[::2, ::2], xyz=scan.xyz[::2, ::2])

    assert moved(same) == set()
    assert "brightness" in moved(darker)
    assert "resolution" in moved(farther)
    assert model.sight is not None  # as before


def test_a_folder_of_which_no_scan_can_be_read_is_no_verdict(model, tmp_path, unchecked):
    for name in ("a.png", "a.npy"):
        (tmp_path / name).write_bytes(b"torn")
    found = []
    with pytest.raises(BadInputError, match="no scan could be read: not a readable PNG"):
        compare(model, tmp_path, Reading(), failed=lambda key, error: found.append(key))
    assert found == ["a"]


# Files


@pytest.fixture
def saved(model, tmp_path):
    return model.save(tmp_path / "model")


def test_a_saved_model_predicts_the_same(saved, model, data, encoder, predictions):
    loaded = PIRN.load(saved, encoder=encoder)
    assert loaded.reference.limits([]) == model.reference.limits([])
    np.testing.assert_allclose(loaded.reference.tokens, model.reference.tokens, rtol=1e-6)
    assert loaded.encoder is encoder
    assert not loaded.random_weights
    again = loaded.predict(data.test[0])
    assert again.pred_score == pytest.approx(predictions[0].pred_score, abs=1e-6)
    assert again.pred_label == predictions[0].pred_label
    np.testing.assert_allclose(again.anomaly_map, predictions[0].anomaly_map, atol=1e-6)
    assert re.fullmatch("[0-9a-f]{16}", loaded.model_id)
    loaded.set_fixed_threshold(9.0)
    loaded.save(saved)  # another threshold, the same model
    assert PIRN.load(saved, encoder=encoder).model_id == loaded.model_id
    loaded.parameters = loaded.parameters
    assert loaded.model_id == ""
    with pytest.raises(BadInputError, match="its shots are not at hand"):
        loaded.calibrate()


def forge(folder, change):
    """Change the description and make the manifest agree, as somebody who means harm would."""
    document = read_object(folder / "config.json")
    change(document)
    write_json(folder / "config.json", document)
    seal(folder, document)


def seal(folder, document):
    try:
        facts = _facts(document)
    except KeyError:
        facts = {}
    write_manifest(folder, MODEL_FORMAT, ("config.json", "model.safetensors"), facts)


def test_a_model_of_before_judges_as_it_did(data, tmp_path):
    """Its threshold was set with nothing taken off; nor did it know of pseudo-defects."""
    asked = Config(encoder="pirn-tiny", image_size=70)
    model = PIRN(with_settings(asked, {"pseudo_defects": "off"})).fit(data.train)
    folder, encoder = model.save(tmp_path / "model"), model.encoder
    assert PIRN.load(folder, encoder=encoder).config.chosen_recipe.own_level == 0.5
    forge(folder, lambda document: document["config"]["settings"].pop("pseudo_defects"))
    older = PIRN.load(folder, encoder=encoder)
    assert older.config.chosen_recipe.pseudo_defects == "off"
    assert older.predict(data.test[0]).pred_score == model.predict(data.test[0]).pred_score
    forge(folder, lambda document: document["config"]["settings"].pop("own_level"))
    older = PIRN.load(folder, encoder=encoder)
    assert older.config.chosen_recipe.own_level == 0.0
    assert older.predict(data.test[0]).pred_score > model.predict(data.test[0]).pred_score


def test_another_encoders_weights_are_refused(saved):
    forge(saved, lambda document: document["encoder"].update(sha256="0" * 64))
    with pytest.raises(WeightsError, match="was trained with the pirn-tiny of 0000"):
        PIRN.load(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("encoder"),
        lambda document: document["config"].update(recipe="unknown"),
        lambda document: document["config"].update(shoe=1),
        lambda document: document["config"].update(image_size="224"),
        lambda document: document["calibration"].update(threshold=None),
        lambda document: document["calibration"].update(threshold=True),
        lambda document: document["calibration"].update(threshold="1"),
        lambda document: document["calibration"].update(spread=0.0),
        lambda document: document["calibration"].pop("scans"),
        lambda document: document.update(calibration=3),
        lambda document: document["encoder"].update(layers=3),
    ],
)
def test_a_damaged_description_is_refused(saved, damage):
    forge(saved, damage)
    with pytest.raises((BadInputError, ConfigError)):
        PIRN.load(saved)


@pytest.mark.parametrize("threshold", ["NaN", "1e999", "null"])
def test_a_threshold_that_is_no_number_is_refused(saved, encoder, threshold):
    text = (saved / "config.json").read_text()
    found = json.loads(text)["calibration"]["threshold"]
    assert f'"threshold": {found}' in text
    text = text.replace(f'"threshold": {found}', f'"threshold": {threshold}')
    (saved / "config.json").write_text(text)
    with pytest.raises(BadInputError, match="not the file that was saved"):
        PIRN.load(saved, encoder=encoder)
    about = {"calibration": {"threshold": None}}
    write_manifest(saved, MODEL_FORMAT, ("config.json", "model.safetensors"), about)
    with pytest.raises(BadInputError):
        PIRN.load(saved, encoder=encoder)
    if threshold == "null":
        seal(saved, read_object(saved / "config.json"))
        with pytest.raises(BadInputError, match="threshold: expected a finite float, got None"):
            PIRN.load(saved, encoder=encoder)


def test_code_in_a_saved_model_is_not_run(saved, encoder, tmp_path, monkeypatch):
    (tmp_path / "payload_of_a_model.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    decoder = {"assignment": "payload_of_a_model:f"}
    forge(saved, lambda document: document["config"]["settings"]["decoder"].update(decoder))
    with pytest.raises(ConfigError, match="names code to be run, 'payload_of_a_model:f'"):
        PIRN.load(saved, encoder=encoder)
    assert PIRN.load(saved, encoder=encoder, allow_code=("payload_of_a_model:f",))


def test_files_of_two_models_do_not_make_one(trained, encoder, saved, tmp_path):
    """Swapped, cast and flipped parameters; a description of another; a fact that differs."""
    from safetensors.numpy import load_file, save_file

    other = trained[1].save(tmp_path / "other")
    path = saved / "model.safetensors"
    ours = path.read_bytes()
    cast = {name: x.astype(np.float16) for name, x in load_file(path).items()}
    save_file(cast, tmp_path / "cast")
    flipped = bytearray(ours)
    flipped[-5] ^= 1
    for content in ((other / path.name).read_bytes(), (tmp_path / "cast").read_bytes(), flipped):
        path.write_bytes(content)
        with pytest.raises(BadInputError, match="not the file that was saved"):
            PIRN.load(saved, encoder=encoder)
    path.write_bytes(ours)
    assert PIRN.load(saved, encoder=encoder)
    manifest = read_object(saved / MANIFEST)
    manifest["about"]["weights"] = "0" * 64
    write_json(saved / MANIFEST, manifest)
    with pytest.raises(BadInputError, match="weights: not what the manifest says"):
        PIRN.load(saved, encoder=encoder)
    (saved / MANIFEST).unlink()
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        PIRN.load(saved, encoder=encoder)


@pytest.mark.parametrize("damage", ["truncated", "missing", "nan", "shape"])
def test_damaged_parameters_are_refused(saved, damage):
    from safetensors.numpy import load_file, save_file

    path = saved / "model.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        tensors = load_file(path)
        name = "parameters.prototypes"
        if damage == "missing":
            del tensors[name]
        elif damage == "nan":
            tensors[name] = tensors[name] * np.float32("nan")
        else:
            tensors[name] = tensors[name][:, :-1].copy()
        save_file(tensors, path)
    seal(saved, read_object(saved / "config.json"))
    with pytest.raises(BadInputError, match=r"cannot be read|parameters\.prototypes: expected"):
        PIRN.load(saved)


def test_the_description_is_json_that_says_what_it_is(saved):
    document = json.loads((saved / "config.json").read_text())
    assert "Apache-2.0" in document["encoder"]["about"]
    assert document["calibration"]["scans"] == 4


def dead(scan, kind):
    """What a sensor gives that saw nothing, or something else."""
    rng = np.random.default_rng(0)
    if kind in ("black", "white", "grey"):
        shade = {"black": 0, "white": 255, "grey": 128}[kind]
        return scan._replace(rgb=np.full_like(scan.rgb, shade))
    if kind == "noise":  # of a camera with its cap on
        return scan._replace(rgb=rng.integers(0, 6, scan.rgb.shape, np.uint8))
    if kind == "NaN":
        return scan._replace(xyz=np.full_like(scan.xyz, np.nan))
    if kind in ("near", "far"):
        factor = np.float32({"near": 5, "far": 0.2}[kind])
        return scan._replace(xyz=scan.xyz * factor)
    kept = rng.random(scan.valid.shape) < 0.01
    return scan._replace(xyz=np.where(kept[..., None], scan.xyz, 0), valid=scan.valid & kept)


@pytest.mark.parametrize(
    "kind", ["black", "white", "grey", "noise", "NaN", "sparse", "near", "far"]
)
def test_a_dead_sensor_is_not_judged(model, data, kind):
    scan = dead(data.test[0], kind)
    with pytest.raises(BadInputError) as caught:
        model.predict(scan)
    if kind != "NaN":  # of which nothing is left to be measured
        assert isinstance(caught.value, NotJudgedError)
    failed = {}
    found = list(model.predict_scans([data.test[1], scan], failed=failed.__setitem__))
    assert [one.scan.key for one in found] == [data.test[1].key]
    assert list(failed) == [scan.key]


def test_figures_leave_a_dead_sensor_out_and_say_so(model, data, caplog):
    scans = list(data.test)
    figures = model.evaluate(scans)
    assert model.evaluate([*scans, dead(scans[0]._replace(key="dead"), "black")]) == figures
    assert "left out: dead is not judged" in caplog.text
    assert model.evaluate([*scans, scans[0]]) != figures


def test_a_dead_shot_is_named(data, encoder):
    scans = [*data.train, dead(data.train[0], "black")]
    with pytest.raises(NotJudgedError, match="single colour"):
        PIRN(CONFIG, encoder=encoder).fit(scans)


def test_progress_is_shown_where_asked_for(data, capsys, monkeypatch):
    monkeypatch.setattr("pirn_jax.progress.SECONDS", 0.0)
    memory = Config(encoder="pirn-tiny", method="memory", image_size=70)
    PIRN(memory, encoder=open_encoder(memory)).fit(data.train, progress=True)
    assert "shots 3/3" in capsys.readouterr().err
