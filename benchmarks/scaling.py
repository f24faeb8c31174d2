"""How cost grows: with devices, with tokens, with prototypes.

    python benchmarks/scaling.py [--quick] [--json FILE]

Devices: 8 pairs are spread over 1, 2, 4 and 8 devices, each count in a process of its own. Where
there are no GPUs these are host devices forced by XLA, which share the same cores: they show that
results stay the same and what spreading itself costs, and cannot show a speed-up beyond what one
program leaves of the cores. Tokens: pictures of 224 to 896 pixels, 256 to 4096 tokens, encoder and
decoder apart. Prototypes: K 5 to 200, both recipes, 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bench.measure import environment, interleaved, lines, result_file, show, write
from bench.pair import all_valid, build, decoder_config, random_decoder
from pirn_jax.decoder import abstract_params, merge
from pirn_jax.encoder import encoder_config, load_encoder

ENCODER, BATCH = "dinov2-small", 8


def on_devices(count: int, quick: bool) -> None:
    """Print time and scores of 8 pairs spread over so many of this process's devices."""
    pair = build(ENCODER, image_size=56 if quick else 224)
    mesh = Mesh(np.array(jax.devices()[:count]), ("pairs",), axis_types=(AxisType.Auto,))
    given, spread, stacked = (PartitionSpec(*axes) for axes in ((), ("pairs",), (None, "pairs")))
    arguments = (
        jax.device_put(pair.given, NamedSharding(mesh, given)),
        jax.device_put(pair.pictures(BATCH), NamedSharding(mesh, stacked)),
        jax.device_put(pair.valid(BATCH), NamedSharding(mesh, spread)),
    )

    def score(
        given: tuple[Any, Any, Any], pictures: jax.Array, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        found = pair.program(*given, pictures, valid)
        return found.fused, found.score

    program = jax.jit(
        jax.shard_map(
            score,
            mesh=mesh,
            in_specs=(given, stacked, spread),
            out_specs=(spread, spread),
            check_vma=False,
        )
    )
    run = partial(program, *arguments)
    times = interleaved({"run": lambda: jax.block_until_ready(run())}, 3 if quick else 30)
    scores = np.asarray(run()[1], np.float64).tolist()
    print(json.dumps({"ms": times["run"]["median_ms"], "scores": scores}))


def devices(counts: tuple[int, ...], quick: bool) -> dict[str, Any]:
    """Each count in a process of its own; the scores must be those of one device."""
    rows: dict[str, Any] = {}
    for count in counts:
        environ = dict(os.environ)
        if jax.default_backend() == "cpu":
            flags = environ.get("XLA_FLAGS", "")
            flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
            environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}"
        elif count > jax.local_device_count():
            break
        command = [sys.executable, __file__, "--devices", str(count)]
        command += ["--quick"] if quick else []
        done = subprocess.run(command, capture_output=True, text=True, env=environ)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        first = rows.setdefault(str(counts[0]), {"ms": found["ms"], "scores": found["scores"]})
        rows[str(count)] = {
            **found,
            "efficiency": first["ms"] / found["ms"] / (count / counts[0]),
            "speed_up": first["ms"] / found["ms"],
            "largest_difference": float(
                np.abs(np.subtract(found["scores"], first["scores"])).max()
            ),
        }
        row = rows[str(count)]
        print(
            f"{count} devices: {row['ms']:9.1f} ms, {row['speed_up']:.2f} times as fast, "
            f"efficiency {row['efficiency']:.2f}, scores differ by {row['largest_difference']:.1e}"
        )
    return rows


def decoder_task(recipe: str, tokens: int, prototypes: int) -> Callable[[], Any]:
    """A decoder of an encoder S, tokens on the device."""
    width = encoder_config(ENCODER).width
    config = decoder_config(recipe, prototypes=prototypes)
    parameters, statistics = random_decoder(config, tokens, width)
    raw = jax.random.normal(jax.random.key(1), (2, 1, tokens, width))
    graph, _, _ = abstract_params(config, width)
    run = jax.jit(lambda p, s, t: merge(graph, p, s)(t))
    return lambda: jax.block_until_ready(run(parameters, statistics, all_valid(raw)))


def encoder_task(side: int) -> Callable[[], Any]:
    """Two pictures through an encoder S."""
    network = load_encoder(ENCODER, "random", side)
    pictures = jax.device_put(np.random.default_rng(0).random((2, side, side, 3), np.float32))
    return lambda: jax.block_until_ready(network(pictures))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and small")
    parser.add_argument("--json", type=Path, help="results/scaling.json; quick: elsewhere")
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quick = arguments.quick
    if arguments.devices:
        on_devices(arguments.devices, quick)
        return
    target = result_file(arguments, "scaling")
    result: dict[str, Any] = {"environment": environment(), "encoder": ENCODER, "pairs": BATCH}
    result["devices"] = devices((1, 2) if quick else (1, 2, 4, 8), quick)
    write(target, result)
    runs, seconds = (2, 20) if quick else (20, 120)
    sides = (56, 112) if quick else (224, 448, 672, 896)
    tasks = {}
    for side in sides:
        tokens = (side // 14) ** 2
        tasks[f"encoder N {tokens}"] = encoder_task(side)
        for recipe in ("default", "paper"):
            tasks[f"decoder {recipe} N {tokens}"] = decoder_task(recipe, tokens, 10)
    result["tokens"] = interleaved(tasks, runs, seconds)
    show(result["tokens"], "tokens, K 10")
    write(target, result)
    tasks = {
        f"decoder {recipe} K {k}": decoder_task(recipe, 256, k)
        for recipe in ("default", "paper")
        for k in ((5,) if quick else (5, 10, 20, 50, 100, 200))
    }
    result["prototypes"] = interleaved(tasks, runs, seconds)
    show(result["prototypes"], "prototypes, N 256")
    write(target, result)
    curves: dict[str, dict[float, float]] = {}
    for name, found in result["tokens"].items():
        what, tokens = name.split(" N ")
        curves.setdefault(what, {})[int(tokens)] = found["median_ms"]
    lines(target, curves, ("tokens", "ms"), "A pair, encoder S, K 10")


if __name__ == "__main__":
    main()
