"""What the border's colour gives away."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from harness.jobs import Job
from pirn_jax.config import Config
from recipe_study.rows import GENERATED
from recipe_study.shortcuts import auroc_of_border, border_colour, border_figures


def test_the_border_alone_is_looked_at():
    rgb = np.full((50, 60, 3), 7, np.uint8)
    rgb[10:-10, 10:-10] = 255
    np.testing.assert_array_equal(border_colour(rgb), [7, 7, 7])
    rgb[0] = 107
    assert border_colour(rgb)[0] == pytest.approx(7 + 100 * 60 / (50 * 60 - 30 * 40))


def test_another_exposure_behind_the_defects_is_seen_and_chance_is_chance():
    rng = np.random.default_rng(0)
    good, colours = rng.normal(100, 5, (20, 3)), rng.normal(100, 5, (400, 3))
    bad = np.arange(400) >= 200
    chance = auroc_of_border(good, colours, bad)
    assert chance["border distance"] == pytest.approx(0.5, abs=0.06)
    assert 0.5 <= chance["border oracle"] < 0.6
    colours[bad, 1] -= 12  # darker: one direction of one channel
    told = auroc_of_border(good, colours, bad)
    away = (((colours - good.mean(0)) / good.std(0)) ** 2).mean(1)
    assert told["border distance"] == pytest.approx(roc_auc_score(bad, away))
    assert told["border oracle"] == pytest.approx(roc_auc_score(bad, -colours[:, 1]))
    assert told["border oracle"] > 0.9


def test_figures_of_a_set_are_kept_in_the_cache(tmp_path):
    one = next(s for s in GENERATED if s.name == "flange")
    options = (("test", 6), ("train", 3), ("size", 64))
    job = Job(Config(encoder="pirn-tiny"), one.place, one.dataset, options=options)
    found = border_figures(one, job, tmp_path)
    assert set(found) == {"border distance", "border oracle"}
    (file,) = (tmp_path / "border").iterdir()
    file.write_text('{"kept": 1}')
    assert border_figures(one, job, tmp_path) == {"kept": 1}
