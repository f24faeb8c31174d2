"""Startup: from `import pirn_jax` to the first heatmap, with and without the compilation cache.

    python benchmarks/cold_start.py [--quick] [--json FILE]

Each start is a process of its own, with random encoder weights. `none` keeps no compiled programs,
`empty` writes them to an empty cache, `filled` reads them from there: what every start but the
first is like. Python's own start, some 20 ms, is outside the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KINDS = ("none", "empty", "filled")


def start(encoder: str, folder: str, runtime: str) -> None:
    """Print the seconds of each step of a start in this process."""
    moments = {"begin": time.perf_counter()}

    def done(step: str) -> None:
        moments[step] = time.perf_counter()

    from pirn_jax import PIRN, Config

    done("import pirn_jax")
    from pirn_jax.training import use_compilation_cache

    if folder:
        use_compilation_cache(folder)
    import jax

    from benchmarks.pair import build

    assert (PIRN, Config)
    jax.block_until_ready(jax.numpy.zeros(()))
    done("import the model's code, device up")
    pair = build(encoder, runtime=runtime)
    done("encoder and decoder in memory")
    pair.from_host()()
    done("first heatmap")
    pair.from_host()()
    done("second heatmap")
    names = list(moments)
    steps = {b: moments[b] - moments[a] for a, b in zip(names, names[1:], strict=False)}
    steps["total to the first heatmap"] = moments["first heatmap"] - moments["begin"]
    print(json.dumps(steps))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one start of each kind, encoder S")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(*arguments.start)
        return
    from benchmarks.measure import RESULTS, bars, environment, write

    target = arguments.json or RESULTS / "cold_start.json"
    encoder = "dinov2-small" if arguments.quick else "dinov2-base"
    result: dict[str, Any] = {"environment": environment(), "encoder": encoder, "starts": {}}
    for turn in range(1 if arguments.quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            for kind in KINDS:
                given = "" if kind == "none" else folder
                found = _process(encoder, given, "jax")
                result["starts"].setdefault(kind, []).append(found)
                print(f"{turn} {kind:7}", {name: round(s, 2) for name, s in found.items()})
    result["median"] = {
        kind: {name: _median([s[name] for s in starts]) for name in starts[0]}
        for kind, starts in result["starts"].items()
    }
    write(target, result)
    shown = {kind: steps["total to the first heatmap"] for kind, steps in result["median"].items()}
    bars(target, shown, "s", f"Import to first heatmap, {encoder}")


def _process(encoder: str, folder: str, runtime: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--start", encoder, folder, runtime]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
