"""Other systems of the tables beside ours: latency at batch 1 and FLOPs of M3DM, BTF and AST.

    python benchmarks/systems.py [--quick] [--seconds N] [--json FILE]

Random weights, float32, pictures on the device; all take turns in one loop, after two runs each to
warm up. FLOPs are counted by formula (products of matrices and convolutions) and by XLA (`flops.py`
says how); ours, the default method, by XLA alone. CFM and the two-stream INP-Former stand in
`latency.py`, beside PyTorch. Becomes rows of Table 4; with --quick the file goes to a temporary
folder unless --json names one, for such figures show that it works and nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bench.ast_system import SIDE, ast, ast_flops
from bench.bank_systems import btf, btf_flops, m3dm, m3dm_flops
from bench.measure import bars, environment, interleaved, result_file, show, write
from bench.pair import build
from flops import by_xla, xla_flops

SYSTEMS = {"m3dm": (m3dm, m3dm_flops), "btf": (btf, btf_flops), "ast": (ast, ast_flops)}
LABELS = {
    "m3dm": "m3dm (JAX)",
    "btf": "btf (JAX), its histograms timed, not counted",
    "ast": f"ast (JAX), photograph of {SIDE}²",
}
"""What is not alike stands in the row."""
OURS = "dinov2-base: ours jax float32 mixture"


def table(times: dict[str, Any], flops: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of Table 4, ours first."""
    rows = [(OURS, OURS, flops[OURS]["xla_g"])]
    rows += [(LABELS[n], n, sum(flops[n]["formula_g"].values())) for n in SYSTEMS]
    return [
        {"system": label, "gflops": gflops, "ms": times[name]["median_ms"], "measured": True}
        for label, name, gflops in rows
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three runs each")
    parser.add_argument("--seconds", type=float, default=300, help="most for all of them")
    parser.add_argument("--json", type=Path, help="results/latency_systems.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "latency_systems")
    ours = build("dinov2-base", method="mixture")
    tasks: dict[str, Callable[[], Any]] = {OURS: ours.on_device()}
    flops: dict[str, Any] = {OURS: {"formula_g": {}, "xla_g": by_xla(ours)["total"]}}
    for name, (make, by_formula) in SYSTEMS.items():
        function, given = make()
        flops[name] = {"formula_g": by_formula(), "xla_g": xla_flops(function, *given) / 1e9}
        run = jax.jit(function)
        tasks[name] = lambda run=run, given=given: jax.block_until_ready(run(*given))
    times = interleaved(tasks, 3 if arguments.quick else 30, seconds=arguments.seconds)
    show(times, "other systems, float32")
    rows = table(times, flops)
    write(target, {"environment": environment(), "times": times, "flops": flops, "table_4": rows})
    bars(target, {row["system"]: row["ms"] for row in rows}, "ms", "Batch 1, median")
    for name, found in flops.items():
        parts = "".join(f"{part} {value:.2f}, " for part, value in found["formula_g"].items())
        print(f"{name}: {parts}by XLA {found['xla_g']:.2f} GFLOPs")


if __name__ == "__main__":
    main()
