"""How far something is, for whoever waits.

Bars on a terminal and in notebooks, else a line now and then, so that the log of a long job shows
that it goes on. What is shown may come from names of files: it is escaped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import rich.console
from rich.text import Text

from pirn_jax.errors import printable

Tell = Callable[[str, int, int, str], None]
"""Called with a stage (shots, training, scans), how much of it is done, of how much, and a note."""
SECONDS = 10.0
"""Between two lines, where there are no bars."""


class Console(rich.console.Console):
    """rich's, which shows what names hold rather than obeying it, and leaves exit codes alone."""

    def render_str(self, text: str, **options: object) -> Text:
        """As rich does."""
        return super().render_str(printable(text), **options)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Left to `pirn_jax.command.exits`; rich would end the process with a defect's code."""
        raise BrokenPipeError


def escaping(handler: logging.Handler) -> logging.Handler:
    """The handler, with records that steer no terminal."""

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler.setFormatter(Formatter())
    return handler


@contextmanager
def shown_progress(wanted: bool | None) -> Iterator[Tell]:
    """`progress_bars` where wanted; None: in notebooks, where nothing else shows that work goes on.

    Args:
        wanted: whether to show anything.
    """
    shown = Console(stderr=True).is_jupyter if wanted is None else wanted
    with progress_bars() if shown else nullcontext(lambda stage, done, total, note: None) as tell:
        yield tell


@contextmanager
def progress_bars() -> Iterator[Tell]:
    """Bars on stderr, one per stage; where it is no terminal, a line every ten seconds.

    Messages of the package's log are printed above them.
    """
    console = Console(stderr=True)
    log = logging.getLogger("pirn_jax")
    before = log.handlers
    try:
        if console.is_terminal or console.is_jupyter:
            with _bars(console) as tell:
                yield tell
        else:
            log.handlers = [escaping(logging.StreamHandler())]
            yield _lines(console)
    finally:
        log.handlers = before


@contextmanager
def _bars(console: Console) -> Iterator[Tell]:
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

    handler = RichHandler(console=console, show_time=False, show_path=False)
    logging.getLogger("pirn_jax").handlers = [escaping(handler)]
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    ) as progress:

        def tell(stage: str, done: int, total: int, note: str) -> None:
            note = printable(note)
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total, note=note)
            progress.update(bars[stage], completed=done, total=total, note=note)

        yield tell


def _lines(console: Console) -> Tell:
    """Says how far the stage is whenever it is told of something and the last line is old."""
    start = said = time.monotonic()

    def tell(stage: str, done: int, total: int, note: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SECONDS:
            said = now
            words = f"{stage} {done}/{total}, {now - start:.0f} s{note and f', {note}'}"
            console.print(words, markup=False, highlight=False, soft_wrap=True)

    return tell
