"""A pair judged by JAX, ONNX Runtime and OpenVINO, and how long each takes from start to heatmap.

    PYTHONPATH=runtime python benchmarks/runtimes.py [--quick] [--encoder NAME] [--weights FILE]

`pictures` is the exported graph alone: pictures as the encoder sees them, in host memory, to map
and score, one pair a call. `scan` is everything from the arrays of a photograph and its points to
score, map, mask and regions: background and normals too. A start is a process of its own, from
before Python's to after the first heatmap, files read, in both packages from a checkout; JAX finds
its compiled programs kept. The default method learns from five generated flanges.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = ("onnxruntime", "openvino")
_START = {
    "jax": "from pirn_jax import PIRN; from pirn_jax.training import use_compilation_cache as c; "
    "c('cache'); print(PIRN.load('model').predict({'rgb': 'a.png', 'xyz': 'a.npy'}).pred_score)",
    "onnxruntime": "from pirn_runtime import Judge; "
    "print(Judge('part.onnx').predict({'rgb': 'a.png', 'xyz': 'a.npy'}).pred_score)",
}
_START["openvino"] = _START["onnxruntime"].replace("onnx')", "onnx', runtime='openvino')")


def start(kind: str, folder: Path) -> float:
    """Seconds of one process that judges one scan from its files."""
    places = [str(ROOT), str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    begin = time.perf_counter()
    command = [sys.executable, "-c", _START[kind]]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs, at 56 px")
    parser.add_argument("--encoder", default="pirn-tiny")
    parser.add_argument("--weights", default=None, help="of the encoder")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    import openvino  # noqa: F401  # before JAX has threads: on first use it forks

    from bench.measure import bars, environment, interleaved, result_file, show, write
    from pirn_jax import PIRN, Config, open_dataset
    from pirn_jax.deploy.export import export_model
    from pirn_runtime import Judge

    target = result_file(arguments, f"runtimes_{arguments.encoder}")
    size, runs = (56, 3) if arguments.quick else (224, 60)
    data = open_dataset("synthetic", None, "flange")
    config = Config(encoder=arguments.encoder, weights=arguments.weights, image_size=size)
    model = PIRN(config).fit(data.train[: 2 if arguments.quick else 5])
    model.set_threshold([0.1, 0.2])
    scan = data.test[0]
    assert scan.rgb is not None
    assert scan.xyz is not None
    result: dict[str, Any] = {"environment": environment(), "encoder": arguments.encoder}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "model")
        export_model(folder / "model", folder / "part.onnx", weights=arguments.weights)
        judges = {kind: Judge(folder / "part.onnx", runtime=kind) for kind in RUNTIMES}
        result["megabytes"] = (folder / "part.onnx").stat().st_size / 1e6
        result["largest_difference"] = {
            kind: difference(model, judge, scan) for kind, judge in judges.items()
        }
        graphs = {"jax": by_jax(model, scan)}
        graphs |= {kind: by_graph(judge, scan) for kind, judge in judges.items()}
        result["pictures"] = interleaved(graphs, runs)
        show(result["pictures"], f"{arguments.encoder}, {size} px: pictures to map and score")
        write(target, result)
        whole: dict[str, Callable[[], Any]] = {"jax": lambda: model.predict(scan)}
        whole |= {kind: lambda j=judge: j(scan.rgb, scan.xyz) for kind, judge in judges.items()}
        result["scan"] = interleaved(whole, runs)
        show(result["scan"], "arrays of a scan to score, map, mask and regions")
        write(target, result)
        Image.fromarray(scan.rgb).save(folder / "a.png")
        np.save(folder / "a.npy", scan.xyz)
        starts: dict[str, list[float]] = {kind: [] for kind in _START}
        start("jax", folder)  # fills the cache
        for _ in range(1 if arguments.quick else 3):
            for kind, seconds in starts.items():
                seconds.append(start(kind, folder))
        result["start_seconds"] = {kind: float(np.median(s)) for kind, s in starts.items()}
        for kind, seconds in result["start_seconds"].items():
            print(f"start to first heatmap, {kind}: {seconds:.2f} s")
    write(target, result)
    medians = {kind: found["median_ms"] for kind, found in result["pictures"].items()}
    bars(target.with_suffix(".png"), medians, "ms", f"A pair, {arguments.encoder}, {size} px")


def by_jax(model: Any, scan: Any) -> Callable[[], Any]:
    """The compiled program on pictures in host memory, to host memory."""
    import jax

    from pirn_jax.detector import view_scan
    from pirn_jax.training import token_validity

    views = view_scan(scan, model.config)
    pictures = np.stack([[getattr(views, name)] for name in model.config.modalities])
    valid = token_validity(views.valid, model.encoder.grid)[None]
    run, given = model.inference.from_pictures, (model.encoder.parameters, *model.parameters)
    return lambda: jax.device_get(run(*given, pictures, valid)[:3])


def by_graph(judge: Any, scan: Any) -> Callable[[], Any]:
    """The exported graph on the same."""
    views = judge.show(scan)
    inputs = {"valid": views.valid[None], "normals": views.normals[None]}
    inputs["rgb"] = np.rint(views.rgb * 255).astype(np.uint8)[None]
    return lambda: judge.graph(inputs)


def difference(model: Any, judge: Any, scan: Any) -> float:
    """Largest difference of the two maps of a scan, as a share of the largest value."""
    ours, its = model.predict(scan).anomaly_map, judge(scan.rgb, scan.xyz).anomaly_map
    return float(np.abs(ours - its).max() / ours.max())


if __name__ == "__main__":
    main()
