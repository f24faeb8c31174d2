"""A table of the paper beside our own figures: Markdown, CSV, and LaTeX on request."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.bootstrap import METRICS, interval, replicate, resample
from harness.evaluation import evaluation_of
from harness.runner import Result
from paper import Figures
from pirn_jax.storage import write_whole

HEADS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_0.3": "AUPRO@30 %", "i_f1max": "F1max"}
GENERATED = (
    "**GENERATED DATA.** These figures are of parts drawn by `pirn_jax.scans.synthetic.generator`, "
    "not of the paper's dataset: a difference to the paper says nothing about either."
)
RANDOM = (
    "**RANDOM ENCODER WEIGHTS.** The encoder knows nothing, and the figures show that the "
    "machinery runs, no more."
)
_REPLICATES = 1000


class Figure(NamedTuple):
    """A figure over draws of the shots.

    Attributes:
        mean: over draws, of the mean over categories.
        std: over draws; None for one.
        n: draws.
        low: of the 95 % interval over images and draws; None where none is computed.
        high: the same.
    """

    mean: float
    std: float | None
    n: int
    low: float | None = None
    high: float | None = None


class Line(NamedTuple):
    """One line of a table.

    Attributes:
        label: of the row.
        recipe: its name, or what a figure of others is ("cited, other sampling").
        exact: our figures by metric.
        cfm99: ours by the protocol of published tables.
        paper: the paper's.
    """

    label: str
    recipe: str
    exact: Mapping[str, Figure]
    cfm99: Mapping[str, Figure]
    paper: Figures


class Sheet(NamedTuple):
    """A whole table.

    Attributes:
        name: of its files, "table01".
        title: what it shows.
        lines: in order.
        about: what was run, line by line.
        warnings: said loudly, on top.
        notes: below.
    """

    name: str
    title: str
    lines: Sequence[Line]
    about: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str]


def line_of(label: str, recipe: str, results: Sequence[Result], paper: Figures) -> Line:
    """The line that jobs of several categories and draws make."""
    exact = _summary([(r.job.category, r.job.draw, r.figures) for r in results])
    cfm99 = _summary([(r.job.category, r.job.draw, r.document["cfm99"]) for r in results])
    for name, (low, high) in _intervals(results).items():
        if name in exact:
            exact[name] = exact[name]._replace(low=low, high=high)
    return Line(label, recipe, exact, cfm99, paper)


def _summary(found: Sequence[tuple[str, int, Mapping[str, float]]]) -> dict[str, Figure]:
    """Mean over categories, then mean and spread over draws, of every metric all of them have."""
    names = [n for n in HEADS if all(n in figures for _, _, figures in found)]
    summary = {}
    for name in names:
        draws: dict[int, list[float]] = {}
        for _, draw, figures in found:
            draws.setdefault(draw, []).append(figures[name])
        means = np.array([np.mean(values) for values in draws.values()])
        std = float(means.std(ddof=1)) if len(means) > 1 else None
        summary[name] = Figure(float(means.mean()), std, len(means))
    return summary


def _intervals(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """95 % intervals over images and draws of the mean over categories."""
    categories: dict[str, list[Result]] = {}
    for result in results:
        categories.setdefault(result.job.category, []).append(result)
    replicates = []
    for seed, group in enumerate(categories.values()):
        evaluations = [evaluation_of(result.document) for result in group]
        bad = evaluations[0][1]
        if bad.all() or not bad.any():
            return {}
        drawn = resample(bad, len(group), _REPLICATES, seed)
        replicates.append(replicate([one for one, _ in evaluations], bad, drawn))
    found = {}
    for name in METRICS:
        mean = np.mean([one[name] for one in replicates], axis=0)
        if np.isfinite(mean).any():
            _, low, high = interval(float("nan"), mean)
            found[name] = (low, high)
    return found


# --- what is written ------------------------------------------------------------------------------


def write(sheet: Sheet, folder: Path, latex: bool = False) -> list[Path]:
    """Write the table's files; the folder is made."""
    files = {"md": markdown(sheet), "csv": comma_separated(sheet)}
    if latex:
        files["tex"] = for_latex(sheet)
    paths = []
    for suffix, text in files.items():
        paths.append(folder / f"{sheet.name}.{suffix}")
        write_whole(paths[-1], text.encode())
    return paths


