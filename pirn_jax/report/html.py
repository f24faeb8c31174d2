"""The report: one HTML file, made from the run folder alone, that opens anywhere and offline.

It answers, in this order: how good is it, how far may that be believed, where does it go wrong,
what was it made from, and how is it made again. No script, font or picture comes from elsewhere: a
content policy in the page forbids it. Every value that came from a file passes `html.escape`.
"""

from __future__ import annotations

import html
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from pirn_jax.errors import PirnError
from pirn_jax.report import figures, pictures
from pirn_jax.report.contents import Model, Row, Run, mapping, number, read_run

SCANS_SHOWN = 36
"""Scans with pictures in one report; shared among the categories, at least 4 each."""

PRO_LIMIT = 0.3


class _Column(NamedTuple):
    name: str
    key: str
    words: str


_COLUMNS = (
    _Column("I‑AUROC", "i_auroc", "I‑AUROC: whole scans ranked by score; 0.5 is chance."),
    _Column("P‑AUROC", "p_auroc", "P‑AUROC: the same of pixels."),
    _Column(
        "AUPRO at 30 %",
        "aupro_0.3",
        "AUPRO: the share of each defect's area that is found, averaged while at most 30 % of the "
        "good pixels are marked.",
    ),
    _Column("F1max", "i_f1max", "F1max: scans at the best threshold, which only an oracle knows."),
    _Column("F1 at threshold", "i_f1", "F1 at threshold: at the one set from good scans alone."),
)


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder.

    Args:
        folder: as `pirn_jax.train` writes it. Files that are missing leave their part out; damaged
            ones are named at the end of the report.

    Returns:
        The file, which appears whole or not at all.

    Raises:
        BadInputError: not a run folder.
        PirnError: the folder cannot be written to.
    """
    run = read_run(folder)
    # Sections first: reading the pictures may add notes.
    most = max(4, SCANS_SHOWN // max(1, len(run.categories)))
    sections = [
        _category(f"c{place}", models, most, run.notes)
        for place, models in enumerate(run.categories.values(), 1)
    ]
    own = resources.files("pirn_jax.report")
    page = Template(own.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=_text(_heading(run)),
        style=own.joinpath("style.css").read_text(encoding="utf-8").strip(),
        heading=_text(_heading(run)),
        banners="\n".join(_banners(run)),
        lead=_lead(run),
        facts=_facts(run),
        overview=_overview(run),
        categories="\n".join(sections),
        repeat=_repeat(run),
        notes=_notes(run.notes),
    )
    target = run.folder / "report.html"
    partial = target.with_name("report.html.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise PirnError(f"cannot write: {error}", "check the disk and rights", target) from error
    return target


# What the whole run is


def _heading(run: Run) -> str:
    count = len(run.categories)
    what = f"{count} categories" if count != 1 else next(iter(run.categories))
    return f"{_dataset(run)}: {what}" if count else _dataset(run)


def _dataset(run: Run) -> str:
    return str(run.config.get("dataset") or mapping(run.split).get("dataset") or run.folder.name)


def _banners(run: Run) -> list[str]:
    found = []
    if "generated" in (run.metrics.get("data"), run.environment.get("data")):
        found.append(
            ("Generated data", "A program drew these scans. Real parts will score differently.")
        )
    demo = mapping(run.metrics.get("encoder")).get("demo")
    if demo is True or run.environment.get("demo_encoder") is True:
        found.append(
            (
                "Demo encoder",
                "Its weights are random numbers from a fixed seed. With pretrained weights "
                "detection is far better; do not judge the method by this report.",
            )
        )
    return [f'<p class="banner" role="note"><b>{title}</b> {words}</p>' for title, words in found]


def _lead(run: Run) -> str:
    """The one sentence for who reads no further."""
    words = _verdicts([row for models in run.categories.values() for row in models[0].rows])
    seeds = sorted({models[0].seed for models in run.categories.values()})
    if words and len(run.models) > len(run.categories):
        words = f"{words[:-1]} (seed {_text(seeds)})."
    return f'<p class="lead">{words}</p>' if words else ""


def _facts(run: Run) -> str:
    encoder = run.metrics.get("encoder")
    encoder = mapping(encoder).get("name") or encoder or run.config.get("encoder")
    facts = {
        "dataset": _dataset(run),
        "encoder": encoder,
        "recipe": run.metrics.get("recipe") or run.config.get("recipe"),
        "modalities": run.config.get("modalities"),
        "shots": (run.config["shots"] or "all") if "shots" in run.config else None,
        "seeds": sorted({model.seed for model in run.models}),
        "image size": run.config.get("image_size"),
        "started": str(run.environment.get("started", ""))[:16].replace("T", " "),
    }
    return "".join(
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "", [])
    )


def _overview(run: Run) -> str:
    columns = [c for c in _COLUMNS if any(c.key in model.metrics for model in run.models)]
    if not columns:
        return (
            "<section><h2>Results</h2><p>No figures: the truth of the test scans is not known, "
            "or they were not evaluated.</p></section>"
        )
    head = "".join(f'<th scope="col">{column.name}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row"><a href="#c{place}">{_text(name)}</a></th>'
        + "".join(
            f"<td>{_spread([m.metrics[c.key] for m in models if c.key in m.metrics])}</td>"
            for c in columns
        )
        + "</tr>"
        for place, (name, models) in enumerate(run.categories.items(), 1)
    )
    foot = ""
    if len(run.categories) > 1:
        cells = "".join(f"<td>{_spread(_means(run, column.key))}</td>" for column in columns)
        foot = f'<tfoot><tr><th scope="row">mean</th>{cells}</tr></tfoot>'
    words = " ".join(column.words for column in columns)
    if len({model.seed for model in run.models}) > 1:
        words += " ± is the standard deviation over seeds."
    return f"""<section>
