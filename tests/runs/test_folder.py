"""The folder of a run: claimed once, resumed with the same settings, its models found."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from pirn_jax.config import Config, TrainConfig, with_settings
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.report.schema import Provenance, environment_document
from pirn_jax.report.tables import ScoreRow
from pirn_jax.runs import check_run_folder, environment, mean_figures, open_run, trained_models
from pirn_jax.runs.folder import stored_config
from pirn_jax.runs.items import open_category
from pirn_jax.runs.outputs import RUN_FORMAT, going_on
from pirn_jax.runs.results import choose_shown, shrink
from pirn_jax.storage import write_json


def started(path, **changes):
    config = TrainConfig(out=str(path), **changes)
    assert not check_run_folder(config)
    with going_on(path, RUN_FORMAT):
        write_json(path / "config.json", stored_config(config))
    return config


def test_a_run_is_never_overwritten_unasked(tmp_path):
    config = started(tmp_path / "run")
    with pytest.raises(ConfigError, match="--overwrite"):
        check_run_folder(config)
    assert not check_run_folder(dataclasses.replace(config, overwrite=True))
    assert (tmp_path / "run" / "config.json").exists()  # until the new one is whole


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
@pytest.mark.parametrize("foreign", ["a.png", "manifest.json", "metrics.json"])
def test_only_runs_are_replaced(tmp_path, foreign, flag):
    (tmp_path / foreign).write_text("{}")
    with pytest.raises(ConfigError, match="other files in this folder"):
        check_run_folder(TrainConfig(out=str(tmp_path), **{flag: True}))


def test_a_config_json_makes_no_folder_ours(tmp_path):
    """As it lies beside most networks of the hub."""
    write_json(tmp_path / "config.json", stored_config(TrainConfig()))
    with pytest.raises(ConfigError, match="other files in this folder"):
        check_run_folder(TrainConfig(out=str(tmp_path), overwrite=True))


def test_data_in_a_run_folder_is_not_replaced(tmp_path):
    started(tmp_path / "run")
    data = tmp_path / "run" / "data"
    data.mkdir()
    config = TrainConfig(out=str(tmp_path / "run"), overwrite=True, dataset="folder")
    with pytest.raises(ConfigError, match="lies in the folder whose results would be replaced"):
        check_run_folder(dataclasses.replace(config, data_root=str(data)))


def test_resume_needs_the_same_settings(tmp_path):
    config = started(tmp_path / "run", shots=3)
    folder = tmp_path / "run"
    assert not check_run_folder(dataclasses.replace(config, resume=True, parallel="none"))
    assert stored_config(open_run(folder)) == stored_config(config)
    with pytest.raises(ConfigError, match="shots = 3, not 4"):
        check_run_folder(dataclasses.replace(config, resume=True, shots=4))
    (folder / "metrics.json").write_text("{}")
    (folder / "report.html").write_text("")
    assert check_run_folder(dataclasses.replace(config, resume=True))


def test_a_run_that_names_code_is_not_opened_and_none_of_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "payload_of_a_run.py").write_text("def f(cost, **_): return cost")
    monkeypatch.syspath_prepend(tmp_path)
    own = with_settings(Config(method="pirn"), {"decoder.assignment": "payload_of_a_run:f"})
    config = started(tmp_path / "run", detector=own)
    with pytest.raises(ConfigError, match="names code"):
        open_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="names code"):
        check_run_folder(TrainConfig(out=config.out, resume=True))
    found = open_run(tmp_path / "run", ("payload_of_a_run:f",)).detector
    assert found.chosen_recipe == own.chosen_recipe
    assert not check_run_folder(dataclasses.replace(config, resume=True))
    assert "payload_of_a_run" not in sys.modules


def test_resume_of_nothing_begins(tmp_path):
    config = TrainConfig(out=str(tmp_path / "new"), resume=True)
    assert not check_run_folder(config)
    with going_on(tmp_path / "new", RUN_FORMAT):  # killed before anything else was written
        pass
    assert not check_run_folder(config)


def test_models_are_found_by_category_and_seed(tmp_path):
    for name in ("b/seed1", "a/seed10", "a/seed2", "a/seedling", "a/other"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
    found = [(place.category, place.seed) for place in trained_models(tmp_path)]
    assert found == [("a", 2), ("a", 10), ("b", 1)]
    assert [place.seed for place in trained_models(tmp_path, ("b",))] == [1]
    with pytest.raises(BadInputError, match="no model of category 'c'; there are a, b"):
        trained_models(tmp_path, ("c",))
    with pytest.raises(BadInputError, match="no trained model"):
        trained_models(tmp_path / "a")


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
    assert found.command == ("a", "b")
    assert found.packages["jax"].count(".") >= 1
    assert found.devices
    json.dumps(environment_document(found, Provenance("real", False)))


# Results


def test_pictures_are_kept_of_the_best_the_worst_and_the_middle():
    rows = [ScoreRow(f"g{k:02d}", 0, "good", float(k), 0) for k in range(21)]
    rows += [ScoreRow(f"b{k}", 1, "cut", float(k), 1) for k in range(3)]
    chosen = choose_shown(rows)
    assert {"g00", "g20", "b0", "b1", "b2"} <= set(chosen)
    assert len(chosen) == len(set(chosen)) == 9


def test_means_are_over_categories_of_means_over_seeds():
    figures = {
        "a": {0: {"x": 0.0, "y": 1.0, "scans": 3.0}, 1: {"x": 1.0, "scans": 3.0}},
        "b": {0: {"x": 1.0, "y": 0.0, "scans": 3.0}},
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
