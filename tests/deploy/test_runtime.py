"""The runtime against the package it is to say the same as."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pirn_jax.detector.judging import part_finder
from pirn_jax.detector.preprocessing import view_scan
from pirn_jax.errors import BadInputError, ConfigError, NotJudgedError
from pirn_jax.geometry.normals import grid_normals
from pirn_jax.geometry.plane_fits import numpy_normals
from pirn_jax.scans import open_dataset

pytest.importorskip("onnxruntime")
from pirn_runtime import Judge
from pirn_runtime.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = (
    *("jax", "flax", "scipy", "pirn_jax", "safetensors", "rich", "tyro", "pydantic"),
    *("matplotlib", "onnx"),
)


@pytest.fixture(scope="module")
def judge(saved):
    return Judge(saved[1] / "part.onnx")


@pytest.fixture(scope="module")
def scans():
    return list(open_dataset("synthetic", None, "flange").test[:2])


@pytest.mark.slow
def test_the_same_verdict(saved, judge, scans):
    model, _ = saved
    for scan in scans:
        ours, its = model.predict(scan), judge(scan.rgb, scan.xyz)
        scale = float(ours.anomaly_map.max())
        assert its.pred_score == pytest.approx(ours.pred_score, abs=1e-4 * scale)
        assert its.pred_label == ours.pred_label
        assert its.maps.keys() == ours.maps.keys()
        for name in ours.maps:
            assert np.abs(its.maps[name] - ours.maps[name]).max() <= 1e-4 * scale
        assert (its.pred_mask != ours.pred_mask).mean() < 1e-3
        assert len(its.regions) == len(ours.regions)
        assert its.regions[0].area_mm2 == pytest.approx(ours.regions[0].area_mm2, rel=0.02)


@pytest.mark.slow
def test_views_are_equal_to_1e_4(saved, judge, scans):
    model, _ = saved
    for scan in scans:
        ours, its = view_scan(scan, model.config), judge.show(scan)
        assert its.frame == ours.frame
        np.testing.assert_array_equal(its.valid, ours.valid)
        np.testing.assert_array_equal(its.rgb, ours.rgb)
        np.testing.assert_allclose(its.normals, ours.normals, atol=1e-4)


def test_normals_given_are_those_computed(judge, scans):
    scan = scans[0]
    normals = numpy_normals(scan.xyz, scan.valid)
    computed, given = judge(scan.rgb, scan.xyz), judge(scan.rgb, scan.xyz, normals)
    # Those given are of the whole scan, and the part's border sees the table.
    assert given.pred_score == pytest.approx(computed.pred_score, rel=0.2)


@pytest.mark.parametrize("pinhole", [True, False])
def test_normals_in_numpy_are_jaxs(pinhole):
    random = np.random.default_rng(3)
    row, column = np.mgrid[:90, :70].astype(np.float32)
    z = (
        0.5
        + 0.01 * np.sin(row / 9)
        + 0.02 * (column > 40)
        + 1e-5 * random.standard_normal((90, 70))
    )
    x, y = (column - 35) / 500, (row - 45) / 500
    xyz = np.stack([x * z, y * z, z] if pinhole else [x, y, z], -1).astype(np.float32)
    valid = random.random((90, 70)) < 0.9
    np.testing.assert_allclose(
        numpy_normals(xyz, valid), np.asarray(grid_normals(xyz, valid)), atol=1e-4
    )


def write(scan, folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scan.rgb).save(folder / f"{name}.png")
    np.save(folder / f"{name}.npy", scan.xyz)


RULES = """
[threshold]
part = 0.001
pixel = 0.015
[least]
area_mm2 = 1.0
[severity.zones]
left = 3.0
[[not_ok]]
name = "any on the left"
zone = "left"
[[not_ok]]
name = "two anywhere"
count = 2
"""
ZONES = """
size = [{0}, {1}]
part = "part.png"
[zones.left]
polygon = [[0, 0], [{2}, 0], [{2}, {0}], [0, {0}]]
[zones.hole]
judged = false
mask = "hole.png"
"""


def write_judging(folder, scan, part):
    """Rules, and zones that move with the part."""
    height, width = scan.valid.shape
    hole = np.zeros((height, width), np.uint8)
    hole[height // 2 :, : width // 2] = 255
    Image.fromarray(hole).save(folder / "hole.png")
    Image.fromarray(part.astype(np.uint8) * 255).save(folder / "part.png")
    (folder / "zones.toml").write_text(ZONES.format(height, width, width // 2))
    (folder / "rules.toml").write_text(RULES)
    return ["--rules", str(folder / "rules.toml"), "--roi", str(folder / "zones.toml")]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["threshold", "rules"])
def test_the_same_lines_as_predict(saved, scans, tmp_path, capsys, by):
    from pirn_jax.predict import main as predict

    model, place = saved
    for number, scan in enumerate(scans):
        write(scan, tmp_path / "parts", f"part{number}")
    more = []
    if by == "rules":
        more = write_judging(tmp_path, scans[0], part_finder(model.looking)(scans[0]))
    parts = str(tmp_path / "parts")
    main([str(place / "part.onnx"), parts, "--out", str(tmp_path / "its"), *more])
    its = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    predict([str(place / "model"), parts, "--out", str(tmp_path / "ours"), *more])
    ours = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(its) == len(ours) == 2
    for one, other in zip(its, ours, strict=True):
        assert one.keys() == other.keys()
        apart = ("time", "versions", "score", "regions", "heatmap", "mask")
        assert {n: v for n, v in one.items() if n not in apart} == {
            n: v for n, v in other.items() if n not in apart
        }
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
        assert len(one["regions"]) == len(other["regions"])
        for region, expected in zip(one["regions"], other["regions"], strict=True):
            assert region.keys() == expected.keys()
            for name in ("zones", "counts", "box"):
                assert region[name] == expected[name]
            assert region["severity"] == pytest.approx(expected["severity"], rel=1e-3)
        mask, wanted = (np.asarray(Image.open(r["mask"])) for r in (one, other))
        assert (mask != wanted).mean() < 1e-3
        heat, expected = (np.asarray(Image.open(r["heatmap"])).astype(int) for r in (one, other))
        assert np.abs(heat - expected).mean() < 0.1
    lines = (tmp_path / "its/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == its
    if by == "rules":
        assert {one["rule"] for one in its} <= {"any on the left", "two anywhere", "no rule holds"}
        assert any(region["zones"] for one in its for region in one["regions"])


def test_exit_codes(saved, scans, tmp_path, capsys):
    _, place = saved
    file = str(place / "part.onnx")
    write(scans[0], tmp_path / "parts", "good")
    parts = str(tmp_path / "parts")

    def code(*words):
        try:
            main([*words])
        except SystemExit as stopped:
            return stopped.code
        return 0

    assert code(file, parts, "--fail-on-defect", "--threshold", "0") == 1
    assert code(file, parts, "--fail-on-defect", "--threshold", "1e9") == 0
    (tmp_path / "parts/broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "parts/broken.npy").write_bytes(b"")
    assert code(file, parts, "--threshold", "1e9") == 2
    assert code(file) == 3
    assert code(file, parts, "--nonsense") == 3
    (tmp_path / "rules.toml").write_text('[[not_ok]]\nname = "a"\nzone = "nowhere"')
    assert code(file, parts, "--rules", str(tmp_path / "rules.toml")) == 3
    assert code(str(tmp_path / "none.onnx"), parts) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_dead_sensor_is_not_judged(saved, judge, scans, tmp_path, capsys):
    model, place = saved
    dark = scans[0]._replace(rgb=scans[0].rgb // 8)
    with pytest.raises(NotJudgedError) as ours:
        model.predict(dark)
    with pytest.raises(NotJudgedError) as its:
        judge(dark.rgb, dark.xyz)
    assert str(its.value).split(": ", 1)[1] == str(ours.value).split(": ", 1)[1]
    write(dark, tmp_path / "parts", "dark")
    with pytest.raises(SystemExit, match="2"):
        main([str(place / "part.onnx"), str(tmp_path / "parts")])
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["label"], line["score"]) == (None, None)
    assert "dark" in line["not_judged"]


def test_what_cannot_be_judged_is_said(saved, judge, scans, tmp_path):
    _, place = saved
    scan = scans[0]
    for rgb, xyz, words in (
        (scan.rgb, None, "no points or normals"),
        (None, scan.xyz, "no photograph"),
        (scan.rgb.astype(np.float32), scan.xyz, "uint8"),
        (scan.rgb, scan.xyz[:-1], "grid"),
    ):
        with pytest.raises(BadInputError, match=words):
            judge(rgb, xyz)
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        Judge(place / "part.onnx", runtime="openvno")
    (tmp_path / "other.onnx").write_bytes(b"PK\x03\x04" * 9)
    with pytest.raises(BadInputError, match=r"other\.onnx"):
        Judge(tmp_path / "other.onnx")


@pytest.mark.slow
def test_by_openvino(saved, judge, scans):
    pytest.importorskip("openvino")
    _, place = saved
    other = Judge(place / "part.onnx", runtime="openvino")
    pairs = zip(judge.predict_scans(scans), other.predict_scans(scans, batch=2), strict=True)
    for one, two in pairs:
        scale = one.inferred.fused.max()
        difference = one.inferred.fused - two.inferred.fused
        assert np.abs(difference).max() <= 2e-5 * scale


def test_what_is_shared_imports_nothing_but_what_the_runtime_needs(tmp_path):
    """The tree as the wheel has it, where no other package can be imported."""
    sys.path.insert(0, str(ROOT / "runtime"))
    try:
        hook = pytest.importorskip("hatch_build", exc_type=ImportError)
    finally:
        sys.path.remove(str(ROOT / "runtime"))
    made = hook.write_package(ROOT / "pirn_jax", ROOT / "runtime/pirn_runtime", tmp_path)
    names = [
        ".".join(file.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted(made.rglob("*.py"))
        if file.stem not in ("__main__", "generator")
    ]
    code = (
        "import importlib, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {BLOCKED}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "import pirn_runtime.__main__\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    left = [
        f
        for f in made.rglob("*.py")
        if re.search(r"^\s*(from|import) pirn_jax", f.read_text(), re.M)
    ]
    assert not left


@pytest.mark.slow
def test_the_wheel_judges_alone(saved, scans, tmp_path):
    """Built and installed where there is no JAX, with what its metadata asks for."""
    _, place = saved
    write(scans[0], tmp_path / "parts", "one")
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", ROOT / "runtime"], check=True)
    words = [python, "-m", "pirn_runtime", place / "part.onnx", tmp_path / "parts"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["key"] == "one"
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert not re.search(r"^(jax|scipy|flax|pirn-jax) ", listed, re.M)