<h2>Results</h2>
<div class="scroll"><table class="wide">
<thead><tr><th scope="col">category</th>{head}</tr></thead>
<tbody>{body}</tbody>{foot}
</table></div>
<p class="caption">1 is perfect. {words}</p>
</section>"""


def _means(run: Run, key: str) -> list[float]:
    """The mean over categories for each seed that every category has."""
    by_category = [
        {model.seed: model.metrics[key] for model in models if key in model.metrics}
        for models in run.categories.values()
    ]
    seeds = set.intersection(*(set(figures) for figures in by_category))
    return [statistics.fmean(f[seed] for f in by_category) for seed in sorted(seeds)]


# One category


def _category(anchor: str, models: Sequence[Model], most: int, notes: list[str]) -> str:
    first = models[0]
    which = f"Scores and pictures are those of seed {first.seed}." if len(models) > 1 else ""
    parts = [
        f'<section id="{anchor}"><h2>{_text(first.category)}</h2>',
        f"<p>{' '.join(filter(None, (_verdicts(first.rows), _interval(first), which)))}</p>",
        f'<div class="figures">{"".join(_figures(models))}</div>',
        f'<div class="columns">{_calibration(first)}{_by_defect(first)}</div>',
        _gallery(first, most, notes),
        "</section>",
    ]
    return "\n".join(filter(None, parts))


def _verdicts(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.pred_label is not None]
    bad = [row.pred_label for row in judged if row.label == 1]
    good = [row.pred_label for row in judged if row.label == 0]
    parts = []
    if bad:
        parts.append(f"{sum(map(bool, bad))} of {_count(len(bad), 'defective scan')} found")
    if good:
        parts.append(
            f"{_count(sum(map(bool, good)), 'false alarm')} on {_count(len(good), 'good scan')}"
        )
    if parts:
        return f"At the threshold: {', '.join(parts)}."
    if judged:
        alarms = sum(bool(row.pred_label) for row in judged)
        return f"{alarms} of {_count(len(judged), 'scan')} called defective; no truth is known."
    return ""


def _interval(model: Model) -> str:
    from pirn_jax.metrics import image_intervals

    scores, labels = model.known
    if not 0 < labels.sum() < len(labels) or "i_auroc" not in model.metrics:
        return ""
    low, high = image_intervals(scores, labels)["i_auroc"]
    if low == high:
        return f"A perfect ranking of {len(labels)} scans is no proof of a perfect detector."
    return (
        f"I-AUROC {model.metrics['i_auroc']:.3f}; with test sets of this size, anything from "
        f"{low:.2f} to {high:.2f} is to be expected (95 %, bootstrap)."
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


def _image_roc(model: Model) -> figures.Curve | None:
    """The exact ROC curve of the image scores: that of a map one pixel high."""
    from pirn_jax.metrics import evaluate_maps

    scores, labels = model.known
    if not 0 < labels.sum() < len(labels):
        return None
    curve = evaluate_maps([scores[None]], [labels[None]], curves=200)["roc"]
    return curve["fpr"], curve["tpr"]


def _figure(title: str, words: str, drawn: str) -> str:
    caption = f"<figcaption><b>{_text(title)}</b>{_text(words)}</figcaption>"
    return f"<figure>{caption}{drawn}</figure>"


def _calibration(model: Model) -> str:
    if not model.calibration:
        return (
            "<div><h3>Threshold</h3><p>Not calibrated: there is no threshold, so no scan is called "
            "good or defective.</p></div>"
        )
    from pirn_jax.scoring import Calibration

    try:
        known = {f: model.calibration[f] for f in Calibration._fields if f in model.calibration}
        words = Calibration(**known).statement()
    except (TypeError, ValueError):  # of another version: shown as it stands
        return f'<div><h3>Threshold</h3><dl class="pairs">{_pairs(model.calibration)}</dl></div>'
    lines = [line[:1].upper() + line[1:] + "." for line in words.splitlines()]
    return f"<div><h3>Threshold</h3><p>{'<br>'.join(map(_text, lines))}</p></div>"


def _by_defect(model: Model) -> str:
    kinds: dict[str, list[Any]] = {}
    for row in model.rows:
        if row.label == 1:
            kinds.setdefault(row.defect or "unnamed", []).append(row)
    if not kinds:
        return ""
    judged = any(row.pred_label is not None for rows in kinds.values() for row in rows)
    lines = []
    for name, rows in sorted(kinds.items()):
        found = f"<td>{sum(row.pred_label == 1 for row in rows)}</td>" if judged else ""
        middle = statistics.median(row.score for row in rows)
        lines.append(
            f'<tr><th scope="row">{_text(name)}</th><td>{len(rows)}</td>{found}'
            f"<td>{middle:.4g}</td></tr>"
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
    scale = pictures.scales(shown, model.threshold)
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
            _card(scan, counts[label], pictures.tiles(scan, scale, model.threshold))
            for scan in shown
            if scan.row.label == label
        ]
        if cards:
            parts.append(f"<h3>{title}</h3>{caption}{''.join(cards)}")
            caption = ""  # said once
    return "\n".join(parts)


def _card(scan: pictures.Shown, count: int, tiles: Sequence[pictures.Tile]) -> str:
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
    name = row.defect or ("good" if row.label == 0 else "scan")
    drawn = "".join(
        f'<figure><img src="{tile.uri}" width="{tile.width}" height="{tile.height}" '
        f'alt="{_text(f"{tile.name} of {row.key}, {name}")}">'
        f"<figcaption>{_text(tile.name)}</figcaption></figure>"
        for tile in tiles
    )
    return f"""<div class="scan"><div class="about"><b>{_text(name)}</b>
