"""Pixel metrics of 64 Mpx (100 maps of 800 x 800): ours beside sorting everything.

    python benchmarks/metrics.py                    # writes benchmarks/results/metrics_cpu2.json
    python benchmarks/metrics.py --quick --json -   # 4 Mpx, to the terminal

Each method runs in a process of its own, on the same maps and masks, which lie in the memory of
that process before the clock starts. Memory is what the process's peak grows by from there (VmHWM,
reset at that point): interpreter, libraries and data are left out, and nothing else. The reference
sorts all pixels as MVTec's published evaluation does, and is itself written with numpy: AUPRO at
the same four limits, then AUROC, AP and F1max from the same sorted arrays, so that both do the same
job. A third row reads the maps from disk, as a test set larger than memory would be; there the peak
also counts the pages of the files (up to data_mb), which the kernel drops when it needs the room.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy
from scipy import ndimage

from bench.measure import bars, result_file
from pirn_jax.metrics import evaluate_maps

LIMITS = (0.3, 0.1, 0.05, 0.01)


def make(folder: Path, maps: int, side: int) -> None:
    """Smooth log-normal anomaly maps and masks with 1 to 2 % defective pixels, on disk."""
    generator = np.random.default_rng(0)
    scores = np.lib.format.open_memmap(folder / "maps.npy", "w+", np.float32, (maps, side, side))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (maps, side, side))
    for index in range(maps):
        coarse = generator.normal(size=(side // 8, side // 8)).astype(np.float32)
        smooth = ndimage.zoom(ndimage.gaussian_filter(coarse, 2), 8, order=1)
        fine = generator.normal(scale=0.01, size=(side, side)).astype(np.float32)
        scores[index] = np.exp(4 * (smooth[:side, :side] + fine))
        if index % 3:
            for _ in range(generator.integers(1, 4)):
                y, x = generator.integers(0, side, 2)
                high, wide = generator.integers(side // 40, side // 6, 2)
                masks[index, y : y + high, x : x + wide] = 255
            scores[index] *= np.where(masks[index] > 0, 1.3, 1.0)
    scores.flush()
    masks.flush()


def sort_everything(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """All metrics by sorting all pixels together and accumulating."""
    truth = masks > 0
    weight = np.zeros(maps.shape)
    regions = 0
    for index in range(len(maps)):
        labels, count = ndimage.label(truth[index], np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        weight[index] = np.where(labels > 0, 1.0 / sizes[labels], 0.0)
        regions += count
    order = np.argsort(maps, axis=None)[::-1]
    scores = maps.reshape(-1)[order]
    last = np.append(scores[1:] != scores[:-1], True)
    positive = truth.reshape(-1)[order]
    found, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    pro = np.append(0.0, np.cumsum(weight.reshape(-1)[order])[last] / regions)
    fpr = np.append(0.0, false / false[-1])
    tpr = np.append(0.0, found / found[-1])
    result = {
        "p_auroc": float(np.trapezoid(tpr, fpr)),
        "p_ap": float(np.sum(np.diff(tpr) * found / (found + false))),
        "p_f1max": float(np.max(2 * found / (found + false + found[-1]))),
    }
    for limit in LIMITS:
        inside = fpr <= limit
        edge = float(np.interp(limit, fpr, pro))
        area = np.trapezoid(np.append(pro[inside], edge), np.append(fpr[inside], limit))
        result[f"aupro_{limit:g}"] = float(area) / limit
    return result


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no {field} in /proc/self/status: this benchmark needs Linux")


def measure(method: str, folder: Path) -> None:
    """Run one method here and print its figures, seconds and MB as JSON."""
    mode = "r" if method == "exact, maps on disk" else None
    maps = np.load(folder / "maps.npy", mmap_mode=mode)
    masks = np.load(folder / "masks.npy", mmap_mode=mode)
    tiny = np.arange(16.0).reshape(1, 4, 4)  # first use of threads and libraries
    evaluate_maps(tiny, tiny > 10, LIMITS)
    sort_everything(tiny, tiny > 10)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = memory("VmRSS")
    start = time.perf_counter()
    if method == "sort everything":
        figures = sort_everything(maps, masks)
    else:
        figures = evaluate_maps(maps, masks, LIMITS)
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    print(json.dumps({"seconds": seconds, "mb_over_data": peak, "figures": figures}))


def run(maps: int, side: int, repeats: int) -> dict:
    """Every method `repeats` times in turn; medians, and what they say of each other."""
    methods = ("exact", "exact, maps on disk", "sort everything")
    rows: dict[str, list[dict]] = {method: [] for method in methods}
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), maps, side)
        for _ in range(repeats):
            for method in methods:
                command = [sys.executable, __file__, "--measure", method, "--folder", name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows[method].append(json.loads(done.stdout))
    median = {
        method: {
            "seconds": float(np.median([r["seconds"] for r in runs])),
            "mb_over_data": float(np.max([r["mb_over_data"] for r in runs])),
            "all_seconds": [round(r["seconds"], 3) for r in runs],
        }
        for method, runs in rows.items()
    }
    ours, theirs = rows["exact"][0]["figures"], rows["sort everything"][0]["figures"]
    return {
        "benchmark": "pixel metrics, all figures at four AUPRO limits",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": {"cpu": cpu(), "cores": os.cpu_count(), "load_at_start": load},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "pixels": maps * side * side,
        "maps": maps,
        "repeats": repeats,
        "data_mb": maps * side * side * 5 / 1e6,
        "rows": median,
        "speed_up": median["sort everything"]["seconds"] / median["exact"]["seconds"],
        "memory_share": median["exact"]["mb_over_data"] / median["sort everything"]["mb_over_data"],
        "largest_difference": max(abs(ours[k] - theirs[k]) for k in theirs),
        "figures": ours,
    }


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description="Exact pixel metrics beside sorting everything.")
    parser.add_argument("--quick", action="store_true", help="25 maps of 400 x 400")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="results/metrics_cpu2.json, quick: elsewhere; - is none")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.folder)
        return
    maps, side = (25, 400) if arguments.quick else (100, 800)
    result = run(maps, side, arguments.repeats)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json != "-":
        target = Path(result_file(arguments, "metrics_cpu2"))
        target.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {target}")
        seconds = {method: row["seconds"] for method, row in result["rows"].items()}
        bars(target, seconds, "s", f"All pixel metrics of {maps * side**2 / 1e6:g} Mpx")


if __name__ == "__main__":
    main()
