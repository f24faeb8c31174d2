"""Learning: seconds that `PIRN.fit` takes for five shots with what runs by default.

    python benchmarks/fitting.py [--quick] [--json FILE]

Shots are generated scans of 400 × 400 with points; encoding them and their copies is part of it,
generating them is not. Each row is a process of its own: `first` compiles, `cached` finds its
programs in the cache that the first one filled, `again` is a second fit in that process. `flange`
has 12 copies of each shot (jittered, relit, spoiled); `rope` lies at any angle and has 15.
DINOv2-small has random weights here, which cost what real ones cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

ENCODERS = {"pirn-tiny": None, "dinov2-small": "random"}
MODALITIES = {"both": ("rgb", "normals"), "photograph": ("rgb",)}
KINDS = ("flange", "rope")
SHOTS = 5


def fit(encoder: str, seen: str, kind: str, cache: str) -> None:
    """Print the seconds of two fits in this process."""
    from pirn_jax import PIRN, Config, open_dataset
    from pirn_jax.training import use_compilation_cache

    use_compilation_cache(cache)
    shots = list(open_dataset("synthetic", None, kind, size=400, train=SHOTS, test=1).train)
    config = Config(encoder=encoder, weights=ENCODERS[encoder], modalities=MODALITIES[seen])
    network, seconds = PIRN(config).encoder, []
    for _ in range(2):
        start = time.perf_counter()
        PIRN(config, encoder=network).fit(shots)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="pirn-tiny and flange alone")
    parser.add_argument("--json", type=Path, help="results/fitting.json; quick: elsewhere")
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        fit(*arguments.fit)
        return
    from bench.measure import environment, in_process, result_file, write

    target = result_file(arguments, "fitting")
    rows: list[dict[str, Any]] = []
    result = {"environment": environment(), "shots": SHOTS, "rows": rows}
    for about in product(ENCODERS, MODALITIES, KINDS):
        if arguments.quick and (about[0], about[2]) != ("pirn-tiny", "flange"):
            continue
        with tempfile.TemporaryDirectory() as cache:
            words = (__file__, "--fit", *about, cache)
            first, (cached, again) = in_process(*words)[0], in_process(*words)
        row = dict(zip(("encoder", "modalities", "kind"), about, strict=True))
        rows.append(row | {"first_s": first, "cached_s": cached, "again_s": again})
        print(*about, f"first {first:.1f} s, cached {cached:.1f} s, again {again:.1f} s")
        write(target, result)


if __name__ == "__main__":
    main()
