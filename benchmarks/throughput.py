"""Pairs a second at batch 1 to 256, memory, and the share of this device's measured matrix peak.

    python benchmarks/throughput.py [--encoder NAME] [--quick] [--json FILE]

Pictures lie on the device, maps and scores stay there. The peak is what XLA reaches in one product
of two 4096×4096 matrices, measured in turn with each batch; the share compares it with the FLOPs of
the pair by formula. Memory is what the program needs beside weights and pictures, by XLA's own
account; on a GPU also the peak of the allocator. Batches stop growing after one that takes longer
than `--seconds`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bench.measure import RESULTS, environment, interleaved, lines, write
from bench.pair import build
from flops import by_formula

SIDE = 4096


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default="dinov2-base")
    parser.add_argument("--quick", action="store_true", help="encoder S, batch 1 and 2")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest call")
    parser.add_argument("--json", type=Path, default=RESULTS / "throughput.json")
    arguments = parser.parse_args()
    encoder = "dinov2-small" if arguments.quick else arguments.encoder
    batches = (1, 2) if arguments.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
    gflops = by_formula(encoder, "default")
    result: dict[str, Any] = {
        "environment": environment(),
        "encoder": encoder,
        "gflops_of_a_pair": sum(gflops.values()),
        "rows": {},
    }
    curves = {}
    kinds: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    for dtype in kinds:
        rows = measure(encoder, dtype, batches, arguments, gflops)
        result["rows"][dtype] = rows
        curves[dtype] = {int(batch): row["pairs_per_second"] for batch, row in rows.items()}
    write(arguments.json, result)
    lines(arguments.json, curves, ("batch", "pairs a second"), f"{encoder}, 224²")


def measure(
    encoder: str,
    dtype: Literal["float32", "bfloat16"],
    batches: tuple[int, ...],
    arguments: argparse.Namespace,
    gflops: dict[str, float],
) -> dict[str, dict[str, float]]:
    """Rows by batch."""
    pair = build(encoder, dtype=dtype)
    side = SIDE // 4 if arguments.quick else SIDE
    square = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    precision = "highest" if dtype == "float32" else "default"  # as in the encoder
    product = jax.jit(
        lambda x: jnp.matmul(x, x, precision=precision, preferred_element_type=jnp.float32)
    )
    rows = {}
    for batch in batches:
        tasks = {
            "pairs": pair.on_device(batch),
            "product": lambda: jax.block_until_ready(product(square)),
        }
        times = interleaved(tasks, 3 if arguments.quick else 20, seconds=30)
        seconds = times["pairs"]["median_ms"] / 1e3
        peak = 2 * side**3 / times["product"]["min_ms"] / 1e9  # TFLOP/s
        needed = jax.jit(pair.program).lower(*pair.given, pair.pictures(batch), pair.valid(batch))
        analysis = needed.compile().memory_analysis()
        statistics = jax.local_devices()[0].memory_stats() or {}
        # The peak is of the encoder's dtype; the decoder, always float32, is left out of the share.
        inside = sum(v for name, v in gflops.items() if name.startswith("encoder"))
        rows[str(batch)] = {
            "pairs_per_second": batch / seconds,
            "ms": 1e3 * seconds,
            "temporary_mb": analysis.temp_size_in_bytes / 1e6 if analysis else float("nan"),
            "allocator_peak_mb": statistics.get("peak_bytes_in_use", 0) / 1e6,
            "peak_tflops": peak,
            "share_of_peak": batch * inside / seconds / 1e3 / peak,
            "runs": times["pairs"]["runs"],
        }
        row = rows[str(batch)]
        print(
            f"{dtype:9} batch {batch:3}: {row['pairs_per_second']:8.2f} pairs/s, "
            f"{row['temporary_mb']:8.0f} MB, {100 * row['share_of_peak']:5.1f} % of "
            f"{peak:.2f} TFLOP/s"
        )
        if seconds > arguments.seconds:
            break
    return rows


if __name__ == "__main__":
    main()
