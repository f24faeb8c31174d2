"""Batch-1 latency at 224²: a pair of pictures → heatmap and score, beside plain PyTorch.

    python benchmarks/latency.py [--encoders S B L] [--dtypes D D] [--size PIXELS] [--quick]
        [--seconds N] [--json FILE] [--no-compile] [--no-training] [--no-others]

Encoders S, B, L are DINOv2 ViT-S/14, B/14, L/14, with random weights. Ours starts from pictures on
the device, from numpy arrays, or from files (photograph and points of a generated scan of 400×400:
decoding, background, normals, resizing, heatmap back at 400×400). Every run waits for its result;
all methods of an encoder take turns in one loop, after two runs each to warm up. Beside PIRN's
decoder stand the default method, the mixture, and our INP-Former, on the same encoder.

PyTorch runs the same model: `reference_torch.py`, all blocks ("all") or up to the last one needed
("needed": 10 of 12), eager and by `torch.compile`; and `torch_pirn.py` where PIRN_SHARED holds it.
The ratios divide by the faster of the eager float32 models with all blocks. CFM and the two-stream
INP-Former (`other_systems.py`) take turns in a loop of their own with ours. `training` in the
ratios is measured by `training.py`, started from here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from bench import other_systems
from bench.measure import bars, environment, interleaved, result_file, show, write
from bench.pair import Pair, all_valid, build, decoder_of
from bench.peers import decoder_peers, pair_peers
from flops import PAPER_G, by_formula, by_xla, xla_flops
from pirn_jax.decoder import DISTANCES, abstract_params, merge
from pirn_jax.encoder import encoder_config
from pirn_jax.errors import MissingDependencyError
from pirn_jax.geometry import choose_object, make_views, surface_normals
from pirn_jax.scans import Scan
from pirn_jax.scans.datasets.reading import read_scan
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.options import Options
from pirn_jax.scans.synthetic.generator import render
from pirn_jax.scoring import score_distances

SIZE = 224
ENCODERS = {"S": "dinov2-small", "B": "dinov2-base", "L": "dinov2-large"}
METHODS = ("mixture", "inp-former")  # beside PIRN's; the first is the default
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
PUBLISHED = {  # Table 4: GFLOPs, ms
    "M3DM": (263.27, 21.61),
    "CFM": (552.53, 60.57),
    "FIND": (728.46, 76.09),
    "PIRN": (PAPER_G, 17.49),
}


def our_pairs(name: str, dtypes: Sequence[Dtype], size: int) -> dict[str, Pair]:
    """Ours in every dtype and runtime there is here, by name of the row."""
    found: dict[str, Pair] = {}
    for dtype in dtypes:
        row, same = f"ours jax {dtype}", {"dtype": dtype, "image_size": size}
        found[f"{row} pirn"] = first = build(name, **same)
        found[f"{row} pirn paper"] = build(name, "paper", known=first.encoder, **same)
        found[f"{row} mixture"] = build(name, method="mixture", known=first.encoder, **same)
        found[f"{row} inp-former"] = build(name, method="inp-former", **same)  # other layers
    for dtype in dtypes if jax.default_backend() == "cpu" else ():
        try:
            pair = build(name, dtype=dtype, runtime="openvino", image_size=size)
        except MissingDependencyError as error:
            print(f"left out, openvino: {error}")
            break
        found[f"ours openvino {dtype} pirn"] = pair
    return found


def write_files(folder: Path) -> dict[str, File]:
    """A generated scan as a PNG and a TIFF."""
    import tifffile
    from PIL import Image

    scan = render("flange", "train/good/000", size=400)
    assert scan.rgb is not None
    Image.fromarray(scan.rgb).save(folder / "scan.png")
    tifffile.imwrite(folder / "scan.tiff", scan.xyz, photometric="rgb", metadata=None)
    return {"rgb": File(folder / "scan.png"), "xyz": File(folder / "scan.tiff")}


def stages(pair: Pair, files: dict[str, File]) -> dict[str, Callable[[], Any]]:
    """Each part of the way alone, from what the part before it leaves."""
    scan = read_scan(files, Options())
    points = scan.xyz
    assert points is not None
    found = choose_object(scan.xyz, scan.valid, "plane")

    def normals() -> Scan:
        part = choose_object(points, scan.valid, "plane").object
        made = surface_normals(points, part & scan.valid)
        return scan._replace(normals=np.asarray(made))

    whole, network = normals(), pair.encoder
    parameters, statistics = pair.model.parameters
    stacked = jax.device_put(pair.pictures().reshape(-1, *network.image_size, 3))
    tokens = jax.block_until_ready(network(stacked))
    given = all_valid(tokens[:, None])
    config = decoder_of(pair.model)
    graph, _, _ = abstract_params(config, network.config.width)
    decode = jax.jit(lambda p, s, t: merge(graph, p, s)(t))
    rebuilt = decode(parameters, statistics, given)

    @jax.jit
    def heatmap(target: jax.Array, values: jax.Array) -> Any:
        distances = DISTANCES[config.distance](target, values)
        top = pair.model.config.chosen_recipe.top
        return score_distances(distances, network.image_size, grid=network.grid, top=top)

    return {
        "read": lambda: read_scan(files, Options()),
        "background and normals": normals,
        "resize": lambda: make_views(whole, network.image_size, found.object),
        "encoder": lambda: jax.block_until_ready(network(stacked)),
        "decoder": lambda: jax.block_until_ready(decode(parameters, statistics, given)),
        "map": lambda: jax.block_until_ready(heatmap(rebuilt.target, rebuilt.values)),
    }


def decoders(pairs: dict[str, Pair], width: int) -> dict[str, Callable[[], Any]]:
    """Our decoder alone in both recipes, tokens on the device."""
    raw = jax.random.normal(jax.random.key(3), (2, 1, 256, width))
    tokens, found = all_valid(raw), {}
    row = next(iter(pairs))
    for pair in (pairs[row], pairs[f"{row} paper"]):
        graph, _, _ = abstract_params(decoder_of(pair.model), width)
        run = jax.jit(lambda p, s, t, graph=graph: merge(graph, p, s)(t))
        found[f"decoder ours {pair.model.config.recipe_name}"] = lambda run=run, pair=pair: (
            jax.block_until_ready(run(*pair.model.parameters, tokens))
        )
    return found


def others(ours: Pair, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times of the other systems with ours beside them, and their FLOPs."""
    tasks: dict[str, Callable[[], Any]] = {"ours jax float32 pirn": ours.on_device()}
    flops = {}
    for name in ("inp_former", "cfm"):
        function, given = getattr(other_systems, name)()
        parts = getattr(other_systems, f"{name}_flops")()
        flops[name] = {"formula_g": parts, "xla_g": xla_flops(function, *given) / 1e9}
        run = jax.jit(function)
        tasks[name] = lambda run=run, given=given: jax.block_until_ready(run(*given))
    return interleaved(tasks, 3 if quick else 100, seconds=60 if quick else 300), flops


