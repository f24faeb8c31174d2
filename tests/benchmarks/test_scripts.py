"""Each benchmark runs and writes what it says. Slow: they measure, if only a little."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import systems

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(name, folder, *flags):
    target = folder / f"{name}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick", *flags]
    command += ["--json", str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}  # as runtimes.py asks for
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1800, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(target.read_text())
    where = found["environment"]
    assert where["processor"]
    assert where["date"]
    assert where["versions"]["jax"]
    if name not in ("lowered", "generated_encoder", "fitting"):
        assert target.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return found


def test_runtimes_say_the_same_and_are_timed(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    found = run("runtimes", tmp_path)
    assert {"jax", "onnxruntime", "openvino"} == found["pictures"].keys() == found["scan"].keys()
    assert max(found["largest_difference"].values()) < 1e-4


def test_the_generated_encoder_says_the_same_and_is_timed(tmp_path):
    pytest.importorskip("openvino")
    rows = run("generated_encoder", tmp_path)["encoders"]["pirn-tiny"]
    for dtype, least in (("float32", 1 - 1e-6), ("bfloat16", 0.9995)):
        assert rows[dtype]["times"].keys() == {"hand-written", "generated"}
        assert min(rows[dtype]["worst_cosine"].values()) > least


def test_latency_says_how_we_compare_with_pytorch(tmp_path):
    pytest.importorskip("torch")
    found = run("latency", tmp_path)
    ratios = found["ratio_to_torch"]
    assert {"pair_fp32", "decoder_fp32", "training"} <= ratios.keys()
    assert all(math.isfinite(value) and value > 0 for value in ratios.values())
    times = found["encoders"]["B"]["times"]
    fastest = min(
        found["median_ms"] for name, found in times.items() if "all eager float32" in name
    )
    ours = times["ours jax float32 pirn, device"]["median_ms"]
    assert ratios["pair_fp32"] == pytest.approx(ours / fastest)
    stages = found["encoders"]["B"]["stages"]
    assert {"read", "background and normals", "resize", "encoder", "decoder", "map"} == set(stages)
    measured = {row["system"]: row["measured"] for row in found["table_4"]}
    assert not measured["PIRN (paper, cited)"]
    assert measured["cfm (JAX)"]
    assert measured["inp_former (JAX)"]


def test_other_systems_are_timed_and_counted(tmp_path):
    found = run("systems", tmp_path)
    assert [row["system"] for row in found["table_4"]] == [systems.OURS, *systems.LABELS.values()]
    assert all(row["ms"] > 0 and row["gflops"] > 0 for row in found["table_4"])
    for name in ("m3dm", "ast"):  # of BTF the histograms are no products
        flops = found["flops"][name]
        # XLA counts normalisation, activations and depthwise convolutions' borders too.
        assert 0.9 < flops["xla_g"] / sum(flops["formula_g"].values()) < 1.2


def test_a_gpu_is_handed_few_arrays_and_with_pallas_no_loops(tmp_path):
    rows = run("lowered", tmp_path)["rows"]
    assert rows["default"]["arrays"] < 0.5 * rows["default"]["as_trees"]
    assert rows["default"]["loops"] > rows["default, solver pallas"]["loops"] == 0
    attention = {"__cudnn$fmhaSoftmax": 9}
    assert rows["mixture"]["targets"] == attention
    assert rows["default, solver pallas"]["targets"] == attention | {"__gpu$xla.gpu.triton": 4}
    assert rows["default, dense graph"]["scatters"] == 0


def test_flops_agree_between_formula_and_xla(tmp_path):
    row = run("flops", tmp_path)["pairs"]["dinov2-small default"]
    # XLA counts normalisation, softmax and GELU too.
    assert 1 < row["xla_g"]["encoder"] / row["encoder_formula_g"] < 1.05
    assert 1 < row["xla_g"]["total"] / row["total_executed_g"] < 1.05


def test_throughput_has_a_row_per_batch(tmp_path):
    found = run("throughput", tmp_path)
    assert {"float32", "bfloat16 mixture", "bfloat16 inp-former"} <= found["rows"].keys()
    for rows in found["rows"].values():
        assert all(row["pairs_per_second"] > 0 for row in rows.values())
        assert set(rows) <= {"1", "2"}


def test_scaling_gives_the_same_scores_on_every_number_of_devices(tmp_path):
    found = run("scaling", tmp_path)
    assert set(found["devices"]) == {"1", "2"}
    assert all(row["largest_difference"] < 1e-5 for row in found["devices"].values())
    assert {"encoder N 16", "decoder paper N 64"} <= found["tokens"].keys()
    assert "decoder default K 5" in found["prototypes"]


def test_fitting_times_both_modalities_and_one(tmp_path):
    rows = run("fitting", tmp_path)["rows"]
    assert [row["modalities"] for row in rows] == ["both", "photograph"]
    assert all(0 < row["again_s"] <= row["first_s"] for row in rows)


def test_cold_start_times_every_kind_of_cache(tmp_path):
    found = run("cold_start", tmp_path)
    assert set(found["median"]) == {"none", "empty", "filled"}
    for steps in found["median"].values():
        parts = sum(s for name, s in steps.items() if name.split()[0] not in ("total", "second"))
        assert steps["total to the first heatmap"] == pytest.approx(parts)
