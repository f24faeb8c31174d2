"""Startup: from `import pirn_jax` to the first heatmap, with and without the compilation cache.

    python benchmarks/cold_start.py [--quick] [--json FILE]

Each start is a process of its own that loads a saved model and predicts a scan from its files, as
`python -m pirn_jax.predict` does. The encoder's random weights are drawn anew at each start, where
real ones would be read from a file. `none` keeps no compiled programs, `empty` writes them to an
empty cache, `filled` reads them from there: what every start but the first is like. Python's own
start is outside the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = ("none", "empty", "filled")


def start(folder: str, cache: str) -> None:
    """Print the seconds of each step of a start in this process."""
    moments = {"begin": time.perf_counter()}

    def done(step: str) -> None:
        moments[step] = time.perf_counter()

    import pirn_jax

    done("import pirn_jax")
    detector = pirn_jax.PIRN  # loads on first use
    done("import the detector")
    from pirn_jax.scans.datasets.reading import read_scan
    from pirn_jax.scans.formats.files import File
    from pirn_jax.scans.formats.options import Options
    from pirn_jax.training import use_compilation_cache

    if cache:
        use_compilation_cache(cache)
    model = detector.load(Path(folder) / "model")
    done("load the model")
    files = {"rgb": File(Path(folder) / "scan.png"), "xyz": File(Path(folder) / "scan.tiff")}
    for step in ("first heatmap", "second heatmap"):
        model.predict(read_scan(files, Options()))
        done(step)
    steps = {b: moments[b] - moments[a] for a, b in itertools.pairwise(moments)}
    steps["total to the first heatmap"] = moments["first heatmap"] - moments["begin"]
    print(json.dumps(steps))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one start of each kind, ViT-Ti/16")
    parser.add_argument("--json", type=Path, help="results/cold_start.json; quick: elsewhere")
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(*arguments.start)
        return
    from bench.measure import bars, environment, in_process, result_file, write
    from bench.pair import build
    from latency import write_files

    target = result_file(arguments, "cold_start")
    encoder = "vit-tiny-16" if arguments.quick else "dinov2-base"
    result: dict[str, Any] = {"environment": environment(), "encoder": encoder, "starts": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        build(encoder).model.save(folder / "model")
        for turn in range(1 if arguments.quick else 5):
            cache = str(folder / f"cache {turn}")
            for kind in KINDS:
                found = in_process(__file__, "--start", name, "" if kind == "none" else cache)
                result["starts"].setdefault(kind, []).append(found)
                print(f"{turn} {kind:7}", {step: round(s, 2) for step, s in found.items()})
    result["median"] = {
        kind: {name: _median([s[name] for s in starts]) for name in starts[0]}
        for kind, starts in result["starts"].items()
    }
    write(target, result)
    shown = {kind: steps["total to the first heatmap"] for kind, steps in result["median"].items()}
    bars(target, shown, "s", f"Import to first heatmap, {encoder}")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
