"""How far a run is: a bar where stderr is a terminal, a line every ten seconds where it is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 10.0
Tell = Callable[[float, str], None]
"""Takes the share that is done and a note."""


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(stage: str) -> Iterator[Tell]:
    """Show how far one stage is; yields what is to be called as it goes on."""
    if sys.stderr.isatty():
        with _bar(stage) as tell:
            yield tell
        return
    began = told = time.monotonic()

    def line(share: float, note: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= EVERY:
            told = now
            say(f"{stage:>8} {min(share, 1.0):4.0%} {now - began:6.0f} s  {note}")

    yield line


@contextmanager
def _bar(stage: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(stage, total=1.0, note="")
        yield lambda share, note: bar.update(task, completed=min(share, 1.0), note=note)
