"""What is handed to an NVIDIA GPU: buffers, products, kernels, loops of each program; needs no GPU.

    python benchmarks/lowered.py [--encoder NAME] [--rows NAME ...] [--quick] [--json FILE]

Programs are lowered for CUDA as they would be there, cuDNN's attention included, and counted before
XLA optimises them: what XLA fuses is not seen, what it cannot mend is. A function that is called
twice counts twice; the body of a loop counts once. `arrays` are those a call hands over, with the
parameters packed as a detector passes them, and `as_trees` without; those not used do not count.
`exact` are the products that ask for full float32; the other float32 ones are TensorFloat-32 there.

An older commit is counted by this file put into its checkout, with the rows that it has.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from bench.measure import environment, result_file, write
from bench.pair import Pair, build, decoder_config
from pirn_jax.decoder import Tokens, abstract_params
from pirn_jax.encoder import Encoder, load_encoder, vit
from pirn_jax.methods.pirn import RECIPES
from pirn_jax.training.step import Batches, create_states, run_steps

PAIRS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, solver pallas": {"solver": "pallas"},
    "default, dense graph": {"change": {"decoder.graph": "dense"}},
    "paper": {"recipe": "paper"},
    "paper, solver pallas": {"recipe": "paper", "solver": "pallas"},
    "mixture": {"method": "mixture"},
    "inp-former": {"method": "inp-former"},
}
"""How each pair is built, by its row."""
STEPS = {f"training step, solver {solver}": solver for solver in ("kernel", "pallas")}
"""The solver of each training step, by its row."""
SHOWN = {
    "products": ("stablehlo.dot_general",),
    "kernels": ("stablehlo.custom_call",),
    "loops": ("stablehlo.while",),
    "sorts": ("stablehlo.sort", "chlo.top_k"),
    "gathers": ("stablehlo.gather", "stablehlo.dynamic_gather"),
    "scatters": ("stablehlo.scatter",),
}
_TRITON_ASKS = "jax._src.pallas.triton.gpu_info"
"""Where Pallas asks for the GPU's name, from jax 0.12 on."""


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Choices made while tracing fall as on a GPU of the Hopper generation with cuDNN 9.10."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    changes = [
        mock.patch.object(vit, "_has_fused_attention", return_value=True),
        mock.patch.object(fused, "check_cudnn_version", return_value=91000),
        mock.patch.object(fused, "check_compute_capability", return_value=True),
    ]
    if find_spec(_TRITON_ASKS):  # an abstract GPU would do, but cuDNN's attention refuses one
        changes.append(mock.patch(f"{_TRITON_ASKS}.get_device_kind", return_value="NVIDIA H100"))
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield


def counted(function: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """Operations of a function lowered for CUDA, by kind."""
    with as_on_a_gpu():
        lowered = jax.jit(function).trace(*given).lower(lowering_platforms=("cuda",))
    module = lowered.compiler_ir("stablehlo")
    assert module is not None
    functions = {
        operation.attributes["sym_name"].value: operation for operation in module.body.operations
    }
    found: Counter[str] = Counter()
    targets: Counter[str] = Counter()

    def walk(operation: Any) -> None:
        for region in operation.regions:
            for block in region:
                for inner in block:
                    name = inner.operation.name
                    found[name] += 1
                    if "precision_config" in inner.attributes:
                        found["exact"] += "HIGHEST" in str(inner.attributes["precision_config"])
                    if name == "func.call":
                        walk(functions[inner.attributes["callee"].value])
                    elif name == "stablehlo.custom_call":
                        targets[inner.attributes["call_target_name"].value] += 1
                    walk(inner.operation)

    walk(functions["main"])
    row: dict[str, Any] = {"arrays": len(functions["main"].regions[0].blocks[0].arguments)}
    row |= {what: sum(found[name] for name in names) for what, names in SHOWN.items()}
    row["exact"] = found.pop("exact")
    row["operations"] = sum(n for name, n in found.items() if name != "func.call")
    return row | {"targets": dict(targets)}


def pair_row(encoder: Encoder, options: dict[str, Any]) -> dict[str, Any]:
    """The pair, pictures to score."""
    pair = build(encoder.config.name, dtype="bfloat16", known=encoder, **options)
    trees = (pair.encoder.parameters, *pair.model.parameters)
    row = counted(pair.program, *shapes_of(pair.given, pair))
    return row | {"as_trees": counted(pair.program, *shapes_of(trees, pair))["arrays"]}


def shapes_of(weights: tuple[Any, ...], pair: Pair) -> tuple[Any, ...]:
    """What a call of the pair's program is given, as shapes."""
    given = (*weights, pair.pictures(), pair.valid())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given)


def step_row(channels: int, solver: str) -> dict[str, Any]:
    """A training step of the default recipe: one job, five shots."""
    recipe = RECIPES["default"].for_detector(("rgb", "normals"), solver)
    size = min(recipe.batch_size, 5)
    shots = Tokens(np.zeros((1, 2, 5, 256, channels), np.float32))
    state = jax.eval_shape(partial(create_states, recipe), shots, np.zeros((1,), np.uint32))
    each = (1, 1, size)
    batches = Batches(
        np.zeros(each, np.int32), None, np.zeros(each, np.float32), np.zeros(each, np.uint32)
    )
    graph, _, _ = abstract_params(decoder_config("default", solver=solver), channels)
    return counted(partial(run_steps, graph, recipe), state, shots, batches)


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="dinov2-base")
    names = (*PAIRS, *STEPS)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="encoder S")
    parser.add_argument("--json", type=Path, help="results/lowered.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "lowered")
    encoder = "dinov2-small" if arguments.quick else arguments.encoder
    network, rows = load_encoder(encoder, "random", dtype="bfloat16"), {}
    for name in arguments.rows:
        if name in PAIRS:
            rows[name] = pair_row(network, PAIRS[name])
        else:
            rows[name] = step_row(network.config.width, STEPS[name])
        print(f"{name:32} " + " ".join(f"{k} {v}" for k, v in rows[name].items()))
    write(target, {"environment": environment(), "encoder": encoder, "rows": rows})


if __name__ == "__main__":
    main()
