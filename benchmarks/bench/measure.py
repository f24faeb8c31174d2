"""What the benchmarks share: interleaved runs, medians, the hardware in the file."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "results"


def result_file(arguments: argparse.Namespace, name: str) -> Path:
    """Where the JSON goes: what --json names, else results/; with --quick, a new folder.

    Quick figures show that it works, and take the place of measured ones only where --json says so.
    """
    if arguments.json is not None:
        return arguments.json
    folder = Path(tempfile.mkdtemp()) if arguments.quick else RESULTS
    return folder / f"{name}.json"


def environment() -> dict[str, Any]:
    """Processor, devices, versions and date, as far as they can be told."""
    import jax

    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [n for n in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in n]
        processor = names[0].split(":")[1].strip() if names else processor
    versions = {}
    for name in ("jax", "jaxlib", "flax", "ott-jax", "jraph", "openvino", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "python": platform.python_version(),
        "versions": versions,
    }


def in_process(script: str, *words: str) -> Any:
    """What a script prints last, as JSON, in a process of its own.

    Raises:
        SystemExit: it failed, with what it said.
    """
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(
    tasks: dict[str, Callable[[], Any]], runs: int, seconds: float = 60.0
) -> dict[str, dict[str, float]]:
    """Milliseconds of each task, all of them run in turn so that a busy moment hits all alike.

    Each task must wait for its own result. Stops after `seconds` if the runs are not done by then.
    """
    for task in tasks.values():
        task()
        task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    processor: dict[str, list[float]] = {name: [] for name in tasks}
    start = time.perf_counter()
    for _ in range(runs):
        for name, task in tasks.items():
            begin, used = time.perf_counter(), time.process_time()
            task()
            times[name].append(1e3 * (time.perf_counter() - begin))
            processor[name].append(1e3 * (time.process_time() - used))
        if time.perf_counter() - start > seconds:
            break
    return {
        name: {
            "median_ms": float(np.median(found)),
            "min_ms": min(found),
            "p95_ms": float(np.percentile(found, 95)),
            "p99_ms": float(np.percentile(found, 99)),
            "cpu_ms": sorted(processor[name])[len(found) // 2],
            "runs": len(found),
        }
        for name, found in times.items()
    }


def show(times: dict[str, dict[str, float]], title: str) -> None:
    """Print a table of what `interleaved` found."""
    print(f"\n{title}: ms of {max(t['runs'] for t in times.values())} runs")
    print(f"  {'':44} {'p50':>9} {'p95':>9} {'p99':>9} {'min':>9}")
    for name, found in times.items():
        values = (found[key] for key in ("median_ms", "p95_ms", "p99_ms", "min_ms"))
        print(f"  {name:44} " + " ".join(f"{value:9.2f}" for value in values))


def write(path: Path, result: dict[str, Any]) -> None:
    """The result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


def bars(path: Path, values: dict[str, float], unit: str, title: str) -> None:
    """Horizontal bars beside the JSON, as a small PNG of the same name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.28 * len(values)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(values), list(values.values()), color="#4878a8")
    axes.bar_label(drawn, fmt="%.4g", padding=2, fontsize=7)
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set_xlabel(unit, fontsize=8)
    axes.set_title(title, fontsize=9)
    figure.savefig(path.with_suffix(".png"), dpi=90)


def lines(
    path: Path, curves: dict[str, dict[float, float]], labels: tuple[str, str], title: str
) -> None:
    """Curves beside the JSON, as a small PNG of the same name; logarithmic over decades."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(list(points), list(points.values()), "o-", markersize=3, label=name)
    heights = [y for points in curves.values() for y in points.values()]
    if max(heights) > 10 * min(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xscale="log", xlabel=labels[0], ylabel=labels[1])
    places = sorted({x for points in curves.values() for x in points})
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path.with_suffix(".png"), dpi=90)