def markdown(sheet: Sheet) -> str:
    """The table for reading; AUPRO by both protocols, the paper's compared with cfm99."""
    shown = _shown(sheet)
    head = ["", "recipe", "n"]
    for name in shown:
        ours = [f"{HEADS[name]} exact", "cfm99"] if name == "aupro_0.3" else [HEADS[name]]
        head += [*ours, "paper", "Δ"]
    rows = []
    for line in sheet.lines:
        row = [line.label, line.recipe, str(max((f.n for f in line.exact.values()), default=""))]
        for name in shown:
            ours, published = line.exact.get(name), line.paper.get(name)
            row.append(_cell(ours))
            compared = ours
            if name == "aupro_0.3":
                compared = line.cfm99.get(name)
                row.append(_cell(compared))
            row.append("" if published is None else f"{published:.3f}")
            apart = _apart(compared, published)
            row.append("" if apart is None else f"{apart:+.3f}")
        rows.append(row)
    table = [f"| {' | '.join(head)} |", "| --- | --- " + "| ---: " * (len(head) - 2) + "|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    parts = [f"# {sheet.title}", *(f"> {warning}" for warning in sheet.warnings)]
    parts += ["\n".join(sheet.about), "\n".join(table)]
    parts.append(
        "Ours: mean over categories, then mean ± standard deviation over n draws of the shots, "
        "each with its own initialisation; in brackets the 95 % interval of a bootstrap over "
        "images and draws. AUPRO is exact, and beside it by the protocol of published tables "
        "(cfm99: 224 × 224, 99 thresholds), with which the paper's is compared."
    )
    parts += [f"* {note}" for note in sheet.notes]
    return "\n\n".join(parts) + "\n"


def comma_separated(sheet: Sheet) -> str:
    """One line per row, metric and protocol."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["table", "row", "recipe", "metric", "protocol", "mean", "std", "n", "low95", "high95",
         "paper", "difference", "warning"]
    )  # fmt: skip
    loud = " ".join(w.split("**")[1] for w in sheet.warnings)
    for line in sheet.lines:
        for name in HEADS:
            for protocol, figures in (("exact", line.exact), ("cfm99", line.cfm99)):
                figure, published = figures.get(name), line.paper.get(name)
                if protocol == "cfm99" and (figure is None or not name.startswith("aupro")):
                    continue
                if figure is None and published is None:
                    continue
                values = (None,) * 5 if figure is None else figure
                cells = [_number(v) for v in (*values, published, _apart(figure, published))]
                writer.writerow([sheet.name, line.label, line.recipe, name, protocol, *cells, loud])
    return stream.getvalue()


def for_latex(sheet: Sheet) -> str:
    """A tabular with mean ± std, AUPRO by cfm99 as the paper's."""
    shown = _shown(sheet)
    lines = [
        f"% {sheet.title}",
        *(f"% {warning}" for warning in sheet.warnings),
        rf"\begin{{tabular}}{{ll{'cc' * len(shown)}}}",
        " & ".join(["", "recipe", *(f"{HEADS[n]} & paper" for n in shown)]).replace("%", r"\%")
        + r" \\ \hline",
    ]
    for line in sheet.lines:
        cells = [line.label, line.recipe]
        for name in shown:
            figure = (line.cfm99 if name.startswith("aupro") else line.exact).get(name)
            spread = "" if figure is None or figure.std is None else rf" \pm {figure.std:.3f}"
            cells.append("" if figure is None else f"${figure.mean:.3f}{spread}$")
            cells.append(f"{line.paper[name]:.3f}" if name in line.paper else "")
        lines.append(" & ".join(cells).replace("_", r"\_").replace("%", r"\%") + r" \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _shown(sheet: Sheet) -> list[str]:
    return [n for n in HEADS if any(n in line.exact or n in line.paper for line in sheet.lines)]


def _apart(figure: Figure | None, published: float | None) -> float | None:
    return None if figure is None or published is None else figure.mean - published


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    spread = "" if figure.std is None else f" ± {figure.std:.3f}"
    within = "" if figure.low is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.mean:.3f}{spread}{within}"


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