def ratios(times: dict[str, Any]) -> dict[str, float]:
    """Our medians over those of plain PyTorch, of what was measured; empty without it."""
    median = {name: found["median_ms"] for name, found in times.items()}

    def least(start: str, *parts: str) -> float:
        rows = [n for n in median if n.startswith(start) and all(part in n for part in parts)]
        return min((median[row] for row in rows), default=math.nan)

    exact, half = (median.get(f"ours jax {dtype} pirn, device", math.nan) for dtype in DTYPES)
    fastest = least("torch pair all", "eager float32")
    # Cosine to float32 at least 0.999, tested; the same method as PyTorch's.
    hosts = [f"ours {r} {d} pirn, host" for r in ("jax", "openvino") for d in DTYPES]
    best = min((median[row] for row in hosts if row in median), default=math.nan)
    found = {
        "pair_fp32": exact / fastest,
        "pair_fp32_against_early_exit": exact / least("torch pair needed eager float32"),
        "pair_best": best / fastest,
        "pair_bf16": half / least("torch pair", "bfloat16"),
        "pair_fp32_against_compile": exact / least("torch pair", "compile", "float32"),
        "pair_bf16_against_compile": half / least("torch pair", "compile", "bfloat16"),
    }
    for recipe in ("default", "paper"):
        ours = median.get(f"decoder ours {recipe}", math.nan)
        found[f"decoder_fp32_{recipe}"] = ours / least("torch decoder", recipe)
    found["decoder_fp32"] = found["decoder_fp32_default"]
    return {name: value for name, value in found.items() if not math.isnan(value)}


def training_ratios(quick: bool) -> dict[str, float]:
    """What `training.py` finds, under its own names, and `training`: recipe default.

    Nothing where PyTorch is missing.
    """
    if importlib.util.find_spec("torch") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "training.json"
        script = Path(__file__).with_name("training.py")
        command = [sys.executable, str(script), "--json", str(target)]
        subprocess.run(command + (["--quick"] if quick else []), check=True)
        found = json.loads(target.read_text())["ratio_to_torch"]
    default = [v for name, v in found.items() if name.startswith("training_default")]
    return {"training": max(default), **found} if default else found


