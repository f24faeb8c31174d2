"""Exported models in ONNX Runtime and OpenVINO, against JAX: maps within 5e-5 of their largest."""

import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from pirn_jax.deploy.description import parse_description, read_entry
from pirn_jax.deploy.export import export_model
from pirn_jax.deploy.files import write_onnx
from pirn_jax.deploy.program import METHODS, build_program
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import open_dataset

from .models import trained

onnxruntime = pytest.importorskip("onnxruntime")
ALLOWED = 5e-5
"""Largest difference of a map's value, as a share of the largest value of all the scans' maps."""


def judged(model, scans, batch):
    """What JAX says, and what a file is given to say the same."""
    found = list(model.predict_scans(scans, batch=batch))
    inputs = {"valid": np.stack([each.views.valid for each in found])}
    if "rgb" in model.config.modalities:
        inputs["rgb"] = np.rint(255 * np.stack([e.views.rgb for e in found])).astype(np.uint8)
    if "normals" in model.config.modalities:
        inputs["normals"] = np.stack([each.views.normals for each in found])
    return [each.inferred for each in found], inputs


def check(expected, outputs, modalities, scale=None):
    scale = scale or max(each.fused.max() for each in expected)
    pairs = {"map": [e.fused for e in expected], "score": [e.score for e in expected]}
    pairs |= {f"map_{n}": [e.maps[i] for e in expected] for i, n in enumerate(modalities)}
    assert set(outputs) == set(pairs)
    for name, wanted in pairs.items():
        assert np.abs(outputs[name] - np.asarray(wanted)).max() <= ALLOWED * scale, name


def by_onnxruntime(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = outputs_of(path)
    return dict(zip(names, session.run(names, inputs), strict=True))


def outputs_of(path):
    return [output.name for output in onnxruntime.InferenceSession(path).get_outputs()]


def by_openvino(path, inputs):
    openvino = pytest.importorskip("openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", options)(inputs)
    return {name: found[name] for name in outputs_of(path)}


def test_the_default_model_says_the_same_in_onnxruntime(saved):
    model, place = saved
    expected, inputs = judged(model, open_dataset("synthetic", None, "flange").test[:3], 3)
    check(expected, by_onnxruntime(place / "part.onnx", inputs), model.config.modalities)
    one = {name: array[1:2] for name, array in inputs.items()}  # any batch, and each scan alone
    scale = max(each.fused.max() for each in expected)
    check(expected[1:2], by_onnxruntime(place / "part.onnx", one), model.config.modalities, scale)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    ("method", "recipe"), [*((name, "default") for name in METHODS), ("pirn", "paper")]
)
def test_every_method_says_the_same_in_both(method, recipe, batch, tmp_path):
    model = trained(method, recipe)
    path = tmp_path / "part.onnx"
    write_onnx(path, build_program(model, batch), {})
    expected, inputs = judged(model, open_dataset("synthetic", None, "flange").test[:2], 2)
    for run in (by_onnxruntime, by_openvino):
        check(expected, run(path, inputs), model.config.modalities)


@pytest.mark.slow
def test_tiles_are_cut_and_joined_within_the_file(tmp_path):
    """Its pictures are the whole view, and so the runtime need not know of tiles."""
    from pirn_runtime import Judge

    model, path = trained("mixture", tiles=2), tmp_path / "part.onnx"
    scans = open_dataset("synthetic", None, "flange").test[:3]
    export_model(model.save(tmp_path / "model"), path)
    expected, inputs = judged(model, scans, 3)
    assert inputs["rgb"].shape == (3, 98, 98, 3)
    for run in (by_onnxruntime, by_openvino):
        check(expected, run(path, inputs), model.config.modalities)
    judge = Judge(path)
    assert judge.description.looking.image_size == 98
    ours, its = model.predict(scans[0]), judge.predict(scans[0])
    scale = float(ours.anomaly_map.max())
    assert its.pred_score == pytest.approx(ours.pred_score, abs=1e-4 * scale)
    assert np.abs(its.anomaly_map - ours.anomaly_map).max() <= 1e-4 * scale


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["rgb", "normals"])
def test_one_modality_alone(modality, tmp_path):
    model = trained("mixture", modalities=(modality,))
    path = tmp_path / "part.onnx"
    write_onnx(path, build_program(model, None), {})
    expected, inputs = judged(model, open_dataset("synthetic", None, "flange").test[:2], 2)
    check(expected, by_onnxruntime(path, inputs), (modality,))


@pytest.mark.slow
def test_stablehlo_says_the_same(saved, tmp_path):
    from jax import export

    model, place = saved
    found = export_model(place / "model", tmp_path / "part.stablehlo", kind="stablehlo", batch=2)
    with zipfile.ZipFile(tmp_path / "part.stablehlo") as archive:
        assert json.loads(archive.read("description.json")) == json.loads(
            json.dumps(found.document())
        )
        program = export.deserialize(bytearray(archive.read("program.bin")))
    expected, inputs = judged(model, open_dataset("synthetic", None, "flange").test[:2], 2)
    given = [inputs[name] for name in (*model.config.modalities, "valid")]
    names = ("score", "map", *(f"map_{name}" for name in model.config.modalities))
    outputs = dict(zip(names, map(np.asarray, jax.jit(program.call)(*given)), strict=True))
    check(expected, outputs, model.config.modalities)


