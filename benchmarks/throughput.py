"""Pairs a second at batch 1 to 256, memory, and the share of this device's measured matrix peak.

    python benchmarks/throughput.py [--encoder NAME] [--dtypes D D] [--batches B B]
        [--methods M M] [--quick] [--json FILE]

Pictures lie on the device, maps and scores stay there. The peak is what XLA reaches in one product
of two 4096×4096 matrices, measured in turn with each batch; the share compares it with the FLOPs of
the pair's encoder by formula. Memory is what the program needs beside weights and pictures, by
XLA's own account; on a GPU also the peak of the allocator. Batches stop growing after one that
takes longer than `--seconds`. Each row is written as soon as it is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bench.measure import environment, interleaved, lines, result_file, write
from bench.pair import build
from flops import by_formula

SIDE = 4096
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
METHODS = ("pirn", "mixture", "inp-former")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="dinov2-base")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--batches", nargs="+", type=int, default=[2**i for i in range(9)])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--quick", action="store_true", help="encoder S, batch 1 and 2")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest call")
    parser.add_argument("--json", type=Path, help="results/throughput.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "throughput")
    if arguments.quick:
        arguments.encoder, arguments.batches = "dinov2-small", [1, 2]
    result: dict[str, Any] = {
        "environment": environment(),
        "encoder": arguments.encoder,
        "gflops_of_a_pair": sum(by_formula(arguments.encoder, "default").values()),
        "rows": {},
    }
    for method in arguments.methods:
        for dtype in arguments.dtypes:
            name = dtype if method == "pirn" else f"{dtype} {method}"
            result["rows"][name] = {}
            measure(name, method, dtype, arguments, result, target)
            jax.clear_caches()
    curves: dict[str, dict[float, float]] = {
        name: {int(batch): row["pairs_per_second"] for batch, row in rows.items()}
        for name, rows in result["rows"].items()
    }
    lines(target, curves, ("batch", "pairs a second"), f"{arguments.encoder}, 224²")


def measure(
    name: str,
    method: str,
    dtype: Literal["float32", "bfloat16"],
    arguments: argparse.Namespace,
    result: dict[str, Any],
    target: Path,
) -> None:
    """Rows by batch, each added to the result and written."""
    pair = build(arguments.encoder, dtype=dtype, method=method)
    side = SIDE // 4 if arguments.quick else SIDE
    square = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    precision = "highest" if dtype == "float32" else "default"  # as in the encoder
    product = jax.jit(
        lambda x: jnp.matmul(x, x, precision=precision, preferred_element_type=jnp.float32)
    )
    for batch in arguments.batches:
        pictures, valid = jax.device_put((pair.pictures(batch), pair.valid(batch)))
        program = jax.jit(pair.program).lower(*pair.given, pictures, valid).compile()
        tasks = {
            "pairs": lambda program=program, given=(*pair.given, pictures, valid): (
                jax.block_until_ready(program(*given))
            ),
            "product": lambda: jax.block_until_ready(product(square)),
        }
        times = interleaved(tasks, 3 if arguments.quick else 20, seconds=30)
        seconds = times["pairs"]["median_ms"] / 1e3
        peak = 2 * side**3 / times["product"]["min_ms"] / 1e9  # TFLOP/s
        analysis = program.memory_analysis()
        statistics = jax.local_devices()[0].memory_stats() or {}
        # The peak is of the encoder's dtype; what judges, always float32, is left out of the share.
        row = {
            "pairs_per_second": batch / seconds,
            "ms": 1e3 * seconds,
            "temporary_mb": analysis.temp_size_in_bytes / 1e6 if analysis else float("nan"),
            "allocator_peak_mb": statistics.get("peak_bytes_in_use", 0) / 1e6,
            "peak_tflops": peak,
            "share_of_peak": batch * pair.encoder.flops() / seconds / 1e12 / peak,
            "runs": times["pairs"]["runs"],
        }
        print(
            f"{name:20} batch {batch:3}: {row['pairs_per_second']:8.2f} pairs/s, "
            f"{row['temporary_mb']:8.0f} MB, {100 * row['share_of_peak']:5.1f} % of "
            f"{peak:.2f} TFLOP/s"
        )
        result["rows"][name][str(batch)] = row
        write(target, result)
        if seconds > arguments.seconds:
            break


if __name__ == "__main__":
    main()
