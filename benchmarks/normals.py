"""Surface normals: our plane fit on the grid beside the paper's method, on the same scans.

    python benchmarks/normals.py --json benchmarks/results/normals_cpu.json

Grid times are medians of many runs after compilation, input and output in NumPy. The paper's method
is Open3D's (30 neighbours, tangent planes 50) in its own process, as `surface_normals` runs it; the
start of that process, measured on a scan of a few points, is taken off. Agreement is the median
angle between the two, signs ignored, and the share of pixels with the same sign. Real scans are
read from PIRN_SHARED (default ../shared) and skipped where that is absent.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from bench.measure import bars
from pirn_jax.geometry import find_object, measured, surface_normals

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    """Surface normals by both methods, side by side."""

    json: Path | None = None
    """Write the rows here, with hardware, versions and date."""
    repeats: int = 50
    """Runs of the grid method per scan; the median counts."""
    open3d_repeats: int = 3
    """Runs of the paper's method per scan."""
    time_limit: float = 300.0
    """Seconds for one run of the paper's method."""
    quick: bool = False
    """Generated 400×400 only, one run of the paper's method."""


def generated(size: int) -> np.ndarray:
    """A wavy part in front of a camera: 0.2 mm between pixels at 800², noise, 5 % holes."""
    random = np.random.default_rng(0)
    pitch, focal = 0.16 / size, 0.6 / (0.16 / size)
    row, column = np.mgrid[:size, :size] - size / 2 + 0.5
    z = 0.6 - 0.02 * np.cos(60 * pitch * column) * np.cos(50 * pitch * row)
    z += 0.2 * pitch * random.standard_normal(z.shape)
    points = np.stack([column * z / focal, row * z / focal, z], -1)
    points[random.random(z.shape) < 0.05] = 0
    return points.astype(np.float32)


def table(size: int) -> np.ndarray:
    """A dome on a tilted table, for the background."""
    random = np.random.default_rng(0)
    y, x = (np.mgrid[:size, :size] - size / 2 + 0.5) * (0.15 / size)
    dome = 0.8 * np.sqrt(np.maximum(0.05**2 - x**2 - y**2, 0))
    z = 0.6 + 0.1 * x - 0.05 * y - dome + 1e-4 * random.standard_normal(x.shape)
    points = np.stack([x * z / 0.6, y * z / 0.6, z], -1)
    points[random.random(z.shape) < 0.05] = 0
    return points.astype(np.float32)


def real(shared: Path) -> dict[str, np.ndarray]:
    """Scans of the shared folder by name; {} where it is absent."""
    scans, data = {}, shared / "data"
    for number in range(3):
        file = data / "phoxi" / f"depth_{number}.npy"
        if file.is_file():
            depth = np.nan_to_num(np.load(file, allow_pickle=False)[..., 0])
            row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
            x, y = (column - 255.5) / 552.5 * depth, (row - 191.75) / 552.5 * depth
            scans[f"phoxi_{number}"] = np.stack([x, y, depth], -1).astype(np.float32)
    if (data / "organized_pcd").is_dir():
        from pirn_jax.scans import open_files

        for file in sorted((data / "organized_pcd").glob("*.pcd")):
            scans[file.stem] = open_files([file], unit="m")[0].xyz
    if (data / "mvtec3d_rgbxyz").is_dir():
        from pirn_jax.scans import open_dataset

        train = open_dataset("mvtec3d", data / "mvtec3d_rgbxyz", "road").train
        scans |= {f"road_{index}": train[index].xyz for index in range(2)}
    return scans


