"""The run folder, its config, and the files of results."""

import csv
import dataclasses
import io
import json
import os

import numpy as np
import pytest

from pirn_jax.config import PRESETS, Config, TrainConfig
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.runs import (
    claim_folder,
    environment,
    flat,
    from_flat,
    mean_figures,
    model_folders,
    open_run,
)
from pirn_jax.runs.parts import open_category
from pirn_jax.runs.results import Row, _chosen, file_name, scores_table, shrink
from pirn_jax.storage import fill, flatten, read_object, write_json
from pirn_jax.storage import write_whole

# Settings


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_its_file(name):
    document = json.loads(json.dumps(flat(PRESETS[name])))
    assert from_flat(document, "file") == PRESETS[name]


def test_a_file_may_leave_fields_out():
    assert from_flat({"shots": 7, "image_size": 448}, "f") == TrainConfig(
        shots=7, detector=Config(image_size=448)
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"shot": 5}, "did you mean 'shots'"),
        ({"shots": "5"}, "expected int"),
        ({"shots": True}, "expected int"),
        ({"seeds": ["0"]}, "expected tuple"),
        ({"image_size": 22.4}, "expected int"),
        ({"detector": {}}, "no field"),
        ({"recipe": "defautl"}, "did you mean 'default'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(document, message):
    with pytest.raises(ConfigError, match=message):
        from_flat(document, "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": True, "overwrite": True}, "give one of the two"),
        ({"data_root": "somewhere"}, "lie in no folder"),
        ({"dataset": "mvtec2d"}, "--modalities rgb"),
        ({"dataset": "mvtec"}, "did you mean 'mvtec"),
        ({"shots": 0}, "shots: expected 1"),
        ({"shots": -1, "dataset": "folder"}, "shots: expected 1"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"category": ("all", "flange")}, "all beside others"),
        ({"test_scans": 0}, "test_scans"),
        ({"parallel": "pmapp"}, "did you mean 'pmap'"),
        ({"detector": Config(seed=3)}, "use --seeds 3"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"change": ("epoch=3",)}, "did you mean 'epochs'"),
        ({"change": ("epochs",)}, "expected name=value"),
        ({"change": ("epochs=many",)}, "expected int"),
        ({"change": ("epochs=0",)}, "above 0"),
        ({"change": ("modalities=rgb",)}, "change: expected one of"),
        ({"change": ("context=otk",)}, "context: expected one of"),
        ({"require_weights": True, "encoder": "demo"}, "weights are required"),
        ({"encoder": "demo", "weights": "x.safetensors"}, "no weights to load"),
        ({"top": 2.0}, "share in"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate"),
        ({"modalities": ("normal",)}, "did you mean 'normals'"),
        ({"background": "plan"}, "did you mean 'plane'"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Config(**changes)


def test_changes_reach_the_recipe():
    config = Config(
        change=("epochs=3", "learning_rate=1", "context=none", "attention=False", "exponent=2"),
        modalities=("rgb",),
        solver="scan",
    )
    recipe = config.resolved_recipe()
    assert (recipe.epochs, recipe.learning_rate, recipe.loss.exponent) == (3, 1.0, 2.0)
    assert (recipe.decoder.context, recipe.decoder.attention) == ("none", False)
    assert (recipe.decoder.modalities, recipe.decoder.solver) == (("rgb",), "scan")


def test_the_background_follows_the_dataset_unless_said():
    assert TrainConfig().background == "auto"
    assert TrainConfig(dataset="eyecandies").background == "none"
    marked = TrainConfig(dataset="eyecandies", detector=Config(background="plane"))
    assert marked.background == "plane"


# Folders


def started(path, **changes):
    config = TrainConfig(out=str(path), **changes)
    folder, finished = claim_folder(config)
    assert not finished
    write_json(folder / "config.json", {**flat(config), "background": config.background})
    return config


def test_a_run_is_never_overwritten_unasked(tmp_path):
    config = started(tmp_path / "run")
    (tmp_path / "run" / "keep").write_text("old")
    with pytest.raises(BadInputError, match="--overwrite"):
        claim_folder(config)
    assert (tmp_path / "run" / "keep").exists()
    claim_folder(dataclasses.replace(config, overwrite=True))
    assert list((tmp_path / "run").iterdir()) == []


def test_overwrite_removes_runs_only(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("precious")
    with pytest.raises(BadInputError, match="no run folder"):
        claim_folder(TrainConfig(out=str(tmp_path / "photos"), overwrite=True))
    assert (tmp_path / "photos" / "a.png").exists()


def test_resume_needs_the_same_settings(tmp_path):
    config = started(tmp_path / "run", shots=3)
    folder, finished = claim_folder(dataclasses.replace(config, resume=True, parallel="none"))
    assert folder == tmp_path / "run"
    assert not finished
    with pytest.raises(ConfigError, match="shots = 3, not 4"):
        claim_folder(dataclasses.replace(config, resume=True, shots=4))
    (folder / "metrics.json").write_text("{}")
    (folder / "report.html").write_text("")
    assert claim_folder(dataclasses.replace(config, resume=True))[1]


def test_resume_of_nothing_begins(tmp_path):
    folder, finished = claim_folder(TrainConfig(out=str(tmp_path / "new"), resume=True))
    assert folder.is_dir()
    assert not finished


def test_models_are_found_by_category_and_seed(tmp_path):
    for name in ("b/seed1", "a/seed10", "a/seed2", "a/seedling", "a/other"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
    assert list(model_folders(tmp_path)) == [("a", 2), ("a", 10), ("b", 1)]
    assert list(model_folders(tmp_path, ("b",))) == [("b", 1)]
    with pytest.raises(BadInputError, match="no model of category 'c'; there are a, b"):
        model_folders(tmp_path, ("c",))
    with pytest.raises(BadInputError, match="no trained model"):
        model_folders(tmp_path / "a")


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(BadInputError, match="expected a run folder"):
        open_run(tmp_path)


def test_real_data_needs_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PIRN_DATA", raising=False)
    with pytest.raises(ConfigError, match="--data-root"):
        open_category(TrainConfig(dataset="mvtec3d"), "bagel")
    monkeypatch.setenv("PIRN_DATA", str(tmp_path / "missing"))
    with pytest.raises(BadInputError, match="no such folder"):
        open_category(TrainConfig(dataset="mvtec3d"), "bagel")


def test_seeds_choose_different_generated_shots():
    from pirn_jax.scans import choose_shots

    keys = open_category(TrainConfig(), "flange").train.keys
    chosen = {choose_shots(keys, 5, seed, "synthetic", "flange") for seed in range(4)}
    assert len(chosen) == 4


def test_the_environment_names_packages_and_devices():
    found = environment(["a", "b"])
    assert found["command"] == ["a", "b"]
    assert found["packages"]["jax"].count(".") >= 1
    assert found["devices"]
    json.dumps(found)


# Files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode  # as readable as any other file

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "plain"]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"a": 1} b'])
def test_what_is_no_object_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"x\.json"):
        read_object(path)


def test_numbers_that_are_none_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_trees_survive_flattening():
    tree = {"a": {0: np.ones(2), 1: np.zeros((1, 2))}, "b": np.array(3.0)}
    flattened = flatten("p", tree)
    assert sorted(flattened) == ["p.a.0", "p.a.1", "p.b"]
    again = fill("p", tree, flattened, "here")
    assert again["a"][0] is flattened["p.a.0"]
    for broken in ({}, {"p.b": np.ones(1)}, {"p.b": np.array(np.nan)}):
        with pytest.raises(BadInputError, match="expected finite numbers"):
            fill("p", tree, {**flattened, "p.b": None} | broken, "here")


def test_every_line_of_the_scores_says_what_the_data_was():
    rows = [Row("test/good/0", 0, "good", 0.5, None), Row('a,"b', None, "", 1.25, 1)]
    table = scores_table(rows, {"data": "generated", "demo_encoder": True}, {"seed": 3})
    lines = list(csv.DictReader(io.StringIO(table.decode())))
    assert [line["key"] for line in lines] == ["test/good/0", 'a,"b']
    assert [line["label"] for line in lines] == ["0", ""]
    assert [float(line["score"]) for line in lines] == [0.5, 1.25]
    assert {line["data"] for line in lines} == {"generated"}
    assert {line["seed"] for line in lines} == {"3"}


def test_pictures_are_kept_of_the_best_the_worst_and_the_middle():
    rows = [Row(f"g{k:02d}", 0, "good", float(k), 0) for k in range(21)]
    rows += [Row(f"b{k}", 1, "cut", float(k), 1) for k in range(3)]
    chosen = _chosen(rows)
    assert {"g00", "g20", "b0", "b1", "b2"} <= set(chosen)
    assert len(chosen) == len(set(chosen)) == 9


def test_means_are_over_categories_of_means_over_seeds():
    figures = {
        "a": {"seed0": {"x": 0.0, "y": 1.0, "scans": 3.0}, "seed1": {"x": 1.0, "scans": 3.0}},
        "b": {"seed0": {"x": 1.0, "y": 0.0, "scans": 3.0}},
    }
    assert mean_figures(figures) == {"x": 0.75}
    assert mean_figures({}) == {}


def test_long_pictures_shrink_and_keep_their_shape():
    small = shrink(np.zeros((600, 800, 3), np.uint8))
    assert small.shape == (192, 256, 3)
    same = np.zeros((20, 256), np.float32)
    assert shrink(same) is same
    mask = np.zeros((512, 512), np.uint8)
    mask[100:200, 100:200] = 255
    assert set(np.unique(shrink(mask, nearest=True))) == {0, 255}


def test_keys_lead_nowhere():
    assert "/" not in file_name("../../a")
    assert file_name("test/good/1") == "test__good__1"
