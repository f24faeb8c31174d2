"""Rewrite the tables of `benchmarks/README.md` from the JSON in `benchmarks/results/`.

    python benchmarks/tables.py [--check]

Only what lies between the two marks changes. What no file holds is said to be not measured, with
the command that measures it; files named `…_gpu.json` are those of a GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def latency(found: dict[str, Any]) -> Iterator[str]:
    """Table 4, the ratios, and how the stages compare."""
    yield from systems(found)
    ours = [row["system"] for row in found["table_4"] if ": ours" in row["system"]]
    by_xla = any(name in row for row in ours for name in ("mixture", "inp-former"))
    yield (
        "FLOPs by formula, 2 per multiply-add"
        + (" (our mixture and inp-former: by XLA)" if by_xla else "")
        + "; rows marked cited are the paper's own. `pirn` is the trained decoder in recipe "
        "`default`, `pirn paper` in recipe `paper`."
    )
    yield ""
    rows = []
    for one in found["encoders"].values():
        for name, times in one["times"].items():
            if name.startswith("ours"):
                values = (times[key] for key in ("median_ms", "p95_ms", "p99_ms"))
                rows.append((one["encoder"], name, *map(_number, values), str(times["runs"])))
    yield from _table(("encoder", "row", "p50", "p95", "p99", "runs"), rows)
    rows = [
        (one["encoder"], name, _number(times["median_ms"]), _number(times["p95_ms"]))
        for one in found["encoders"].values()
        for name, times in one["stages"].items()
    ]
    dtype = next(iter(found["encoders"].values())).get("stages_dtype", "float32")
    if rows:
        yield from _table(("encoder", f"stage, {dtype}", "p50 ms", "p95 ms"), rows)
    ratios = found["ratio_to_torch"]
    if not ratios:
        yield "PyTorch was not there; no ratios."
    else:
        rows = [(name, f"{value:.2f}") for name, value in ratios.items()]
        yield from _table(("ours over plain PyTorch", "ratio"), rows)
    for one in found["encoders"].values():
        for what, why in one["left_out"].items():
            yield f"{one['encoder']}: {what} did not run here: {why}"


def systems(found: dict[str, Any]) -> Iterator[str]:
    """Table 4's rows of the other systems, and ours that took turns with them."""
    rows = [(row["system"], _number(row["gflops"]), _number(row["ms"])) for row in found["table_4"]]
    yield from _table(("system", "GFLOPs", "median ms"), rows)


def flops(found: dict[str, Any]) -> Iterator[str]:
    """Totals by method."""
    rows = []
    for name, row in found["pairs"].items():
        values = (
            row["encoder_formula_g"],
            row["encoder_all_blocks_formula_g"],
            row["xla_g"]["encoder"],
            row["total_executed_g"],
            row["total_equations_all_blocks_g"],
            row["xla_g"]["total"],
        )
        rows.append((name, *map(_number, values)))
    heads = ("encoder, formula", "all blocks", "encoder, XLA", "pair executed")
    yield from _table(("pair of pirn", *heads, "equations, all blocks", "pair, XLA"), rows)
    yield f"GFLOPs at 2 per multiply-add; the paper says {found['paper_g']} without saying which."
    yield ""
    names = list(found["pairs"])
    name = "dinov2-base default" if "dinov2-base default" in names else names[0]
    parts = found["pairs"][name]["formula_executed_g"]
    rows = [(part, f"{value:.3f}") for part, value in parts.items()]
    yield from _table((f"part of {name}, executed", "GFLOPs"), rows)


