"""The study's page and its figures, from the record of the recipe study alone.

What a person typed between the two marks of "Conclusions" is kept, word by word.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bootstrap import METRICS
from pirn_jax.storage import write_whole
from recipe_study.figures import SHORT, draw
from recipe_study.rows import BASELINES, POOLS, QUESTIONS

BEGIN = "<!-- conclusions: typed by a person, kept by the command -->"
END = "<!-- end of conclusions -->"
PAGE = 100  # characters a line of prose
Record = dict[str, Any]


def write_report(record: Record, protocol: str, file: Path, folder: Path) -> None:
    """Write the page and its figures.

    Args:
        record: as `analysis.record` makes it.
        protocol: the docstring of `command.py`.
        file: of the page; what it holds between the marks is kept.
        folder: of the figures, beside the page or below it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    typed = conclusions(file.read_text(encoding="utf-8")) if file.is_file() else None
    pictures = draw(record, folder)
    parts = [
        "# The recipe, by measurement",
        _opening(record),
        "## Conclusions",
        f"{BEGIN}\n{typed or 'Not written yet.'}\n{END}",
        "## Protocol",
        "```\n" + protocol[protocol.index("Sets.") :].strip() + "\n```",
        _sets(record),
        "## What was wanted, and what was measured",
        _wanted(record),
        "## Default against the others",
        *(_picture(pictures, name, file) for name in ("systems", "shifts")),
        *(_comparison(record, name, found) for name, found in record["main"].items()),
        "## Questions",
        _picture(pictures, "questions", file),
        _questions(record),
        "## Kinds of defect",
        _apart(record),
        "## Options chosen",
        _selection(record),
        "## Draws of the shots, seeds of the initialisation",
        _spread(record),
    ]
    write_whole(file, ("\n\n".join(part for part in parts if part) + "\n").encode())


def conclusions(page: str) -> str | None:
    """What stands between the marks of a page; None without marks."""
    if BEGIN not in page or END not in page:
        return None
    return page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip("\n")


# --- text -----------------------------------------------------------------------------------------


def _opening(record: Record) -> str:
    about = record["about"]
    sizes = " and ".join(f"{size} px" for size in about["sizes"])
    encoder = about["encoder"]  # earlier studies called random weights a demo encoder
    unknowing = encoder.get("random", encoder.get("demo"))
    random = " **Random weights: the figures mean nothing.**" if unknowing else ""
    real = [name for name, one in record["sets"].items() if not one["generated"]]
    return textwrap.fill(
        f"Written by `python experiments/recipe_study --grid {about['grid']}` from "
        f"`recipe.json`. Encoder {about['encoder']['name']} at {sizes}; "
        f"{about['configurations']} configurations; generated data version "
        f"{about['generator']['version']} ({about['generator']['hash'][:12]}), marked as such in "
        f"every table; real sets: {'; '.join(real) or 'none'}. Differences are in percentage "
        f"points with their 95 % interval (paired bootstrap over images and draws of the shots); "
        f"**bold** where it excludes 0.{random}",
        PAGE,
    )


def _sets(record: Record) -> str:
    rows = [["set", "images", "defective", "border distance", "border oracle", "defect cut out: "
             "default", "memory", "image metrics", "chooses"]]  # fmt: skip
    for name, one in record["sets"].items():
        short = record["shortcuts"][name]
        cut = short["defect cut out"]
        rows.append(
            [_set_name(record, name), str(one["images"]), str(one["defective"]),
             _number(short["border distance"]), _number(short["border oracle"]),
             _number(cut.get("default")), _number(cut.get("memory")),
             _yes(one["image metrics"]), _yes(one["chooses"])]
        )  # fmt: skip
    said = (
        "Shortcuts, as I-AUROC: of the border's colour (distance to the training scans; the best "
        "channel and direction, chosen with the labels), and of the map's highest value away from "
        "the defect. 0.5 is none."
    )
    return f"{textwrap.fill(said, PAGE)}\n\n{table(rows)}"


