"""FLOPs of a pair of pictures, by formula and by XLA, itemised beside the paper's 103.36 G.

    python benchmarks/flops.py [--quick] [--json FILE]

One multiply-add is 2 FLOPs; the paper does not say which it counts, and its peers' tools count
multiply-adds as 1, so both are printed. By formula: matrix products only. By XLA: everything its
cost analysis counts in the program before optimisation, where a loop's body counts once; here it is
counted as often as the loop runs. `executed` has the decoder's projections folded where that leaves
the result as it is, which is what runs; `equations` has them as the paper writes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

import decoder as decoder_benchmark
from bench.measure import bars, environment, result_file, write
from bench.pair import Pair, build, decoder_config
from pirn_jax.encoder import encoder_config

PAPER_G = 103.36


def xla_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """What XLA's cost analysis counts, with each scan's body counted at every step.

    Raises:
        ValueError: a loop whose number of steps is not known before it runs.
    """
    return _all(jax.make_jaxpr(function)(*arguments))


def _once(program: ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in program.in_avals]
    lowered = jax.jit(jaxpr_as_fun(program)).lower(*shapes)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))


def _all(program: ClosedJaxpr) -> float:
    total = _once(program)
    for equation in _loops(program.jaxpr):
        if equation.primitive.name == "while":
            raise ValueError("a while loop: how often it runs is not known")
        body, length = equation.params["jaxpr"], equation.params["length"]
        trips, rest = divmod(length, equation.params["unroll"])
        seen = rest + (equation.params["unroll"] if trips else 0)  # in the program's text
        total += length * _all(body) - seen * _once(body)
    return total


def _loops(program: Jaxpr) -> Iterator[Any]:
    """Loops of a program and of what it calls, but not those inside other loops."""
    for equation in program.eqns:
        if equation.primitive.name in ("scan", "while"):
            yield equation
            continue
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, ClosedJaxpr):
                    yield from _loops(part.jaxpr)
                elif isinstance(part, Jaxpr):
                    yield from _loops(part)


def by_formula(
    encoder: str, recipe: str, executed: bool = True, size: int = 224
) -> dict[str, float]:
    """GFLOPs of a pair of pictures of that side, by part."""
    config = encoder_config(encoder)
    patches = (size // config.patch) ** 2
    last, width = max(config.layers), config.width
    tokens = 1 + config.registers + patches
    matrices = 3 if config.mlp == "swiglu" else 2
    parts = {
        "patches": 2 * 2 * patches * 3 * config.patch**2 * width,
        "attention projections": 2 * last * 2 * tokens * 4 * width**2,
        "attention products": 2 * last * 2 * 2 * tokens**2 * width,
        "feed-forward": 2 * last * 2 * tokens * matrices * width * config.hidden,
    }
    assert sum(parts.values()) == 2 * config.flops((size, size), last)
    found = {f"encoder: {name}": value / 1e9 for name, value in parts.items()}
    decoder = decoder_benchmark.flops(decoder_config(recipe), executed, patches, width)
    found |= {f"decoder: {name}": value for name, value in decoder.items() if name != "total"}
    # Per modality two products that upsample and smooth at once.
    side = size // config.patch
    found["map"] = 2 * 2 * (size * side * side + size * size * side) / 1e9
    return found


def by_xla(pair: Pair) -> dict[str, float]:
    """GFLOPs of encoder, decoder with map, and of the whole program."""
    pictures, valid = pair.pictures(), pair.valid()
    network = pair.encoder
    whole = xla_flops(pair.program, *pair.given, pictures, valid) / 1e9
    stacked = pictures.reshape(-1, *pictures.shape[2:])
    alone = xla_flops(network.tokens, network.parameters, stacked) / 1e9
    return {"encoder": alone, "decoder and map": whole - alone, "total": whole}


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="encoder S only")
    parser.add_argument("--json", type=Path, help="results/flops.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "flops")
    names = ["dinov2-small"] if arguments.quick else ["dinov2-small", "dinov2-base", "dinov2-large"]
    result: dict[str, Any] = {
        "environment": environment(),
        "paper_g": PAPER_G,
        "convention": "2 FLOPs per multiply-add",
        "pairs": {},
    }
    for name in names:
        config = encoder_config(name)
        whole = 2 * config.flops((224, 224), config.depth) / 1e9
        for recipe in ("default", "paper"):
            formula = by_formula(name, recipe)
            equations = by_formula(name, recipe, executed=False)
            encoder = sum(v for k, v in formula.items() if k.startswith("encoder"))
            row = {
                "formula_executed_g": formula,
                "formula_equations_g": equations,
                "encoder_formula_g": encoder,
                "encoder_all_blocks_formula_g": whole,
                "total_executed_g": sum(formula.values()),
                "total_equations_g": sum(equations.values()),
                "total_equations_all_blocks_g": sum(equations.values()) - encoder + whole,
                "xla_g": by_xla(build(name, recipe)),
            }
            result["pairs"][f"{name} {recipe}"] = row
            _show(name, recipe, row)
    write(target, result)
    first = result["pairs"][f"{names[-2 if len(names) > 1 else 0]} default"]["formula_executed_g"]
    bars(target, first, "GFLOPs", "FLOPs of a pair, by formula, recipe default")


def _show(name: str, recipe: str, row: dict[str, Any]) -> None:
    print(f"\n{name}, recipe {recipe}, a pair at 224²: GFLOPs (GMACs) executed, by formula")
    for part, value in row["formula_executed_g"].items():
        print(f"  {part:40} {value:9.3f} ({value / 2:.3f})")
    for what, value in (
        ("encoder, stopped after its last layer", row["encoder_formula_g"]),
        ("encoder, all blocks", row["encoder_all_blocks_formula_g"]),
        ("total executed", row["total_executed_g"]),
        ("total of the equations", row["total_equations_g"]),
        ("total of the equations, all blocks", row["total_equations_all_blocks_g"]),
        *((f"XLA: {part}", value) for part, value in row["xla_g"].items()),
        ("paper, Table 4 (cited)", PAPER_G),
    ):
        print(f"  {what:40} {value:9.2f} ({value / 2:.2f})")


if __name__ == "__main__":
    main()