<span class="verdict{wrong}">{verdict}</span>
<span class="soft">score {row.score:.4g}<br>rank {scan.rank} of {count}<br>{_text(row.key)}</span>
</div><div class="tiles">{drawn}</div></div>"""


# How to make it again


def _repeat(run: Run) -> str:
    command = run.environment.get("command") or run.config.get("command")
    if isinstance(command, list):
        command = shlex.join(str(word) for word in command)
    parts = [f"<pre>{_text(command)}</pre>"] if command else []
    shots = _shots(run.split)
    if shots:
        parts.append(f"<details><summary>The shots it learned from</summary>{shots}</details>")
    encoder = mapping(run.metrics.get("encoder"))
    settings = run.config | {f"encoder.{name}": value for name, value in encoder.items()}
    for title, document in (("Settings", settings), ("Environment", run.environment)):
        if document:
            parts.append(
                f'<details><summary>{title}</summary><dl class="pairs">{_pairs(_flat(document))}'
                "</dl></details>"
            )
    return "\n".join(parts) or "<p>Neither command nor settings were recorded.</p>"


def _shots(split: Any) -> str:
    """Every `{"shots": [{"key": …}]}` in the document, however the run nests its splits."""
    found = []
    waiting = [split]
    while waiting:
        document = waiting.pop(0)
        if isinstance(document, list):
            waiting += document
        elif isinstance(document, dict):
            if isinstance(document.get("shots"), list):
                keys = [mapping(s).get("key", s) for s in document["shots"]]
                name = f"{document.get('category', '')} seed {document.get('seed', '')}"
                found.append((name, ", ".join(str(key) for key in keys)))
            else:
                waiting += document.values()
    return f'<dl class="pairs">{_pairs(found)}</dl>' if found else ""


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return (
        f"<section><h2>Left out</h2><p>These files could not be read.</p><ul>{lines}</ul></section>"
    )


# Words and figures


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    # A lone surrogate, as from a file name that is no UTF-8, cannot be written as UTF-8.
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def _pairs(pairs: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> str:
    entries = pairs.items() if isinstance(pairs, Mapping) else pairs
    return "\n".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in entries)


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one list: {"a": {"b": 1}} → {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _count(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _spread(values: Sequence[float]) -> str:
    """Mean, and ± the sample standard deviation where there are several."""
    values = [v for value in values if (v := number(value)) is not None]
    if not values:
        return "–"
    spread = f"<small>± {statistics.stdev(values):.3f}</small>" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
