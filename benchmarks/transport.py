"""Transport: time, compile time and error of each solver, at the decoder's sizes.

    python benchmarks/transport.py [--quick] [--json FILE]

Clustered cosine costs, ε 0.05, 50 iterations, on the default device: both modalities of one image
(2 problems), in 6 heads (12), and of 8 images (16), each 256×10. Forward, and the gradient of a
linear functional of the plan. `error` is the largest difference from ott's plan; solver "auto"
must be the fastest whose error is within 1e-5. The column errors are those of 50 and 500
iterations on 20 different clustered costs: what "balanced" means in practice.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.measure import bars, environment, interleaved, result_file, write
from pirn_jax.transport import balanced_plan, cosine_cost

N, K, C = 256, 10, 64
SOLVERS = ("ott", "scan", "kernel")
if jax.default_backend() == "gpu":
    SOLVERS += ("pallas",)  # elsewhere it is interpreted, which says nothing of its speed


def clustered_costs(problems: int, seed: int = 0) -> jax.Array:
    """Costs (problems, N, K) of tokens in clusters of very unequal size."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(problems, K, C))
    share = np.exp(-0.5 * np.arange(K))
    which = rng.choice(K, (problems, N), p=share / share.sum())
    tokens = np.take_along_axis(centres, which[..., None], 1) + 0.3 * rng.normal(
        size=(problems, N, C)
    )
    prototypes = centres + 0.5 * rng.normal(size=centres.shape)
    return cosine_cost(jnp.asarray(tokens, jnp.float32), jnp.asarray(prototypes, jnp.float32))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs")
    parser.add_argument("--json", type=Path, help="results/transport.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "transport")
    result: dict[str, Any] = {"environment": environment(), "times": {}, "compile_s": {}}
    runs = 20 if arguments.quick else 200
    errors: dict[str, float] = {}
    for problems in (2, 12, 16):
        costs = clustered_costs(problems)
        weight = jax.random.normal(jax.random.key(0), costs.shape)
        reference = balanced_plan(costs, solver="ott").matrix
        tasks: dict[str, Any] = {}
        for solver in SOLVERS:
            plan = partial(balanced_plan, solver=solver)
            errors[solver] = max(
                errors.get(solver, 0.0), float(jnp.abs(plan(costs).matrix - reference).max())
            )

            def total(costs: jax.Array, plan: Any = plan, weight: jax.Array = weight) -> jax.Array:
                return (plan(costs).matrix * weight).sum()

            functions = {
                "forward": jax.jit(lambda costs, plan=plan: plan(costs).matrix),
                "gradient": jax.jit(jax.grad(total)),
            }
            for what, function in functions.items():
                start = time.perf_counter()
                compiled = function.lower(costs).compile()
                if problems == 2:
                    result["compile_s"][f"{solver} {what}"] = time.perf_counter() - start
                tasks[f"{solver} {what}"] = lambda compiled=compiled, costs=costs: (
                    jax.block_until_ready(compiled(costs))
                )
        times = interleaved(tasks, runs, seconds=30)
        result["times"][f"{problems} problems"] = times
        print(f"\n{problems} problems of {N}x{K}: median ms (min)")
        for name, found in times.items():
            print(f"  {name:18} {found['median_ms']:8.3f} ({found['min_ms']:.3f})")
        write(target, result)
    result["error_against_ott"] = errors
    last = result["times"]["16 problems"]
    exact = [s for s in SOLVERS if errors[s] <= 1e-5]
    result["auto"] = min(exact, key=lambda s: last[f"{s} forward"]["median_ms"])
    print(f"\nerrors {errors}; fastest within 1e-5: {result['auto']}")
    for iterations in (50, 500):
        found = balanced_plan(clustered_costs(20, 1), iterations=iterations, solver="auto")
        error = np.asarray(found.column_error)
        result[f"column_error_{iterations}"] = {
            "min": float(error.min()),
            "median": float(np.median(error)),
            "max": float(error.max()),
        }
        print(f"column error after {iterations}: {result[f'column_error_{iterations}']}")
    write(target, result)
    medians = {name: found["median_ms"] for name, found in last.items()}
    bars(target, medians, "ms", f"16 transport problems of {N}×{K}, median")


if __name__ == "__main__":
    main()