def throughput(found: dict[str, Any]) -> Iterator[str]:
    """Rows by dtype and batch, and the floor of the arithmetic."""
    rows = [
        (
            dtype if " " in dtype else f"{dtype} pirn",
            batch,
            _number(row["pairs_per_second"]),
            _number(row["temporary_mb"]),
            _number(row["peak_tflops"]),
            f"{100 * row['share_of_peak']:.0f} %",
        )
        for dtype, batches in found["rows"].items()
        for batch, row in batches.items()
    ]
    heads = ("program", "batch", "pairs/s", "MB beside weights", "peak TFLOP/s", "encoder's share")
    yield from _table(heads, rows)
    for dtype, batches in found["rows"].items():
        one = batches.get("1")
        if one is None or dtype not in ("float32", "bfloat16"):  # FLOPs by formula are of these
            continue
        floor = found["gflops_of_a_pair"] / one["peak_tflops"]
        yield (
            f"{dtype} pirn, batch 1: at that peak the arithmetic alone takes {floor:.1f} ms; "
            f"measured {one['ms']:.1f} ms, {one['ms'] / floor:.1f} times as long."
        )
    yield ""


def scaling(found: dict[str, Any]) -> Iterator[str]:
    """Devices, tokens, prototypes."""
    rows = [
        (
            count,
            _number(row["ms"]),
            f"{row['efficiency']:.2f}",
            f"{row['largest_difference']:.0e}",
        )
        for count, row in found["devices"].items()
    ]
    heads = ("efficiency", "scores differ by at most")
    yield from _table(("devices", f"ms of {found['pairs']} pairs of pirn", *heads), rows)
    if found["environment"]["platform"] == "cpu":
        yield (
            f"Host devices on {found['environment']['cores']} cores share the cores that one "
            "device already uses: all they can win is what a single program leaves idle. This "
            "shows that results stay the same and what spreading costs, not what devices gain."
        )
        yield ""
    for part in ("tokens", "prototypes"):
        if part not in found:
            continue  # cut off before
        rows = [(name, _number(times["median_ms"])) for name, times in found[part].items()]
        yield from _table((part, "median ms"), rows)


def cold_start(found: dict[str, Any]) -> Iterator[str]:
    """Medians by kind of cache."""
    kinds = list(found["median"])
    steps = list(found["median"][kinds[0]])
    rows = [(step, *(f"{found['median'][kind][step]:.2f}" for kind in kinds)) for step in steps]
    head = f"seconds, pirn on {found['encoder']}"
    yield from _table((head, *(f"cache {k}" for k in kinds)), rows)


def lowered(found: dict[str, Any]) -> Iterator[str]:
    """Counts by program."""
    counts = ("products", "exact", "kernels", "loops", "sorts", "gathers", "scatters", "operations")
    rows = []
    for name, row in found["rows"].items():
        trees = row.get("as_trees", row["arrays"])
        arrays = f"{row['arrays']}" if trees == row["arrays"] else f"{row['arrays']} of {trees}"
        rows.append((name, arrays, *(str(row[count]) for count in counts)))
    head = f"program, {found['encoder']}; default and paper: recipes of pirn"
    yield from _table((head, "arrays", *counts), rows)


def runtimes(found: dict[str, Any]) -> Iterator[str]:
    """A pair, a scan, a start by runtime."""
    rows = []
    for kind, times in found["pictures"].items():
        scan = found.get("scan", {}).get(kind, {})  # not there where it was cut off before
        values = (times["median_ms"], times["cpu_ms"], scan.get("median_ms"))
        start = found.get("start_seconds", {}).get(kind)
        difference = found["largest_difference"].get(kind)
        rows.append(
            (
                kind,
                *map(_number, values),
                _number(start) or "not measured",
                "" if difference is None else f"{difference:.0e}",
            )
        )
    heads = ("pair, ms", "its processor time", "scan, ms", "start, s", "maps differ by at most")
    yield from _table((f"runtime, {found['encoder']}", *heads), rows)


def generated_encoder(found: dict[str, Any]) -> Iterator[str]:
    """The two graphs of each network beside each other."""
    rows = []
    for name, dtypes in found["encoders"].items():
        for dtype, row in dtypes.items():
            hand, made = (row["times"][kind] for kind in ("hand-written", "generated"))
            rows.append(
                (
                    f"{name}, {dtype}",
                    *(_number(times["median_ms"]) for times in (hand, made)),
                    *(f"{made[what] / hand[what]:.2f}" for what in ("median_ms", "cpu_ms")),
                    *(f"{1 - row['worst_cosine'][k]:.0e}" for k in ("hand-written", "generated")),
                )
            )
    heads = ("hand-written, ms", "generated, ms", "ratio", "of processor time")
    off = ("1 - worst cosine, hand-written", "generated")
    yield from _table(("encoder", *heads, *off), rows)