def measure(
    letter: str, arguments: argparse.Namespace, folder: Path, keep: Callable[[dict[str, Any]], None]
) -> None:
    """All rows of one encoder, kept as each part becomes known: times, stages, XLA's FLOPs."""
    name, size = ENCODERS[letter], arguments.size
    runs, seconds = (5, 30.0) if arguments.quick else (100, arguments.seconds)
    pairs, files = our_pairs(name, arguments.dtypes, size), write_files(folder)
    tasks: dict[str, Callable[[], Any]] = {}
    for row, pair in pairs.items():
        tasks[f"{row}, device"] = pair.on_device()
        if not row.endswith(("paper", "inp-former")):
            tasks[f"{row}, host"] = pair.from_host()
            tasks[f"{row}, files"] = lambda pair=pair: pair.model.predict(
                read_scan(files, Options())
            )
    missing: dict[str, str] = {}
    if size == SIZE:
        tasks |= decoders(pairs, encoder_config(name).width)
        peers, missing = pair_peers(name, not (arguments.quick or arguments.no_compile))
        tasks |= peers | decoder_peers(encoder_config(name).width)
    times = interleaved(tasks, runs, seconds)
    show(times, f"{name}, a pair at {size}²")
    recipe = {r: by_formula(name, r, size=size) for r in ("default", "paper")}
    formula = {r: sum(parts.values()) for r, parts in recipe.items()}
    found: dict[str, Any] = {
        "encoder": name,
        "size": size,
        "times": times,
        "stages": {},
        "stages_dtype": arguments.dtypes[0],
        "left_out": missing,
        "ratio_to_torch": ratios(times),
        "flops_g": {"formula": formula, "modules": recipe},
    }
    keep(found)
    first = next(iter(pairs.values()))
    found["stages"] = interleaved(stages(first, files), runs, seconds / 5)
    show(found["stages"], f"{name}, stages, {arguments.dtypes[0]}")
    keep(found)
    found["flops_g"]["xla"] = by_xla(first)
    found["flops_g"]["xla_methods"] = {
        method: by_xla(pairs[f"ours jax {arguments.dtypes[0]} {method}"])["total"]
        for method in METHODS
    }
    keep(found)


def table(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Table 4: the paper's rows as cited, ours and those of the other systems as measured."""
    rows = [
        {"system": f"{name} (paper, cited)", "gflops": flops, "ms": ms, "measured": False}
        for name, (flops, ms) in PUBLISHED.items()
    ]
    for name, flops in result.get("other_flops", {}).items():
        total = sum(flops["formula_g"].values())
        ms = result["other_systems"][name]["median_ms"]
        rows.append({"system": f"{name} (JAX)", "gflops": total, "ms": ms, "measured": True})
    for found in result["encoders"].values():
        for row, times in found["times"].items():
            if row.endswith(", device") or row.startswith("torch pair"):
                gflops = None
                if row.startswith("ours"):
                    gflops = found["flops_g"]["formula"]["paper" if "paper" in row else "default"]
                    for method in METHODS:
                        if method in row:
                            gflops = found["flops_g"].get("xla_methods", {}).get(method)
                label = f"{found['encoder']}: {row}"
                rows.append(
                    {"system": label, "gflops": gflops, "ms": times["median_ms"], "measured": True}
                )
    return rows


def finish(result: dict[str, Any], trained: dict[str, float], target: Path) -> None:
    """What follows from what is known so far, and all of it written."""
    letters = list(result["encoders"])
    main_letter = "B" if "B" in letters else letters[0]
    result["ratio_to_torch"] = result["encoders"][main_letter]["ratio_to_torch"] | trained
    result["table_4"] = table(result)
    write(target, result)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=None)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="main first")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the pictures in pixels")
    parser.add_argument("--quick", action="store_true", help="encoder B, few runs, no compile")
    parser.add_argument("--seconds", type=float, default=600, help="most for an encoder's rows")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-training", action="store_true", help="leave training.py out")
    parser.add_argument("--no-others", action="store_true", help="leave the other systems out")
    parser.add_argument("--json", type=Path, help="results/latency.json; quick: elsewhere")
    arguments = parser.parse_args()
    target = result_file(arguments, "latency")
    letters = arguments.encoders or (["B"] if arguments.quick else list(ENCODERS))
    result: dict[str, Any] = {
        "environment": environment(),
        "threads": len(os.sched_getaffinity(0)),
        "conventions": "1 multiply-add is 2 FLOPs; medians of synchronised runs in turn",
        "encoders": {},
    }
    # First, and in a process of its own: neither need hold what the other measures.
    trained = {} if arguments.no_training else training_ratios(arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        for letter in letters:

            def keep(found: dict[str, Any], letter: str = letter) -> None:
                result["encoders"][letter] = found
                finish(result, trained, target)

            measure(letter, arguments, Path(folder), keep)
            jax.clear_caches()
    if not result["ratio_to_torch"]:
        print("PyTorch is missing: its rows and ratios are left out")
    if not arguments.no_others:
        ours = build(ENCODERS["B" if "B" in letters else letters[0]])
        result["other_systems"], result["other_flops"] = others(ours, arguments.quick)
        show(result["other_systems"], "other systems, float32")
        finish(result, trained, target)
    print(f"\nTable 4 on {result['environment']['device']} ({result['environment']['processor']})")
    for row in result["table_4"]:
        gflops = f"{row['gflops']:9.2f} G" if row["gflops"] else f"{'':11}"
        print(f"  {row['system']:56} {gflops} {row['ms']:10.2f} ms")
    for name, value in result["ratio_to_torch"].items():
        print(f"  {name}: {value:.3f} of PyTorch")
    medians = {row["system"]: row["ms"] for row in result["table_4"] if row["measured"]}
    bars(target, medians, "ms", "Batch 1: pair → heatmap and score, median")


if __name__ == "__main__":
    main()