def _wanted(record: Record) -> str:
    """Default against the best baseline of each figure, pooled; parts of the system against none.

    The best baseline is the one with the highest clean figure of that metric on that pool.
    """
    rows = [["wanted", "where", "metric", "against", "default ahead by", ""]]
    for name, found in record["main"].items():
        for pool, metrics in (("RGB + geometry", ("i_auroc", "aupro_0.3")),
                              ("real RGB", ("i_auroc", "p_auroc"))):  # fmt: skip
            for m in metrics if "1 shot" not in name else ():
                figures = found["figures"].get(pool, {})
                clean = {s: figures[s]["clean"][m][0] for s in BASELINES
                         if m in figures.get(s, {}).get("clean", {})}  # fmt: skip
                if clean:
                    best = max(clean, key=clean.__getitem__)
                    ahead = found["default ahead by"][pool][best]["clean"][m]
                    rows.append(["above the best baseline", f"{pool}, {name}", SHORT[m], best,
                                 *_said(ahead)])  # fmt: skip
        widest = "all" if "all" in found["default ahead by"] else "real RGB"
        memory = found["default ahead by"].get(widest, {}).get("memory", {})
        where = f"{widest}, {name}"
        for m, drop in memory.get("drop", {}).items():
            less = [-drop[0], -drop[2], -drop[1]]
            rows.append(["drops no more under shift", where, SHORT[m], "memory",
                         *_said(less)])  # fmt: skip
        if "1 shot" in name:
            rows += [["not below the memory", where, SHORT[m], "memory", *_said(ahead)]
                     for m, ahead in memory.get("clean", {}).items()]  # fmt: skip
    parts = {"photograph alone": "both streams", "normals alone": "both streams",
             "without MNC: streams summed": "both streams", "softmax for BPA": "all",
             "without APR": "all"}  # fmt: skip
    for row in record["questions"]:
        pool = parts.get(row["row"], "")
        for m, found in row["ahead of default by"].get(pool, {}).items():
            ahead = [-found[0], -found[2], -found[1]]
            rows.append(["every part earns its place", pool, SHORT[m], row["row"], *_said(ahead)])
    return table(rows)


def _said(found: Sequence[float]) -> tuple[str, str]:
    """An interval in points, and what it shows."""
    value, low, high = _points(found)
    shows = "ahead" if low > 0 else "behind" if high < 0 else "not told apart"
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", shows


def _points(found: Sequence[float]) -> list[float]:
    """In percentage points, to a tenth; no minus before 0."""
    return [round(100 * x, 1) + 0.0 for x in found]


def _comparison(record: Record, title: str, found: Record) -> str:
    """Figures by set, then by how much default is ahead."""
    figures, ahead = found["figures"], found["default ahead by"]
    systems = [s for s in ("default", "ours, chosen", "paper", *BASELINES)
               if any(s in one for one in figures.values())]  # fmt: skip
    parts = [f"### {title}", "I-AUROC / P-AUROC / AUPRO, clean → shifted; (n): draws of the shots."]
    rows = [["", *systems]]
    for name, one in figures.items():
        shown = _set_name(record, name)
        cells = [
            f"{_figures(one[s].get('clean'))}{_arrow(one[s].get('shifted'))} ({one[s]['draws']})"
            if s in one
            else ""
            for s in systems
        ]
        rows.append([shown, *cells])
    parts.append(table(rows))
    for kind, said in (
        ("clean", "Default ahead, clean"),
        ("shifted", "Default ahead, shifted"),
        ("drop", "Default's drop under shift less the other's (negative: default drops less)"),
    ):
        rows = [[f"{said}, I / P / AUPRO", *systems[1:]]]
        for name, one in ahead.items():
            cells = [_differences(one.get(s, {}).get(kind)) for s in systems[1:]]
            if any(cells):
                rows.append([_set_name(record, name), *cells])
        if len(rows) > 1:
            parts.append(table(rows))
    return "\n\n".join(parts)


