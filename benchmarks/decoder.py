"""Decoder: GFLOPs by recipe, and forward time beside PyTorch on the same machine in the same run.

    python benchmarks/decoder.py [--quick] [--json FILE]

At N 256, C 768, K 10, L 2 (ViT-B/14 at 224²), tokens on the device, batch 1 and 8. Four decoders
take turns: ours and `reference_torch.py`'s in each recipe; a fifth, `torch_pirn.py`, where
PIRN_SHARED holds it. The matrix-product floor is the time XLA takes for the products with weights
alone, after our rearrangements. FLOPs are 2 x multiply-adds.
`cpu_ms` is processor time over all threads: on a busy machine it says more than the clock does.

By formula: `equations` as the paper writes them, every projection over all N tokens; `executed`
after the two rearrangements that leave the result as it is (queries folded into keys, output
projection into values). XLA's own count takes a loop once, whatever its trips.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax

from bench.measure import bars, environment, interleaved, result_file, write
from bench.pair import all_valid, decoder_config
from bench.peers import decoder_peers
from pirn_jax.decoder import create_decoder, merge, split
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.decoder.reconstruction import head_count
from pirn_jax.methods.pirn import RECIPES

N, C = 256, 768


def flops(config: DecoderConfig, executed: bool, N: int = N, C: int = C) -> dict[str, float]:
    """GFLOPs per image pair, by part; the graph's edges and element-wise work are left out."""
    k, m, layers = config.prototypes, 2, config.layers
    h = head_count(config.heads, C) if config.attention else 1
    plan = 2 * 2 * config.iterations * N * k  # two products a Sinkhorn iteration
    parts = {
        "costs and contexts (APR)": 4 * N * k * C,
        "GRU (APR)": 2 * k * 2 * C * 3 * C,
        "Sinkhorn": plan * (1 + h),
        "costs and rebuilding (BPA)": 2 * N * k * C * (2 if not executed else 1 + h),
        "graph (MNC)": 2 * k * C * C,
        "cross-attention (MNC)": 2 * (2 * k + (k if executed else N)) * C * C + 4 * N * k * C,
        "feed-forward": 4 * N * C * C * config.mlp_ratio,
    }
    if config.mnc_residual == "bottleneck":
        parts["bottleneck (MNC)"] = 4 * N * C * (C // 2)
    if config.attention:
        parts["projections (BPA)"] = 2 * (N + 2 * k + (k if executed else N)) * C * C
    total = {name: value * m * layers / 1e9 for name, value in parts.items() if value}
    return {**total, "total": sum(total.values())}


def floor(config: DecoderConfig, batch: int) -> Any:
    """The decoder's products with weights alone, as one compiled function of no arguments."""
    key, layers = jax.random.key(0), config.layers
    hidden = config.mlp_ratio * C
    # Rows of tokens or of prototypes, then the weight: GRU gates and candidate; keys, folded
    # queries, values of the cross-attention; the graph is a sixth of those and left out.
    shapes = [(False, 2 * C, 2 * C), (False, 2 * C, C)] + [(False, C, C)] * 3
    if config.attention:
        shapes += [(True, C, C)] + [(False, C, C)] * 3
    if hidden:
        shapes += [(True, C, hidden), (True, hidden, C)]
    if config.mnc_residual == "bottleneck":
        shapes += [(True, C, C // 2), (True, C // 2, C)]
    # An array per layer: a slice of a stack would be a copy.
    weights = [[jax.random.normal(key, (2, i, o)) for _ in range(layers)] for _, i, o in shapes]
    rows = {
        (of_tokens, i): jax.random.normal(
            key, (2, batch * (N if of_tokens else config.prototypes), i)
        )
        for of_tokens, i, _ in shapes
    }
    inputs = [rows[of_tokens, i] for of_tokens, i, _ in shapes]

    @jax.jit
    def products(inputs: list, weights: list) -> list:
        return [x @ w for x, each in zip(inputs, weights, strict=True) for w in each]

    return lambda: jax.block_until_ready(products(inputs, weights))


def ours(recipe: str, batch: int) -> tuple[Any, dict[str, float]]:
    """The forward pass, diagnostics included, and its cost as XLA counts it."""
    raw = jax.random.normal(jax.random.key(0), (2, batch, N, C))
    tokens, config = all_valid(raw), decoder_config(recipe)
    graph, parameters, statistics = split(create_decoder(config, tokens, jax.random.key(1)))
    compiled = (
        jax.jit(lambda p, t: merge(graph, p, statistics)(t)).lower(parameters, tokens).compile()
    )
    counted = compiled.cost_analysis() or {}
    return (
        lambda: jax.block_until_ready(compiled(parameters, tokens)),
        {"xla_gflops_loops_once": counted.get("flops", float("nan")) / 1e9},
    )


def torch_decoders(batch: int) -> dict[str, Any]:
    """The PyTorch peers, by name; empty where PyTorch is missing."""
    return {
        name.replace("torch decoder paper torch_pirn.py", "torch_pirn.py (paper)").replace(
            "torch decoder", "torch"
        ): run
        for name, run in decoder_peers(C, batch).items()
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 1 only, few runs")
    parser.add_argument("--json", type=Path, help="results/decoder.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "decoder")
    result: dict[str, Any] = {"environment": environment(), "flops_g": {}, "forward": {}}
    for recipe in RECIPES:
        config = decoder_config(recipe)
        result["flops_g"][recipe] = {
            "equations": flops(config, executed=False),
            "executed": flops(config, executed=True),
        }
        for count, parts in result["flops_g"][recipe].items():
            print(f"{recipe:8} {count:10} {parts['total']:7.2f} GFLOPs", end="   ")
            print(", ".join(f"{n} {v:.3f}" for n, v in parts.items() if n != "total"))
    ratios: dict[str, dict[str, float]] = {"median_ms": {}, "min_ms": {}, "cpu_ms": {}}
    for batch in (1,) if arguments.quick else (1, 8):
        tasks: dict[str, Any] = {}
        for recipe in RECIPES:
            tasks[f"ours {recipe}"], counted = ours(recipe, batch)
            result["flops_g"][recipe].update(counted)
            tasks[f"floor {recipe}"] = floor(decoder_config(recipe), batch)
        tasks |= torch_decoders(batch)
        times = interleaved(tasks, 15 if arguments.quick else 60, seconds=60)
        result["forward"][f"batch {batch}"] = times
        print(f"\nbatch {batch}: median ms (min) of {times['ours paper']['runs']} runs")
        for name, found in times.items():
            print(
                f"  {name:24} {found['median_ms']:9.2f} ({found['min_ms']:.2f})"
                f"   processor {found['cpu_ms']:.2f}"
            )
        for recipe in RECIPES:
            peers = [n for n in times if n.startswith("torch") and recipe in n]
            if peers:
                for what, found in ratios.items():
                    fastest = min(times[n][what] for n in peers)
                    ratio = times[f"ours {recipe}"][what] / fastest
                    found[f"decoder_fp32_{recipe}_batch{batch}"] = ratio
                    print(f"  {recipe}: {ratio:.2f} of the fastest PyTorch by {what}")
    result["ratio_to_torch"] = ratios
    write(target, result)
    medians = {name: t["median_ms"] for name, t in result["forward"]["batch 1"].items()}
    bars(target, medians, "ms", "Decoder, batch 1, median")


if __name__ == "__main__":
    main()
