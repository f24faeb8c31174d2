"""The three figures of the study's page, from the record of the recipe study alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bootstrap import METRICS
from recipe_study.rows import BASELINES, POOLS

SHORT = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_0.3": "AUPRO"}
Record = dict[str, Any]


def draw(record: Record, folder: Path) -> dict[str, Path]:
    """The three figures, as small PNG files."""
    import matplotlib as mpl

    mpl.use("agg")
    found = {
        "systems": _draw_systems(record),
        "shifts": _draw_shifts(record),
        "questions": _draw_questions(record),
    }
    files = {}
    for name, figure in found.items():
        files[name] = folder / f"recipe_{name}.png"
        figure.savefig(files[name], dpi=90, bbox_inches="tight", metadata={"Software": None})
    return files


def _first(record: Record) -> Record:
    return next(iter(record["main"].values()))


def _draw_systems(record: Record) -> Any:
    """Each system's figures, clean and shifted, by pool and set."""
    from matplotlib.figure import Figure

    figures = _first(record)["figures"]
    figure = Figure(figsize=(10, 0.35 * len(figures) + 1.5))
    names = list(figures)
    systems = [s for s in ("default", "paper", *BASELINES) if any(s in f for f in figures.values())]
    for place, m in enumerate(("i_auroc", "aupro_0.3")):
        axes = figure.add_subplot(1, 2, place + 1)
        for number, system in enumerate(systems):
            for kind, marker in (("clean", "o"), ("shifted", "x")):
                points = [
                    (figures[n][system][kind][m][0], y + 0.12 * (number - len(systems) / 2))
                    for y, n in enumerate(names)
                    if m in figures[n].get(system, {}).get(kind, {})
                ]
                x, y = zip(*points, strict=True) if points else ((), ())
                label = system if kind == "clean" else None
                axes.plot(x, y, marker, color=f"C{number}", markersize=4, label=label)
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), fontsize=8)
        axes.set_xlabel(f"{SHORT[m]} (● clean, × shifted)")
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    _legend(figure, 0.02)
    return figure


def _draw_shifts(record: Record) -> Any:
    """How much each system drops under shift, pool by pool, with intervals."""
    from matplotlib.figure import Figure

    figures = _first(record)["figures"]
    pools = [name for name in POOLS if name in figures]
    systems = [s for s in ("default", "paper", *BASELINES) if any(s in f for f in figures.values())]
    figure = Figure(figsize=(10, 2.6))
    for place, m in enumerate(METRICS):
        axes = figure.add_subplot(1, 3, place + 1)
        for number, system in enumerate(systems):
            for x, pool in enumerate(pools):
                if found := figures[pool].get(system, {}).get("drop", {}).get(m):
                    _bar(axes, x + 0.14 * (number - len(systems) / 2), found, f"C{number}",
                         system if x == 0 else None)  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=0.8)
        names = [name.replace(" + ", " +\n").replace(" RGB", "\nRGB") for name in pools]
        axes.set_xticks(range(len(pools)), names, fontsize=7)
        axes.set_title(f"drop of {SHORT[m]} under shift", fontsize=8)
    _legend(figure, -0.1)
    return figure


def _legend(figure: Any, height: float) -> None:
    """Below the panels, once for all of them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, height)}
    figure.legend(handles, labels, ncols=len(labels), fontsize=8, frameon=False, **place)


def _bar(axes: Any, x: float, found: Sequence[float], colour: str, label: str | None) -> None:
    value, low, high = found
    axes.plot([x, x], [low, high], color=colour, linewidth=1)
    axes.plot([x], [value], "o", color=colour, markersize=4, label=label)


def _draw_questions(record: Record) -> Any:
    """Every row ahead of default by how much, over all sets, or those with both streams."""
    from matplotlib.figure import Figure

    pools = {row["row"]: row["ahead of default by"] for row in record["questions"]}
    pools = {name: found.get("all") or found.get("both streams") for name, found in pools.items()}
    rows = [row for row in record["questions"] if pools[row["row"]] and not row["is default"]]
    figure = Figure(figsize=(10, 0.25 * len(rows) + 1))
    for place, m in enumerate(METRICS):
        axes = figure.add_subplot(1, 3, place + 1)
        for y, row in enumerate(rows):
            if found := (pools[row["row"]] or {}).get(m):
                value, low, high = (100 * x for x in found)
                colour = "C2" if low > 0 else "C3" if high < 0 else "0.5"
                axes.plot([low, high], [y, y], color=colour, linewidth=1.5)
                axes.plot([value], [y], "o", color=colour, markersize=4)
        axes.axvline(0, color="0.6", linewidth=0.8)
        names = [row["row"] if place == 0 else "" for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(f"{SHORT[m]}, points ahead of default", fontsize=8)
    return figure
