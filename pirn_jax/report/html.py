"""The report: one HTML file, made from the run folder alone, that opens anywhere and offline.

It answers, in this order: how good is it, how far may that be believed, where does it go wrong,
what was it made from, and how is it made again. No script, font or picture comes from elsewhere: a
content policy in the page forbids it. Every value that came from a file passes `text.escape`.
"""

from __future__ import annotations

import os
import shlex
import statistics
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from pirn_jax.report.category import category_section, unmeasured, verdicts
from pirn_jax.report.contents import Run, read_run
from pirn_jax.report.layout import REPORT
from pirn_jax.report.schema import is_touched, mapping, text_of
from pirn_jax.report.text import escape, flatten, pairs, spread
from pirn_jax.scans import Note
from pirn_jax.storage import write_whole

SCANS_SHOWN = 36
"""Scans with pictures in one report; shared among the categories, at least 4 each."""


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
        OSError: the folder cannot be written to.
    """
    run = read_run(folder)
    # Sections first: reading the pictures may add notes.
    most = max(4, SCANS_SHOWN // max(1, len(run.categories)))
    sections = [
        category_section(f"c{place}", models, most, run.notes)
        for place, models in enumerate(run.categories.values(), 1)
    ]
    own = resources.files("pirn_jax.report")
    page = Template(own.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(_heading(run)),
        style=own.joinpath("style.css").read_text(encoding="utf-8").strip(),
        heading=escape(_heading(run)),
        banners="\n".join(_banners(run)),
        lead=_lead(run),
        facts=_facts(run),
        overview=_overview(run),
        categories="\n".join(sections),
        repeat=_repeat(run),
        notes=_notes(run.notes),
    )
    target = run.folder / REPORT
    write_whole(target, page.encode("utf-8"))
    return target


# What the whole run is


def _heading(run: Run) -> str:
    count = len(run.categories)
    what = f"{count} categories" if count != 1 else next(iter(run.categories))
    return f"{_dataset(run)}: {what}" if count else _dataset(run)


def _dataset(run: Run) -> str:
    return text_of(run.config.get("dataset")) or run.folder.name


def _banners(run: Run) -> list[str]:
    found = []
    if run.provenance.data == "generated":
        found.append(
            ("Generated data", "A program drew these scans. Real parts will score differently.")
        )
    if run.provenance.random_weights:
        found.append(
            (
                "Random encoder weights",
                "They are random numbers from a fixed seed; the method is made for pretrained "
                "ones. Do not judge it by this report.",
            )
        )
    return [f'<p class="banner" role="note"><b>{title}</b> {words}</p>' for title, words in found]


def _lead(run: Run) -> str:
    """The one sentence for who reads no further."""
    words = verdicts([row for models in run.categories.values() for row in models[0].rows])
    seeds = sorted({models[0].seed for models in run.categories.values()})
    if words and len(run.models) > len(run.categories):
        words = f"{words[:-1]} (seed {escape(seeds)})."
    return f'<p class="lead">{words}</p>' if words else ""


def _facts(run: Run) -> str:
    config, encoder, size = run.config, run.metrics.encoder, run.config.get("image_size")
    name, tiles = encoder.name if encoder else config.get("encoder"), config.get("tiles", 1)
    seen = f"{size} px" if tiles == 1 else f"{tiles} × {tiles} tiles of {size} px"
    facts = {
        "dataset": _dataset(run),
        "method": config.get("method"),
        "encoder": f"{name}, {seen}" if name and size else name,
        "recipe": _recipe(run),
        "modalities": config.get("modalities"),
        "geometry": config.get("geometry"),
        "background": config.get("background"),
        "foreground": mapping(config.get("settings")).get("foreground"),
        "shots": (config["shots"] or "all") if "shots" in config else None,
        "seeds": sorted({model.seed for model in run.models}),
        "started": run.made.started[:16].replace("T", " "),
        "weights of the encoder": encoder.about if encoder else "",
    }
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "", [])
    )


def _recipe(run: Run) -> list[object]:
    """Its name, and where the run's settings differ from it."""
    recipe = run.metrics.recipe
    if recipe is None:
        return [name] if (name := run.config.get("recipe")) else []
    return [recipe.name, *(f"{path}={value}" for path, value in recipe.changed.items())]


def _overview(run: Run) -> str:
    columns = [c for c in _COLUMNS if any(c.key in model.metrics for model in run.models)]
    if not columns:
        why = unmeasured([row for model in run.models for row in model.rows])
        return f"<section><h2>Results</h2><p>No figures. {why}</p>{_odd(run)}</section>"
    head = "".join(f'<th scope="col">{column.name}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row"><a href="#c{place}">{escape(name)}</a></th>'
        + "".join(
            f"<td>{spread([m.metrics[c.key] for m in models if c.key in m.metrics])}"
            f"{_mark(c.key, run.metrics.notes.get(name, ()))}</td>"
            for c in columns
        )
        + "</tr>"
        for place, (name, models) in enumerate(run.categories.items(), 1)
    )
    foot = ""
    if len(run.categories) > 1:
        odd = [note for notes in run.metrics.notes.values() for note in notes]
        cells = "".join(
            f"<td>{spread(_means(run, column.key))}{_mark(column.key, odd)}</td>"
            for column in columns
        )
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
{_odd(run)}</section>"""


def _mark(figure: str, notes: Sequence[Note]) -> str:
    return "*" if is_touched(figure, notes) else ""


def _odd(run: Run) -> str:
    """What is odd about the data; figures that it makes doubtful are marked."""
    lines = [
        f"<li>{escape(name)}: {escape(note.words)}</li>"
        for name, notes in run.metrics.notes.items()
        for note in notes
    ]
    if not lines:
        return ""
    return (
        "<h3>Odd about the data</h3><p>It makes the figures marked * doubtful.</p>"
        f"<ul>{''.join(lines)}</ul>\n"
    )


def _means(run: Run, key: str) -> list[float]:
    """The mean over categories for each seed that every category has."""
    by_category = [
        {model.seed: model.metrics[key] for model in models if key in model.metrics}
        for models in run.categories.values()
    ]
    seeds = set.intersection(*(set(figures) for figures in by_category))
    return [statistics.fmean(f[seed] for f in by_category) for seed in sorted(seeds)]


# How to make it again


def _repeat(run: Run) -> str:
    command = shlex.join(run.made.command)
    parts = [f"<pre>{escape(command)}</pre>"] if command else []
    shots = {f"{s.category} seed {s.seed}": ", ".join(s.keys) for s in run.shots}
    if shots:
        parts.append(
            "<details><summary>The shots it learned from</summary>"
            f'<dl class="pairs">{pairs(shots)}</dl></details>'
        )
    encoder = run.metrics.encoder._asdict() if run.metrics.encoder else {}
    settings = run.config | {f"encoder.{name}": value for name, value in encoder.items() if value}
    for title, document in (("Settings", settings), ("Environment", run.environment)):
        if document:
            parts.append(
                f'<details><summary>{title}</summary><dl class="pairs">{pairs(flatten(document))}'
                "</dl></details>"
            )
    return "\n".join(parts) or "<p>Neither command nor settings were recorded.</p>"


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f"<section><h2>Left out</h2><p>These files could not be read.</p><ul>{lines}</ul></section>"
    )
