"""One category's part of the report: verdicts, curves, threshold, kinds of defect, and scans."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pirn_jax.report import figures, pictures
from pirn_jax.report.contents import Model
from pirn_jax.report.schema import Curve, read_calibration, read_curves
from pirn_jax.report.tables import ScoreRow
from pirn_jax.report.text import count, escape, pairs

PRO_LIMIT = 0.3


def category_section(anchor: str, models: Sequence[Model], most: int, notes: list[str]) -> str:
    """The section of one category.

    Args:
        anchor: the section's id.
        models: of this category, by seed; the first one's scores and pictures are shown.
        most: scans with pictures at most.
        notes: files that cannot be read are named here.
    """
    first = models[0]
    which = f"Scores and pictures are those of seed {first.seed}." if len(models) > 1 else ""
    words = (verdicts(first.rows), unmeasured(first.rows), _interval(first), which)
    parts = [
        f'<section id="{anchor}"><h2>{escape(first.category)}</h2>',
        f"<p>{' '.join(filter(None, words))}</p>",
        f'<div class="figures">{"".join(_figures(models))}</div>',
        f'<div class="columns">{_calibration(first)}{_by_defect(first)}</div>',
        _gallery(first, most, notes),
        "</section>",
    ]
    return "\n".join(filter(None, parts))


def verdicts(rows: Sequence[ScoreRow]) -> str:
    """What the threshold found and what it got wrong, in a sentence; "" without one."""
    judged = [row for row in rows if row.pred_label is not None]
    bad = [row.pred_label for row in judged if row.label == 1]
    good = [row.pred_label for row in judged if row.label == 0]
    parts = []
    if bad:
        parts.append(f"{sum(map(bool, bad))} of {count(len(bad), 'defective scan')} found")
    if good:
        parts.append(
            f"{count(sum(map(bool, good)), 'false alarm')} on {count(len(good), 'good scan')}"
        )
    if parts:
        return f"At the threshold: {', '.join(parts)}."
    if judged:
        alarms = sum(bool(row.pred_label) for row in judged)
        return f"{alarms} of {count(len(judged), 'scan')} called defective; no truth is known."
    return ""


def unmeasured(rows: Sequence[ScoreRow]) -> str:
    """Why these scans give no figures, in a sentence; "" where they do."""
    labels = {row.label for row in rows}
    if not rows:
        return "There are no test scans, so nothing was measured."
    if labels == {0}:
        return "There are no defective test scans: false alarms can be counted, nothing else."
    if labels == {1}:
        return "There are no good test scans: nothing tells the defective ones from chance."
    if labels == {None}:
        return "The truth of the test scans is not known, so nothing was measured."
    return ""


def _interval(model: Model) -> str:
    from pirn_jax.metrics import image_intervals

    scores, labels = model.known
    if not 0 < labels.sum() < len(labels) or "i_auroc" not in model.metrics:
        return ""
    low, high = image_intervals(scores, labels)["i_auroc"]
    if low == high == 1:
        return f"A perfect ranking of {len(labels)} scans is no proof of a perfect detector."
    return (
        f"I‑AUROC {model.metrics['i_auroc']:.3f}; another test set of this size may well give "
        f"{low:.2f} to {high:.2f} (95 %, bootstrap)."
    )


def _figures(models: Sequence[Model]) -> list[str]:
    first, name = models[0], models[0].category
    good = [row.score for row in first.rows if row.label == 0]
    bad = [row.score for row in first.rows if row.label == 1]
    unknown = [row.score for row in first.rows if row.label is None]
    found = []
    if good or bad:
        label = f"Histogram of the image scores of {name}, good and defective scans"
        found.append(
            _figure(
                "Scores",
                "apart is good; each tick is a scan",
                figures.score_histogram(good, bad, first.threshold, label),
            )
        )
    elif unknown:
        label = f"Histogram of the image scores of {name}"
        drawn = figures.score_histogram(unknown, [], first.threshold, label, named="scans")
        found.append(_figure("Scores", "each tick is a scan", drawn))
    curves = {
        "scans": [curve for model in models if (curve := _image_roc(model))],
        "pixels": [model.curves["roc"] for model in models if "roc" in model.curves],
    }
    if any(curves.values()):
        label = f"ROC curves of {name}"
        drawn = figures.rate_curves(curves, 1.0, label, "true-positive rate")
        found.append(_figure("ROC", "up and to the left is good", drawn))
    pro = [model.curves["pro"] for model in models if "pro" in model.curves]
    if pro:
        label = f"Per-region overlap of {name} over the false-positive rate"
        drawn = figures.rate_curves({"": pro}, PRO_LIMIT, label, "per-region overlap")
        found.append(_figure("PRO", "the area under it is AUPRO at 30 %", drawn))
    losses = [model.losses for model in models if model.losses]
    if losses:
        drawn = figures.loss_curve(losses, f"Training loss of {name}")
        found.append(_figure("Training", "loss on the shots", drawn))
    for modality, shares in first.usage.items():
        label = f"Share of the tokens each prototype of {modality} answers for, {name}"
        words = f"{modality}; the dashed line is an even share"
        found.append(_figure("Prototypes", words, figures.usage_bars(shares, label)))
    return found


def _image_roc(model: Model) -> Curve | None:
    """The exact ROC curve of the image scores: that of a map one pixel high."""
    from pirn_jax.metrics import evaluate_maps

    scores, labels = model.known
    if not 0 < labels.sum() < len(labels):
        return None
    return read_curves(evaluate_maps([scores[None]], [labels[None]], curves=200))["roc"]


def _figure(title: str, words: str, drawn: str) -> str:
    caption = f"<figcaption><b>{escape(title)}</b>{escape(words)}</figcaption>"
    return f"<figure>{caption}{drawn}</figure>"


def _calibration(model: Model) -> str:
    if not model.calibration:
        return (
            "<div><h3>Threshold</h3><p>Not calibrated: there is no threshold, so no scan is called "
            "good or defective.</p></div>"
        )
    calibration = read_calibration(model.calibration)
    try:
        words = "" if calibration is None else calibration.statement()
    except (ValueError, ArithmeticError):  # numbers that promise nothing
        words = ""
    if not words:  # of another version: as it stands
        return f'<div><h3>Threshold</h3><dl class="pairs">{pairs(model.calibration)}</dl></div>'
    lines = [line[:1].upper() + line[1:] + "." for line in words.splitlines()]
    return f"<div><h3>Threshold</h3><p>{'<br>'.join(map(escape, lines))}</p></div>"


def _by_defect(model: Model) -> str:
    kinds: dict[str, list[ScoreRow]] = {}
    for row in model.rows:
        if row.label == 1:
            kinds.setdefault(row.defect or "unnamed", []).append(row)
    if not kinds:
        return ""
    judged = any(row.pred_label is not None for rows in kinds.values() for row in rows)
    digits, lines = _digits(model), []
    for name, rows in sorted(kinds.items()):
        found = f"<td>{sum(row.pred_label == 1 for row in rows)}</td>" if judged else ""
        middle = statistics.median(row.score for row in rows)
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td>{len(rows)}</td>{found}'
            f"<td>{middle:.{digits}f}</td></tr>"
        )
    head = '<th scope="col">found</th>' if judged else ""
    return f"""<div><h3>By kind of defect</h3>
