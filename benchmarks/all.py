"""Every figure that matters on one device, the most important first, within so many minutes.

    python benchmarks/all.py --device gpu [--minutes 10] [--out FOLDER]
    python benchmarks/all.py --device cpu --quick

Each step is one of the other scripts, in a process of its own, with as much time as is left; what
one compiles the next finds in a cache that they share. The scripts write each part as soon as it is
known, so that a run that is cut off leaves the tables of what it got to. The last line of a step
says what became of it, and `all.json` keeps it. With --quick everything is small and the files go
to a temporary folder unless --out names one: such figures show that it works, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import RESULTS, write

HERE = Path(__file__).resolve().parent


class Step(NamedTuple):
    """One script.

    Attributes:
        script: its name.
        flags: what it is asked for.
        file: name of its JSON, where it is not the script's.
    """

    script: str
    flags: tuple[str, ...]
    file: str = ""


# What a line waits for; then how much one device does; then training; then the rest of Table 4.
HALF = ("--dtypes", "bfloat16")
FIRST = ("--encoders", "B", *HALF, "--no-training", "--no-others")
GPU = (
    Step("latency", (*FIRST, "--seconds", "20")),
    Step("throughput", (*HALF, "--batches", "8", "64", "--methods", "mixture", "pirn")),
    Step("training", ("--quick", "--recipes", "default")),
    Step("latency", (*FIRST, "--size", "448", "--seconds", "15"), "latency_448"),
    Step("transport", ("--quick",)),
    # In float32 too, and CFM and INP-Former; takes the first one's place once it is known.
    Step("latency", ("--encoders", "B", "--no-training", "--seconds", "30")),
    Step("systems", ("--seconds", "30"), "latency_systems"),
    Step("scaling", ()),
    Step("training", (), "training_all"),
)
CPU = (
    Step("latency", ("--no-training",)),
    Step("throughput", ("--seconds", "0.4")),
    Step("training", ()),
    Step("transport", ()),
    Step("scaling", ()),
    Step("systems", (), "latency_systems"),
)
QUICK = (
    Step("latency", ("--quick", "--encoders", "S", *HALF, "--no-training", "--no-others")),
    Step("throughput", ("--quick", *HALF)),
    Step("training", ("--quick", "--recipes", "default")),
    Step("transport", ("--quick",)),
    Step("scaling", ("--quick",)),
    Step("systems", ("--quick",), "latency_systems"),
)


def environment_of(device: str, cache: str) -> dict[str, str]:
    """What the scripts run under: that device, and one cache of compiled programs."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cuda" if device == "gpu" else "cpu",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(step: Step, target: Path, environ: dict[str, str], seconds: float) -> dict[str, Any]:
    """What became of a step that may take so long."""
    command = [sys.executable, str(HERE / f"{step.script}.py"), *step.flags, "--json", str(target)]
    begin = time.monotonic()
    # A session of its own, so that what the script has started ends with it.
    with subprocess.Popen(command, env=environ, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
            state = "done" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            state = "cut off"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return {
        "command": " ".join((step.script, *step.flags)),
        "state": state,
        "seconds": time.monotonic() - begin,
        "file": target.name if target.is_file() else None,
    }


def main() -> None:
    """Measure what there is time for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all together")
    parser.add_argument("--quick", action="store_true", help="small and few: whether it works")
    parser.add_argument("--out", type=Path, help="folder of the JSON; results/, quick: a new one")
    arguments = parser.parse_args()
    steps = QUICK if arguments.quick else GPU if arguments.device == "gpu" else CPU
    out = arguments.out or (Path(tempfile.mkdtemp()) if arguments.quick else RESULTS)
    suffix = "_gpu" if arguments.device == "gpu" else ""
    # Asked to end, it ends the script that runs too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    end, rows = time.monotonic() + 60 * arguments.minutes, []
    with tempfile.TemporaryDirectory() as cache:
        environ = environment_of(arguments.device, cache)
        check = f"import jax; jax.devices('{arguments.device}')"
        found = subprocess.run([sys.executable, "-c", check], env=environ, capture_output=True)
        if found.returncode:
            raise SystemExit(f"JAX finds no {arguments.device} here; --device cpu runs everywhere")
        for step in steps:
            left = end - time.monotonic()
            if left < 1:
                rows.append({"command": step.script, "state": "no time left", "seconds": 0.0})
                continue
            target = out / f"{step.file or step.script}{suffix}.json"
            rows.append(run(step, target, environ, left))
            write(out / f"all{suffix}.json", {"minutes": arguments.minutes, "steps": rows})
    for row in rows:
        print(f"{row['seconds']:7.1f} s  {row['state']:12} {row['command']}")


if __name__ == "__main__":
    main()
