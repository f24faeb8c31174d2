"""A table of the paper as rows: what each changes, and what the paper says came of it.

    softmax = TableRow("softmax", {"decoder.assignment": "softmax"}, paper={"i_auroc": 0.883})
    main(Table(9, "Assignment", (softmax, …)))

Rows become jobs (row × recipe × category × draw), jobs become results (`runner.py`), results become
lines (`sheet.py`). A row of your own is one more `TableRow`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from harness import sheet
from harness.changes import Change, labels_of, pairs_of
from harness.options import QUICK_SHOTS, Options
from harness.options import command as own_command
from harness.runner import Job, Result, grid, run
from harness.sheet import Line, Sheet
from paper import MEASURED, NOTES, Figures
from pirn_jax import command
from pirn_jax.decoder.config import MODALITIES


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        label: what it is called.
        change: to the settings, by dotted name (`changes.py`): {"decoder.assignment": "softmax"};
            kept as pairs.
        shots: to learn from; 0: all.
        paper: the paper's figures of it.
        modalities: the streams.
        method: the detector; for one that is not pirn the recipe is left alone.
        cited: where the figure comes from, for a row that is published and not run.
        encoder: another one than the options'.
    """

    label: str
    change: Change = ()
    shots: int = 10
    paper: Figures = field(default_factory=dict, hash=False)
    modalities: tuple[str, ...] = MODALITIES
    method: str = "pirn"
    cited: str = ""
    encoder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "change", pairs_of(self.change))


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
    rows: tuple[TableRow, ...]
    of: str = "mvtec3d"
    by_category: bool = False
    category_paper: Callable[[str], Figures] = lambda category: {}
    notes: tuple[str, ...] = ()
    quick_shots: dict[int, int] = field(default_factory=lambda: QUICK_SHOTS, hash=False)

    def with_rows(self, *rows: TableRow) -> Table:
        """The same table with rows of your own below."""
        return replace(self, rows=(*self.rows, *rows))


def measured_rows(options: Options, shots: int, label: str = "") -> list[TableRow]:
    """A row for each other method that is to be measured.

    Args:
        options: say which, and how.
        shots: to learn from; 0: all.
        label: in front of the method's name.
    """
    return [
        TableRow(" ".join((label + name, *labels_of(change))), change, shots=shots, method=name)
        for name, change in options.measured.items()
    ]


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
    planned = plan_jobs(table, options)
    jobs = [job for _, _, own in planned for job in own]
    results: dict[Job, Result] = {}
    if jobs:
        with options.cluster() as cluster:
            found = run(
                jobs, options.jobs, cache=options.cache, dry=options.dry_run, cluster=cluster
            )
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


def plan_jobs(table: Table, options: Options) -> list[tuple[TableRow, str, list[Job]]]:
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


def _jobs(row: TableRow, recipe: str, options: Options) -> list[Job]:
    if row.encoder:
        options = replace(options, encoder=row.encoder, weights=None)
    if row.method == "pirn":
        config = options.config(recipe, row.shots, row.change, modalities=row.modalities)
    else:
        config = options.baseline(row.method, row.change, modalities=row.modalities)
    return [
        job
        for seed in options.seeds
        for job in grid([config], options.categories, shots=[row.shots], draws=[seed],
                        seeds=[seed], **options.same)
    ]  # fmt: skip


def _lines(table: Table, row: TableRow, recipe: str, results: Sequence[Result]) -> list[Line]:
    published = table.category_paper
    if row.method != "pirn":
        recipe, published = f"{row.method}: {MEASURED}", lambda category: {}
    if not table.by_category:
        return [sheet.line_of(row.label, recipe, results, row.paper)]
    lines = []
    for category in dict.fromkeys(result.job.category for result in results):
        own = [result for result in results if result.job.category == category]
        lines.append(sheet.line_of(category, recipe, own, published(category)))
    lines.append(sheet.line_of("mean", recipe, results, published("mean")))
    return lines


def about(options: Options, results: Sequence[Result], of: str) -> list[str]:
    """What was run, for the head of a table or figure."""
    said = [f"    {own_command()}", ""]
    if not results:
        return said
    jobs = [result.job for result in results]
    first, changed = jobs[0], "".join(f", {label}" for label in labels_of(options.change))
    categories = dict.fromkeys(job.category for job in jobs)
    shots = dict.fromkeys(str(job.shots or "all") for job in jobs)
    encoders = dict.fromkeys(result.document["encoder"]["name"] for result in results)
    geometries = dict.fromkeys(job.config.geometry_method for job in jobs)
    said.append(
        f"{first.dataset}: {', '.join(categories)}; {' and '.join(shots)} shots; encoder "
        f"{' and '.join(encoders)} at {first.config.image_size} px; geometry "
        f"{' and '.join(geometries)}{changed}. The paper's figures are of {of}."
    )
    return said


def warnings_of(results: Sequence[Result]) -> list[str]:
    """What must be said loudly."""
    found = []
    if any(result.document["data"] == "generated" for result in results):
        found.append(sheet.GENERATED)
    if any(result.document["encoder"]["random"] for result in results):
        found.append(sheet.RANDOM)
    return found
