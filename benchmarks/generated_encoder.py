"""OpenVINO's encoder written by hand, beside one generated from JAX's trace as exported files are.

    python benchmarks/generated_encoder.py [--encoders NAME ...] [--weights NAME=FILE ...]
        [--seconds N] [--quick] [--json FILE]

Both are the same network from the same parameters, called with one pair of pictures at 224² in host
memory, in turn. In bfloat16 both keep the first block in a float32 graph of its own. Cosines are to
JAX's float32 tokens of those pictures, which are noise. Without a file weights are random, but for
pirn-tiny, whose own lie in the package. It says whether the hand-written one is worth its lines.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
KINDS = ("hand-written", "generated")


def generated(encoder: Any, dtype: str) -> Run:
    """The encoder's blocks as two graphs of ONNX, or one, read by OpenVINO."""
    import jax.numpy as jnp
    from flax import nnx

    from pirn_jax.encoder.vit import EXACT_BLOCKS

    network = nnx.merge(encoder._graph, encoder.parameters)
    layers, front = encoder.layers, 1 + encoder.config.registers
    last = max(layers)
    exact = last if dtype == "float32" else min(EXACT_BLOCKS, *layers, last)

    def first(images: Any) -> Any:
        if exact == last:
            return network.mean_of(images, layers)
        tokens = network.embed(images)
        for block in network.blocks[:exact]:
            tokens = block(tokens)
        return tokens

    def rest(tokens: Any) -> Any:
        kept = []
        for number, block in enumerate(network.blocks[exact:last], exact + 1):
            tokens = block(tokens)
            if number in layers:
                kept.append(tokens[:, front:])
        mean = functools.reduce(jnp.add, kept) / len(layers)
        return network.head(network.norm(mean)) if encoder.config.teacher else mean

    rows, columns = encoder.grid
    requests = [compiled(first, (*encoder.image_size, 3), "f32")]
    if exact < last:
        shape = (front + rows * columns, encoder.config.width)
        requests.append(compiled(rest, shape, "bf16"))

    def run(images: np.ndarray) -> np.ndarray:
        for request in requests:
            request.infer([images], share_inputs=True)
            images = request.get_output_tensor(0).data
        return images.copy()

    return run


def compiled(function: Callable[[Any], Any], shape: tuple[int, ...], precision: str) -> Any:
    """A function of any number of arrays of that shape, ready in OpenVINO."""
    import jax
    import openvino

    from pirn_jax.deploy.conversion import convert
    from pirn_jax.deploy.graph import BATCH, Graph

    given = jax.ShapeDtypeStruct((jax.export.symbolic_shape(BATCH)[0], *shape), np.float32)
    graph = Graph()
    value = graph.input("given", given.shape, given.dtype)
    (found,) = convert(graph, jax.make_jaxpr(function)(given), [value])
    model = graph.finish({"found": found}, "encoder", {}).SerializeToString()
    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    return core.compile_model(core.read_model(model), "CPU", options).create_infer_request()


def worst_cosine(tokens: np.ndarray, reference: np.ndarray) -> float:
    """Of any token."""
    tokens, reference = tokens.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(((tokens * reference).sum(-1) / lengths).min())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    encoders = ("pirn-tiny", "dinov2-small", "dinov2-base")
    parser.add_argument("--encoders", nargs="+", default=encoders)
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--seconds", type=float, default=40, help="most for a row")
    parser.add_argument("--quick", action="store_true", help="pirn-tiny, few runs")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    import openvino  # noqa: F401  # before JAX has threads: on first use it forks

    from bench.measure import environment, interleaved, result_file, show, write
    from pirn_jax.encoder import load_encoder

    files = {"pirn-tiny": None, **dict(given.split("=", 1) for given in arguments.weights)}
    target = result_file(arguments, "generated_encoder")
    result: dict[str, Any] = {"environment": environment(), "encoders": {}}
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    for name in ("pirn-tiny",) if arguments.quick else arguments.encoders:
        ours = load_encoder(name, files.get(name, "random"))
        reference, rows = np.asarray(ours(images)), result["encoders"].setdefault(name, {})
        for dtype in ("float32", "bfloat16"):
            other = load_encoder(name, files.get(name, "random"), dtype=dtype, runtime="openvino")
            calls: tuple[Run, Run] = (
                lambda x, o=other: np.asarray(o._run({}, x)),
                generated(ours, dtype),
            )
            tasks = {
                kind: functools.partial(run, images) for kind, run in zip(KINDS, calls, strict=True)
            }
            cosines = {kind: worst_cosine(task(), reference) for kind, task in tasks.items()}
            runs = 3 if arguments.quick else 200
            times = interleaved(tasks, runs, arguments.seconds)
            rows[dtype] = {"worst_cosine": cosines, "times": times}
            show(times, f"{name}, {dtype}")
            write(target, result)


if __name__ == "__main__":
    main()
