"""What `predict` is given: works, or one error that names the shape and type wanted."""

import numpy as np
import pytest

from pirn_jax.detector.given import scan_of
from pirn_jax.errors import BadInputError
from tests.scans import layouts

RGB, XYZ = layouts.photograph(), layouts.points()
ONE, BOTH = ("rgb",), ("rgb", "normals")


def test_what_can_be_understood_is_a_scan(tmp_path):
    layouts.picture(tmp_path / "a.png", RGB)
    layouts.picture(tmp_path / "b.tiff", RGB)
    layouts.point_map(tmp_path / "a.tiff", XYZ)
    for given in (str(tmp_path / "a.png"), tmp_path / "b.tiff", RGB, {"rgb": RGB}):
        scan = scan_of(given, ONE)
        assert np.array_equal(scan.rgb, RGB)
        assert scan_of(scan, ONE) is scan
    assert scan_of(tmp_path / "a.png", ONE).key == "a"
    assert np.array_equal(scan_of(RGB[..., 0], ONE).rgb, np.dstack([RGB[..., 0]] * 3))
    paths = {"rgb": tmp_path / "a.png", "xyz": str(tmp_path / "a.tiff")}
    for given in (paths, {"rgb": RGB, "xyz": XYZ}):
        scan = scan_of(given, BOTH)
        assert np.array_equal(scan.xyz, XYZ)
        assert np.array_equal(scan.valid, (XYZ != 0).any(-1))


@pytest.mark.parametrize(
    ("given", "came", "remedy"),
    [
        (RGB.transpose(2, 0, 1) / np.float32(255), "float32 (3, 12, 16)", "transpose(1, 2, 0)"),
        (RGB / 255.0, "float64 (12, 16, 3)", "255"),
        (RGB.astype(np.uint16), "uint16 (12, 16, 3)", "8 bits"),
        (RGB[None], "uint8 (1, 12, 16, 3)", "one photograph at a time"),
        (np.dstack([RGB, RGB[..., 0]]), "uint8 (12, 16, 4)", "leave out"),
        ({"rgb": RGB, "xyz": XYZ.astype(np.int16)}, "int16 (12, 16, 3)", "zeros"),
        ({"rgb": RGB[:6], "xyz": XYZ}, "(6, 16)", "one grid"),
        ([RGB, RGB], "list of 2", "several calls"),
        (None, "NoneType", "predict_scans"),
        ({"rgb": RGB, "xyz": "a.tiff"}, "dict", "predict_scans"),
        ({"depth": XYZ}, "depth", "xyz"),
    ],
)
def test_anything_else_is_one_clear_error(given, came, remedy):
    with pytest.raises(BadInputError) as caught:
        scan_of(given, BOTH)
    assert came in caught.value.problem
    assert remedy in caught.value.remedy
