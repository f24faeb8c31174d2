"""What every command shares: typed flags, errors a person can act on, progress bars, the table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pirn_jax.errors import PirnError, printable

if TYPE_CHECKING:
    from rich.table import Table

USAGE_OR_DATA = 2  # exit code of a run that could not be done as asked
_COLUMNS = {"I-AUROC": "i_auroc", "P-AUROC": "p_auroc", "AUPRO@30 %": "aupro_0.3"}
_COLUMNS |= {"F1max": "i_f1max"}


def run(
    main: Callable[..., Any], options: Any = None, arguments: Sequence[str] | None = None
) -> Any:
    """Parse the command line and call `main`.

    Args:
        main: a function whose parameters and docstring become flags and help.
        options: instead, a dataclass whose fields do; `main` is given one.
        arguments: instead of the process's own.

    Returns:
        What `main` returns. A `PirnError` is printed to stderr and ends the process with code 2,
        a keyboard interrupt with 130.
    """
    import tyro

    module = sys.modules["__main__"].__spec__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    with exits():
        if options is None:
            return tyro.cli(main, args=arguments, prog=program)
        return main(tyro.cli(options, args=arguments, prog=program))


@contextmanager
def exits() -> Iterator[None]:
    """Ends the process, as `run` says, for errors raised inside."""
    try:
        yield
    except PirnError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE_OR_DATA) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int, str], None]]:
    """Bars on stderr, one per stage; yields what `pirn_jax.runs.Progress` describes.

    Messages of the package's log are printed above them.
    """
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_path=False)
    log = logging.getLogger("pirn_jax")
    log.addHandler(handler)
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:

        def tell(stage: str, done: int, total: int, note: str) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total, note=note)
            progress.update(bars[stage], completed=done, total=total, note=note)

        try:
            yield tell
        finally:
            log.removeHandler(handler)


def results_table(metrics: Mapping[str, Any]) -> Table:
    """A run's `metrics.json` as a table: category by category, seeds averaged, and the mean."""
    from rich.table import Table
    from rich.text import Text

    title = ["generated data"] if metrics.get("data") == "generated" else []
    encoder = metrics.get("encoder", {})
    if encoder.get("random"):
        title.append("random encoder weights: figures mean little")
    said = ": ".join(filter(None, (f"encoder {encoder.get('name')}", encoder.get("about"))))
    notes = metrics.get("notes", {})
    lines = [f"{name}: {note['words']}" for name, found in notes.items() for note in found]
    said = "\n".join([said, *(["* see here:"] if lines else []), *lines])
    table = Table(
        title="; ".join(title) or None, title_style="bold red", caption=Text(printable(said))
    )
    table.add_column("category")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for category, seeds in metrics["categories"].items():
        table.add_row(
            category,
            *[
                _cell([s.get(k) for s in seeds.values()]) + _mark(k, notes.get(category, ()))
                for k in _COLUMNS.values()
            ],
        )
    if len(metrics["categories"]) > 1:
        table.add_section()
        every = [note for found in notes.values() for note in found]
        table.add_row(
            "mean",
            *[_cell([metrics["mean"].get(k)]) + _mark(k, every) for k in _COLUMNS.values()],
        )
    return table


def _mark(figure: str, notes: Iterable[Mapping[str, str]]) -> str:
    """A star where a note makes that figure doubtful, as `pirn_jax.report.schema.is_touched`."""
    kinds = ("all", "scans" if figure.startswith("i_") else "pixels")
    return "*" if any(note["touches"] in kinds for note in notes) else ""


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    mean = sum(known) / len(known)
    if len(known) == 1:
        return f"{mean:.3f}"
    spread = (sum((value - mean) ** 2 for value in known) / (len(known) - 1)) ** 0.5
    return f"{mean:.3f} ± {spread:.3f}"