def test_the_description_is_whole(saved):
    model, place = saved
    path = place / "part.onnx"
    text = read_entry(path.read_bytes(), path)
    about = parse_description(text, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"pirn_jax": text}
    assert json.loads(json.dumps(about.document())) == json.loads(text)
    assert about.calibration == model.calibration
    assert about.sight == model.sight
    assert (about.weights, about.licence) == (model.encoder.source.sha256, "Apache-2.0")
    assert (about.trained_on, about.reading) == ("generated", {"unit": "m"})
    assert about.looking.part_side == model.config.part_side
    assert len(about.model) == 16
    assert about.batch is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "pirn_jax part 0"),
        ("image_size", 1 << 20),
        ("image_size", True),
        ("modalities", ["rgb", "heat"]),
        ("views", {}),
        ("batch", 0),
        ("model", 7),
        ("sight", {"size": [1.0, "large"]}),
        ("calibration", {"threshold": "high"}),
        ("reading", None),
    ],
)
def test_a_description_that_lies_is_refused_by_name(saved, field, value):
    _, place = saved
    path = place / "part.onnx"
    document = json.loads(read_entry(path.read_bytes(), path))
    with pytest.raises(BadInputError, match=r"part\.onnx"):
        parse_description(json.dumps(document | {field: value}), path)


def test_damaged_files_are_refused_by_name(saved):
    _, place = saved
    path = place / "part.onnx"
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"\xff" * 64, content[1000:]):
        with pytest.raises(BadInputError, match=r"part\.onnx"):
            read_entry(damaged, path)


def test_weights_in_other_files_are_refused(saved):
    import onnx

    _, place = saved
    model = onnx.load(place / "part.onnx")
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(BadInputError, match="another file"):
        read_entry(model.SerializeToString(), place / "part.onnx")


def test_graphs_unlike_ours_are_refused(saved):
    import onnx

    _, place = saved
    path = place / "part.onnx"
    for words, change in (
        ("not ONNX's own", lambda graph: setattr(graph.node[0], "domain", "com.example")),
        (
            "within an operator",
            lambda graph: graph.node[0].attribute.append(
                onnx.helper.make_attribute("body", onnx.helper.make_graph([], "g", [], []))
            ),
        ),
        ("sparse", lambda graph: graph.sparse_initializer.add()),
    ):
        model = onnx.load(path)
        change(model.graph)
        with pytest.raises(BadInputError, match=words):
            read_entry(model.SerializeToString(), path)


def test_what_cannot_be_exported_is_refused_by_name():
    from dataclasses import replace

    from pirn_jax import PIRN
    from pirn_jax.config import with_settings

    model = trained("mixture")
    for config, words in (
        (replace(model.config, dtype="bfloat16"), "bfloat16"),
        (replace(model.config, method="inp-former", recipe="default"), "inp-former"),
        (with_settings(model.config, {"features": "fpfh"}), "fpfh features"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_program(PIRN(config, encoder=model.encoder), None)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_weights_in_fewer_bits_change_scores_by_little(saved, tmp_path, stored):
    judge = pytest.importorskip("pirn_runtime").Judge
    _, place = saved
    export_model(place / "model", tmp_path / "part.onnx", stored=stored)
    share = (tmp_path / "part.onnx").stat().st_size / (place / "part.onnx").stat().st_size
    assert share < {"float16": 0.6, "int8": 0.4}[stored]
    scans = open_dataset("synthetic", None, "flange").test[:6]
    files = (place / "part.onnx", tmp_path / "part.onnx")
    whole, fewer = ([r.inferred.score for r in judge(f).predict_scans(scans)] for f in files)
    assert fewer == pytest.approx(whole, rel={"float16": 1e-3, "int8": 0.1}[stored])


@pytest.mark.slow
def test_the_command(saved, tmp_path):
    _, place = saved

    def run(*words):
        command = [sys.executable, "-m", "pirn_jax.export", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    out = tmp_path / "part.onnx"
    done = run(place / "model", "--out", out, "--batch", 2, "--stored", "float16", "--threshold", 7)
    assert done.returncode == 0, done.stderr
    about = parse_description(read_entry(out.read_bytes(), out), out)
    assert (about.batch, about.stored) == (2, "float16")
    assert about.calibration is not None
    assert about.calibration.threshold == 7
    assert out.stat().st_size < 0.6 * (place / "part.onnx").stat().st_size
    assert run(place / "model", "--out", out).returncode == 3
    assert run(tmp_path / "nowhere", "--out", tmp_path / "other.onnx").returncode == 2
