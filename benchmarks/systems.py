"""Other systems of the tables beside ours: latency at batch 1 and FLOPs of M3DM, BTF and AST.

    python benchmarks/systems.py [--quick] [--seconds N] [--json FILE]

Random weights, float32, pictures on the device; all take turns in one loop, after two runs each to
warm up. FLOPs are counted by formula (products of matrices and convolutions) and by XLA (`flops.py`
says how). CFM and the two-stream INP-Former stand in `latency.py`, beside PyTorch. Becomes rows of
Table 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bench.ast_system import ast, ast_flops
from bench.bank_systems import btf, btf_flops, m3dm, m3dm_flops
from bench.measure import RESULTS, bars, environment, interleaved, show, write
from bench.pair import build
from flops import xla_flops

SYSTEMS = {"m3dm": (m3dm, m3dm_flops), "btf": (btf, btf_flops), "ast": (ast, ast_flops)}
OURS = "dinov2-base: ours jax float32 mixture"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three runs each")
    parser.add_argument("--seconds", type=float, default=300, help="most for all of them")
    parser.add_argument("--json", type=Path, default=RESULTS / "latency_systems.json")
    arguments = parser.parse_args()
    tasks: dict[str, Callable[[], Any]] = {
        OURS: build("dinov2-base", method="mixture").on_device(),
    }
    flops: dict[str, Any] = {}
    for name, (make, by_formula) in SYSTEMS.items():
        function, given = make()
        flops[name] = {"formula_g": by_formula(), "xla_g": xla_flops(function, *given) / 1e9}
        run = jax.jit(function)
        tasks[name] = lambda run=run, given=given: jax.block_until_ready(run(*given))
    times = interleaved(tasks, 3 if arguments.quick else 30, seconds=arguments.seconds)
    show(times, "other systems, float32")
    rows = [
        {
            "system": f"{name} (JAX)",
            "gflops": sum(flops[name]["formula_g"].values()),
            "ms": times[name]["median_ms"],
            "measured": True,
        }
        for name in SYSTEMS
    ]
    result = {"environment": environment(), "times": times, "flops": flops, "table_4": rows}
    write(arguments.json, result)
    bars(arguments.json, {n: t["median_ms"] for n, t in times.items()}, "ms", "Batch 1, median")
    for name, found in flops.items():
        parts = ", ".join(f"{part} {value:.2f}" for part, value in found["formula_g"].items())
        print(f"{name}: {parts}; by XLA {found['xla_g']:.2f} GFLOPs")


if __name__ == "__main__":
    main()
