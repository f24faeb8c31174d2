"""A table of the paper as rows: what each changes, and what the paper says came of it.

    TABLE = Table(9, "Assignment", [Row("softmax", ("assignment=softmax",), cited=…), …])
    main(TABLE)

Rows become jobs (row × recipe × category × draw), jobs become results (`runner.py`), results become
lines (`sheet.py`). A row of your own is one more `Row`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments import sheet
from experiments.options import QUICK_SHOTS, Options
from experiments.options import command as own_command
from experiments.paper import NOTES, Figures
from experiments.runner import Job, Result, grid, run
from experiments.sheet import Line, Sheet
from pirn_jax import command
from pirn_jax.recipes import MODALITIES


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        label: what it is called.
        change: to the recipe, as in `Config.change`: ("assignment=softmax",).
        shots: to learn from; 0: all.
        paper: the paper's figures of it.
        modalities: the streams.
        method: the detector; for one that is not pirn the recipe is left alone.
        cited: where the figure comes from, for a row that is published and not run.
        encoder: another one than the options'.
    """

    label: str
    change: tuple[str, ...] = ()
    shots: int = 10
    paper: Figures = field(default_factory=dict, hash=False)
    modalities: tuple[str, ...] = MODALITIES
    method: str = "pirn"
    cited: str = ""
    encoder: str = ""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        number: the paper's.
        title: what it shows.
        rows: in order.
        of: the dataset the paper's figures are of.
        by_category: one line per category and the mean, instead of the mean alone.
        category_paper: then: the paper's figures of a category or "mean".
        notes: to stand below it.
        quick_shots: what numbers of shots become with --quick; one that is missing leaves its rows
            out.
    """

    number: int
    title: str
    rows: tuple[Row, ...]
    of: str = "mvtec3d"
    by_category: bool = False
    category_paper: Callable[[str], Figures] = lambda category: {}
    notes: tuple[str, ...] = ()
    quick_shots: dict[int, int] = field(default_factory=lambda: QUICK_SHOTS, hash=False)

    def with_rows(self, *rows: Row) -> Table:
        """The same table with rows of your own below."""
        return replace(self, rows=(*self.rows, *rows))


def main(table: Table, arguments: Sequence[str] | None = None) -> None:
    """The command of a table.

    Args:
        table: to be made.
        arguments: instead of the process's own.
    """
    run_table(lambda options: table, arguments)


def run_table(choose: Callable[[Options], Table], arguments: Sequence[str] | None = None) -> None:
    """The command of a table that depends on its options."""
    command.run(lambda options: show(choose(options), options), Options, arguments)


def show(table: Table, options: Options) -> Sheet | None:
    """Run what is missing, print the table and write it; None after a dry run."""
    planned = plan(table, options)
    jobs = [job for _, _, own in planned for job in own]
    results: dict[Job, Result] = {}
    if jobs:
        found = run(jobs, options.jobs, cache=options.cache, dry=options.dry_run)
        results = {result.job: result for result in found}
    elif options.dry_run:
        print("no jobs", file=sys.stderr)
    if options.dry_run:
        return None
    lines = []
    for row, recipe, own in planned:
        if row.cited:
            lines.append(Line(row.label, row.cited, {}, {}, row.paper))
        else:
            mine = [results[job] for job in own]
            lines += _lines(table, row, recipe, mine)
    made = Sheet(
        name=f"table{table.number:02d}",
        title=f"Table {table.number}: {table.title}",
        lines=lines,
        about=about(options, list(results.values()), table.of),
        warnings=warnings_of(list(results.values())),
        notes=(*NOTES.get(table.number, ()), *table.notes),
    )
    print(sheet.markdown(made))
    for path in sheet.write(made, options.out, options.latex):
        print(f"written to {path}")
    return made


def plan(table: Table, options: Options) -> list[tuple[Row, str, list[Job]]]:
    """Row, recipe and jobs of every line."""
    planned, seen = [], set()
    for row in table.rows:
        shots = row.shots
        if options.quick:
            if shots not in table.quick_shots:
                continue
            shots = table.quick_shots[shots]
        label = row.label
        if shots != row.shots:  # labels that name the shots name those there are
            asked = f"{row.shots or 'all'} shots"
            label = label.replace(asked, f"{shots} shots (for {asked})")
        shown = replace(row, shots=shots, label=label)
        if row.cited:
            planned.append((shown, "", []))
            continue
        if (key := (row.label, row.change, shots, row.modalities, row.method, row.encoder)) in seen:
            continue  # with --quick, numbers of shots coincide
        seen.add(key)
        recipes = options.recipes if row.method == "pirn" else (row.method,)
        for recipe in recipes:
            planned.append((shown, recipe, _jobs(shown, recipe, options)))
    return planned


def _jobs(row: Row, recipe: str, options: Options) -> list[Job]:
    if row.encoder:
        options = replace(options, encoder=row.encoder, weights=None)
    change = row.change
    if row.shots == 0 and not options.quick:
        change = ("epochs=8", *change)  # paper, "Implementation Details"
    if row.method == "pirn":
        config = options.under(recipe, change, modalities=row.modalities)
    else:  # its own recipe: what --quick changes of ours is not for it
        fields: dict[str, Any] = {"modalities": row.modalities, "method": row.method}
        config = replace(options.config, change=row.change, **fields)
    return [
        job
        for seed in options.seeds
        for job in grid([config], options.categories, shots=[row.shots], draws=[seed],
                        seeds=[seed], **options.same)
    ]  # fmt: skip


def _lines(table: Table, row: Row, recipe: str, results: Sequence[Result]) -> list[Line]:
    if not table.by_category:
        return [sheet.line_of(row.label, recipe, results, row.paper)]
    lines = []
    for category in dict.fromkeys(result.job.category for result in results):
        own = [result for result in results if result.job.category == category]
        lines.append(sheet.line_of(category, recipe, own, table.category_paper(category)))
    lines.append(sheet.line_of("mean", recipe, results, table.category_paper("mean")))
    return lines


def about(options: Options, results: Sequence[Result], of: str) -> list[str]:
    """What was run, for the head of a table or figure."""
    said = [f"    {own_command()}", ""]
    if not results:
        return said
    job, document = results[0].job, results[0].document
    categories = dict.fromkeys(result.job.category for result in results)
    shots = dict.fromkeys(str(result.job.shots or "all") for result in results)
    changed = f", {' '.join(options.config.change)}" if options.config.change else ""
    said.append(
        f"{job.dataset}: {', '.join(categories)}; {' and '.join(shots)} shots; encoder "
        f"{document['encoder']['name']} at {job.config.image_size} px{changed}. "
        f"The paper's figures are of {of}."
    )
    return said


def warnings_of(results: Sequence[Result]) -> list[str]:
    """What must be said loudly."""
    found = []
    if any(result.document["data"] == "generated" for result in results):
        found.append(sheet.GENERATED)
    if any(result.document["encoder"]["demo"] for result in results):
        found.append(sheet.DEMO)
    return found
