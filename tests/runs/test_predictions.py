"""What predict reads with; no model is needed."""

import json

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.runs.predictions import heatmap
from pirn_jax.scans import Intrinsics, Options, Scan
from pirn_jax.scans.datasets.judged import find_scans, options_of
from pirn_jax.scans.formats.options import Reading
from pirn_jax.scoring import Calibration
from tests.scans import layouts

CAMERA = {"fx": 30.0, "fy": 30.0, "cx": 8.0, "cy": 6.0, "depth_scale": 1e-4}


def test_scans_are_read_as_in_training_but_for_what_is_given_now():
    origin = {"reading": {"scale": 2.0, "white": 4095, "intrinsics": CAMERA}}
    options, camera = options_of(origin, Reading())
    assert (options.unit, options.scale, options.white) == ("auto", 2.0, 4095)
    assert camera == Intrinsics(**CAMERA)
    options, _ = options_of(origin, Reading(unit="mm", scale=3.0))
    assert (options.unit, options.scale, options.white) == ("mm", 3.0, 4095)
    assert options_of({}, Reading()) == (Options(unit="auto"), None)
    for damage in ({"payload": 1}, {"limits": {"pixels": 10**12}}, {"white": "x"}):
        with pytest.raises(BadInputError, match="damaged"):
            options_of({"reading": damage}, Reading())


@pytest.mark.parametrize("source", ["model", "beside", "below", "given"])
def test_the_camera_of_depth_maps(tmp_path, source):
    """Given, else beside the part or above it in what was handed over, else the run's."""
    layouts.picture(tmp_path / "part_1/depth.png", np.full(layouts.SIZE, 5000, np.uint16))
    right, wrong = CAMERA, CAMERA | {"depth_scale": 2e-4}
    options, model = Options(unit="auto"), Intrinsics(**(right if source == "model" else wrong))
    if source == "beside":
        (tmp_path / "part_1/intrinsics.json").write_text(json.dumps(right))
    if source in ("below", "beside"):
        document = right if source == "below" else wrong
        (tmp_path / "intrinsics.json").write_text(json.dumps(document))
    if source == "given":
        options = Options(unit="auto", intrinsics=Intrinsics(**right))
    scans, left_out = find_scans([tmp_path], {}, ("normals",), options, None, model)
    assert left_out == ()
    assert np.allclose(scans[0].xyz[..., 2], 0.5)
    named, _ = find_scans([], {"depth": tmp_path / "part_1/depth.png"}, ("normals",),
                          Options(unit="auto", intrinsics=Intrinsics(**right)))  # fmt: skip
    assert np.array_equal(named[0].xyz, scans[0].xyz)


def test_nothing_to_predict_is_said(tmp_path):
    options = Options()
    with pytest.raises(ConfigError, match="nothing to predict"):
        find_scans([], {}, ("rgb",), options)
    with pytest.raises(ConfigError, match="give the one or the other"):
        find_scans([tmp_path], {"rgb": tmp_path}, ("rgb",), options)
    with pytest.raises(BadInputError, match="no scans to predict"):
        find_scans([tmp_path], {}, ("rgb",), options)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_heatmaps_are_coloured_strip_by_strip(threshold, monkeypatch):
    rng = np.random.default_rng(0)
    scan = Scan(rng.integers(0, 256, (20, 30, 3), np.uint8), None, np.ones((20, 30), bool))
    values = rng.random((20, 30), np.float32)
    calibration = threshold and Calibration(threshold, 0.2, 5, 1, 0.05, 0.2, 0.4)
    whole = heatmap(scan, values, calibration)
    assert whole.shape == (20, 30, 3)
    monkeypatch.setattr("pirn_jax.report.heatmap._STRIP", 100)
    np.testing.assert_array_equal(heatmap(scan, values, calibration), whole)
    alone = heatmap(scan._replace(rgb=None), values, calibration)
    grey = scan.rgb.mean(-1, keepdims=True)
    np.testing.assert_array_equal(whole, np.rint(0.65 * alone + 0.35 * grey).astype(np.uint8))