def fitting(found: dict[str, Any]) -> Iterator[str]:
    """Seconds by encoder, modalities and kind of part."""
    times = ("first_s", "cached_s", "again_s")
    rows = [
        (row["encoder"], row["modalities"], row["kind"], *(f"{row[name]:.1f}" for name in times))
        for row in found["rows"]
    ]
    heads = ("compiling", "programs cached", "again, in the same process")
    yield from _table((f"{found['shots']} shots, seconds", "modalities", "parts", *heads), rows)


class Section(NamedTuple):
    """One file's tables.

    Attributes:
        title: above them.
        make: its lines.
        script: what measures it, without the ending.
        devices: whether a CPU's figures and a GPU's are two things.
    """

    title: str
    make: Callable[[dict[str, Any]], Iterator[str]]
    script: str
    devices: bool = True


BEFORE = "0ea1657"
"""The last commit before any work for GPUs."""
SECTIONS = {
    "latency": Section("Latency and Table 4", latency, "latency"),
    "latency_systems": Section(
        "Other systems of Table 4, beside the default method", systems, "systems"
    ),
    "flops": Section("FLOPs", flops, "flops", devices=False),
    "throughput": Section("Throughput", throughput, "throughput"),
    "scaling": Section("Scaling", scaling, "scaling"),
    "cold_start": Section("Cold start", cold_start, "cold_start"),
    "fitting": Section("Learning", fitting, "fitting"),
    "lowered": Section("What a GPU is handed", lowered, "lowered", devices=False),
    f"lowered_{BEFORE}": Section(
        f"What a GPU was handed before (commit {BEFORE})", lowered, "lowered", devices=False
    ),
    "runtimes_pirn-tiny": Section("Exported file, pirn-tiny", runtimes, "runtimes", devices=False),
    "runtimes_dinov2-small": Section(
        "Exported file, dinov2-small", runtimes, "runtimes", devices=False
    ),
    "generated_encoder": Section(
        "OpenVINO's encoder: hand-written, generated",
        generated_encoder,
        "generated_encoder",
        devices=False,
    ),
}


def section(results: Path) -> str:
    """Everything between the marks."""
    text = []
    for name, (title, make, script, devices) in SECTIONS.items():
        for suffix, device in (("", "CPU"), ("_gpu", "GPU")) if devices else (("", ""),):
            text += [f"### {title}, {device}" if devices else f"### {title}", ""]
            file = results / f"{name}{suffix}.json"
            if not file.is_file():
                where = "does on such a device" if devices else "does"
                text += [f"Not measured; `python benchmarks/{script}.py` {where}.", ""]
                continue
            found = json.loads(file.read_text())
            where = found["environment"]
            versions = where["versions"]
            text += [
                f"`results/{file.name}`: {where['processor']}, {where['cores']} cores, device "
                f"{where['device']}; {where['date'][:10]}; jax {versions['jax']}, torch "
                f"{versions['torch'] or 'missing'}; load {where['load_at_start'][0]:.1f} at the "
                "start.",
                "",
                *make(found),
            ]
    return "\n".join(text).rstrip() + "\n"


def rewritten(readme: str, results: Path) -> str:
    """The text with the part between the marks made anew.

    Raises:
        ValueError: the marks are not there.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"expected one {BEGIN} and one {END}")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{section(results)}\n{END}", readme)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def main() -> None:
    """Rewrite, or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the tables are not current")
    arguments = parser.parse_args()
    readme = FOLDER / "README.md"
    old = readme.read_text()
    new = rewritten(old, FOLDER / "results")
    if arguments.check:
        sys.exit(int(new != old))
    readme.write_text(new)


if __name__ == "__main__":
    main()
