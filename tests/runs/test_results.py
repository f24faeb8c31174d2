"""What one model says of its test scans, where there are none."""

from pirn_jax.config import Config
from pirn_jax.detector import PIRN
from pirn_jax.report import write_report
from pirn_jax.report.layout import model_folder
from pirn_jax.report.schema import Provenance
from pirn_jax.runs.results import write_results
from pirn_jax.scoring import calibrate


def test_a_model_without_test_scans_still_has_its_threshold(tmp_path):
    model = PIRN(Config(encoder="pirn-tiny"))
    model.calibration = calibrate([0.125, 0.25, 0.375])
    place = model_folder(tmp_path, "part", 0)
    found = write_results(place, model, [], Provenance("real", False))
    assert not found.rows
    page = write_report(tmp_path).read_text()
    assert "Threshold 0.375" in page
    assert "There are no test scans" in page