<div class="scroll"><table class="narrow">
<thead><tr><th scope="col">defect</th><th scope="col">scans</th>{head}
<th scope="col">median score</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div></div>"""


def _gallery(model: Model, most: int, notes: list[str]) -> str:
    shown = pictures.select(model, most, notes)
    if not shown:
        return ""
    digits, scale = _digits(model), pictures.scales(shown, model.threshold)
    counts = {label: sum(row.label == label for row in model.rows) for label in (1, 0, None)}
    titles = {
        1: "Defective scans, hardest first",
        0: "Good scans, hardest first",
        None: "Scans of unknown truth, highest score first",
    }
    outline = "" if model.threshold is None else " A white line encloses what is marked defective."
    caption = (
        '<p class="caption">All maps of a kind share one colour scale; brighter is more anomalous.'
        f"{outline}</p>"
    )
    parts = []
    for label, title in titles.items():
        cards = [
            _card(scan, counts[label], digits, pictures.tiles(scan, scale, model.threshold))
            for scan in shown
            if scan.row.label == label
        ]
        if cards:
            parts.append(f"<h3>{title}</h3>{caption}{''.join(cards)}")
            caption = ""  # said once
    return "\n".join(parts)


def _card(scan: pictures.Shown, among: int, digits: int, tiles: Sequence[pictures.Tile]) -> str:
    row = scan.row
    verdict = {
        (1, 1): "found",
        (1, 0): "missed",
        (0, 1): "false alarm",
        (0, 0): "passed",
        (None, 1): "called defective",
        (None, 0): "called good",
    }.get((row.label, -1 if row.pred_label is None else row.pred_label), "")
    wrong = " wrong" if verdict in ("missed", "false alarm") else ""
    few = " few" if len(tiles) <= 4 else ""
    name = row.defect or ("good" if row.label == 0 else "scan")
    drawn = "".join(
        f'<figure><img src="{tile.uri}" width="{tile.width}" height="{tile.height}" '
        f'alt="{escape(f"{tile.name} of {row.key}, {name}")}">'
        f"<figcaption>{escape(tile.name)}</figcaption></figure>"
        for tile in tiles
    )
    return f"""<div class="scan"><div class="about"><b>{escape(name)}</b>
<span class="verdict{wrong}">{verdict}</span>
<span class="soft">score {row.score:.{digits}f}<br>
rank {scan.rank} of {among}<br>
{escape(row.key).replace("/", "/<wbr>")}</span></div><div class="tiles{few}">{drawn}</div></div>"""


def _digits(model: Model) -> int:
    """Decimals that give the model's largest score four figures, so that scores align."""
    largest = max(abs(row.score) for row in model.rows)
    return min(9, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0
