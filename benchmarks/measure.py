"""What the benchmarks share: interleaved runs, medians, the hardware in the file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Processor, devices, versions and date, as far as they can be told."""
    import jax

    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [n for n in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in n]
        processor = names[0].split(":")[1].strip() if names else processor
    versions = {}
    for name in ("jax", "jaxlib", "flax", "ott-jax", "jraph", "torch"):
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
            "median_ms": sorted(found)[len(found) // 2],
            "min_ms": min(found),
            "p95_ms": sorted(found)[int(0.95 * (len(found) - 1))],
            "cpu_ms": sorted(processor[name])[len(found) // 2],
            "runs": len(found),
        }
        for name, found in times.items()
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """The result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")