def _questions(record: Record) -> str:
    parts = []
    for question in QUESTIONS:
        rows = [["row", "changes", "both streams", "generated", "real RGB", "all"]]
        for row in record["questions"]:
            if row["question"] == question and row["ahead of default by"]:
                pools = row["ahead of default by"]
                same = " (is default)" if row["is default"] else ""
                cells = [_differences(pools.get(p)) for p in rows[0][2:]]
                rows.append([row["row"] + same, "`" + " ".join(row["change"]) + "`", *cells])
        if len(rows) > 1:
            parts.append(f"**{question}**\n\n{table(rows)}")
    said = "Ahead of default by, I / P / AUPRO; each row is run by adding its changes to default."
    return "\n\n".join([said, *parts])


def _apart(record: Record) -> str:
    systems = ("default", "ours, chosen", "paper", *BASELINES)
    parts = []
    for name, found in record["apart"].items():
        rows = [["", "I / P / AUPRO", "default ahead by"]]
        for system in systems:
            if system in found:
                one = found[system]
                rows.append([system, _figures(one["figures"]),
                             _differences(one.get("default ahead by"))])  # fmt: skip
        parts.append(f"**{name}**, {found['sets']} sets\n\n{table(rows)}")
    return "\n\n".join(parts)


def _selection(record: Record) -> str:
    parts = []
    for system, rows_ in record["qualities"].items():
        if not any(rows_.values()):  # one option: nothing was chosen
            parts.append(f"**{system}**: {', '.join(rows_)}, the only option of this grid.")
            continue
        names = list(dict.fromkeys(name for row in rows_.values() for name in row))
        rows = [["option", *(_set_name(record, name) for name in names), "chosen for"]]
        for option, found in rows_.items():
            chosen = [n for n, row in record["chosen"][system].items() if row == option]
            rows.append([option, *(_number(found.get(n)) for n in names), ", ".join(chosen)])
        parts.append(f"**{system}**: quality on the sets that choose\n\n{table(rows)}")
    return "\n\n".join(parts)


def _spread(record: Record) -> str:
    kinds = [k for k in ("draws", "seeds") if any(k in one for one in record["spread"].values())]
    if not kinds:
        return "One draw and one seed each."
    rows = [["", *(f"{m}, {over}" for over in kinds for m in SHORT.values())]]
    for name, found in record["spread"].items():
        cells = [_number(found.get(k, {}).get(m)) for k in kinds for m in METRICS]
        rows.append([_set_name(record, name), *cells])
    return "Standard deviation of default's figures.\n\n" + table(rows)


def _set_name(record: Record, name: str) -> str:
    """A pool in italics; generated sets marked as such."""
    if name in POOLS:
        return f"*{name}*"
    return f"{name} (generated)" if record["sets"][name]["generated"] else name


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _figures(found: Record | None) -> str:
    if not found:
        return ""
    return " / ".join(f"{found[m][0]:.3f}" if m in found else "–" for m in METRICS)


def _arrow(found: Record | None) -> str:
    return f" → {_figures(found)}" if found else ""


def _differences(found: Record | None) -> str:
    """Each metric's difference in points, with its interval, bold where that excludes 0."""
    if not found:
        return ""
    said = []
    for m in METRICS:
        if m in found:
            value, low, high = _points(found[m])
            text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
            said.append(f"**{text}**" if low > 0 or high < 0 else text)
        else:
            said.append("–")
    return " / ".join(said)


def table(rows: Sequence[Sequence[str]]) -> str:
    """As markdown; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])


def _picture(files: dict[str, Path], name: str, page: Path) -> str:
    said = {
        "systems": "Figures of each system, by pool and set",
        "shifts": "Drop under shift with its interval",
        "questions": "Rows against default over all sets",
    }
    place = files[name].resolve()
    inside = place.is_relative_to(page.resolve().parent)
    path = place.relative_to(page.resolve().parent) if inside else Path(place.name)
    return f"![{said[name]}]({path.as_posix()})"