def median_seconds(run, repeats: int) -> float:
    """The median time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def compare(name: str, xyz: np.ndarray, start_seconds: float, options: Options) -> dict:
    """One row: both methods on one scan."""
    valid = measured(xyz)
    begin = time.perf_counter()
    ours = surface_normals(xyz, valid)
    first = time.perf_counter() - begin
    seconds = median_seconds(lambda: surface_normals(xyz, valid), options.repeats)

    theirs: list[np.ndarray] = []

    def papers() -> None:
        theirs.append(surface_normals(xyz, valid, method="open3d", time_limit=options.time_limit))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        repeats = 1 if options.quick else options.open3d_repeats
        papers_seconds = median_seconds(papers, repeats) - start_seconds
    both = (ours != 0).any(-1) & (theirs[-1] != 0).any(-1)
    cosine = np.sum(ours[both] * theirs[-1][both], axis=-1)
    row = {
        "scan": name,
        "height": xyz.shape[0],
        "width": xyz.shape[1],
        "valid": float(valid.mean()),
        "grid_first_seconds": first,
        "grid_seconds": seconds,
        "open3d_seconds": papers_seconds,
        "ratio": papers_seconds / seconds,
        "median_angle_degrees": float(np.degrees(np.median(np.arccos(np.abs(cosine).clip(0, 1))))),
        "same_sign": float(np.mean(cosine > 0)),
        "open3d_notes": sorted({str(warning.message) for warning in caught}),
    }
    print(
        f"{name:14} {xyz.shape[1]:4}×{xyz.shape[0]:<4} grid {1e3 * seconds:7.1f} ms   "
        f"open3d {papers_seconds:7.2f} s   {row['ratio']:6.0f}×   "
        f"angle {row['median_angle_degrees']:5.2f}°   same sign {row['same_sign']:.4f}"
        + "".join(f"\n{'':14} {note}" for note in row["open3d_notes"]),
        flush=True,
    )
    return row


def compare_background(size: int, options: Options) -> dict:
    """Background removal by both methods on a generated table."""
    xyz = table(size)
    ours = find_object(xyz).object
    seconds = median_seconds(lambda: find_object(xyz), max(3, options.repeats // 5))
    begin = time.perf_counter()
    theirs = find_object(xyz, method="open3d").object
    papers_seconds = time.perf_counter() - begin
    overlap = float(np.sum(ours & theirs) / np.sum(ours | theirs))
    print(
        f"{'background':14} {size:4}×{size:<4} grid {1e3 * seconds:7.1f} ms   "
        f"open3d {papers_seconds:7.2f} s   IoU {overlap:.4f}",
        flush=True,
    )
    return {
        "size": size,
        "grid_seconds": seconds,
        "open3d_seconds": papers_seconds,
        "iou": overlap,
    }


def main(options: Options) -> None:
    """Runs and prints every row, and writes them if asked to."""
    sizes = (400,) if options.quick else (400, 800)
    scans = {"generated_400": generated(400)}
    shared = Path(os.environ.get("PIRN_SHARED", ROOT.parent / "shared"))
    if not options.quick:
        found = real(shared)
        scans |= found
        if not found:
            print(f"real scans skipped: nothing in {shared.name}/ (set PIRN_SHARED)")
        scans["generated_800"] = generated(800)  # last: it takes the paper's method longest
    few = np.zeros((8, 8, 3), np.float32)
    few[:3, :3] = generated(400)[200:203, 200:203] + 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = median_seconds(lambda: surface_normals(few, method="open3d"), 3)
    rows, backgrounds = [], []
    for name, xyz in scans.items():
        rows.append(compare(name, xyz, start, options))
        write(options, start, rows, backgrounds)
    for size in sizes:
        backgrounds.append(compare_background(size, options))
        write(options, start, rows, backgrounds)


def write(options: Options, start: float, rows: list[dict], backgrounds: list[dict]) -> None:
    """Writes what there is so far: the paper's method takes minutes, and may be interrupted."""
    if options.json is None:
        return
    versions = {}
    for package in ("jax", "jaxlib", "numpy", "scipy", "open3d-cpu", "open3d"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "platform": platform.platform(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "versions": {"python": platform.python_version(), **versions},
        "repeats": options.repeats,
        "open3d_repeats": 1 if options.quick else options.open3d_repeats,
        "open3d_process_start_seconds": start,
        "normals": rows,
        "background": backgrounds,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    if rows:
        shown = {row["scan"]: 1e3 * row["grid_seconds"] for row in rows}
        bars(options.json, shown, "ms", "Surface normals, ours")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main(tyro.cli(Options))
