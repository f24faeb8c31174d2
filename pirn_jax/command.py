"""What every command shares: typed flags, exit codes, errors a person can act on, progress bars.

Exit codes, of every command: 0 fine; 1 a defect was found (`predict --fail-on-defect` only); 2
something given could not be read or judged; 3 wrong usage; 4 the machine: disk, permission, memory,
a missing package, or an error that nobody foresaw; 130 stopped by Ctrl-C. Whoever closes the pipe
that a command writes to has seen enough: that is fine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.table import Table
from rich.text import Text

from pirn_jax.errors import (
    DEFECT_FOUND,
    MACHINE,
    STOPPED,
    UNJUDGED,
    USAGE,
    exit_code,
    in_one_line,
    printable,
)
from pirn_jax.places import check_address
from pirn_jax.progress import Console, escaping, progress_bars

__all__ = [
    "DEFECT_FOUND",
    "MACHINE",
    "UNJUDGED",
    "USAGE",
    "Console",
    "exits",
    "parse",
    "progress_bars",
    "results_table",
    "run",
]
_COLUMNS = {"I-AUROC": "i_auroc", "P-AUROC": "p_auroc", "AUPRO@30 %": "aupro_0.3"}
_COLUMNS |= {"F1max": "i_f1max"}
_DEBUG = "--debug"


def run(
    main: Callable[..., Any], options: Any = None, arguments: Sequence[str] | None = None
) -> Any:
    """Parse the command line and call `main`.

    Args:
        main: a function whose parameters and docstring become flags and help.
        options: instead, a dataclass whose fields do; `main` is given one.
        arguments: instead of the process's own.

    Returns:
        What `main` returns. Whatever is raised ends the process as `exits` says.
    """
    module = sys.modules["__main__"].__spec__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    with exits(arguments) as words:
        if options is None:
            return parse(main, words, prog=program)
        return main(parse(options, words, prog=program))


def parse(kind: Any, words: Sequence[str], **more: Any) -> Any:
    """`tyro.cli`, whose refusals end the process with the exit code of wrong usage.

    Args:
        kind: a function or dataclass.
        words: the arguments.
        more: as `tyro.cli` takes it.
    """
    import tyro

    text = more.pop("description", None) or kind.__doc__ or ""
    for word in words:
        check_address(word.partition("=")[2] if word.startswith("--") and "=" in word else word)
    about = text.partition("\n\nArgs:")[0].partition("\n\n    Args:")[0]
    more["description"] = f"{about.strip()}\n\n{_DEBUG} shows the traceback of an error."
    try:
        return tyro.cli(kind, args=list(words), **more)
    except SystemExit as stopped:
        raise SystemExit(USAGE if stopped.code == 2 else stopped.code) from None


@contextmanager
def exits(arguments: Sequence[str] | None = None) -> Iterator[list[str]]:
    """Ends the process with the right code and one line of words, whatever is raised inside.

    Args:
        arguments: instead of the process's own; with `--debug` among them the traceback is shown.

    Yields:
        The arguments, without that.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in words
    log = logging.getLogger("pirn_jax")
    before, log.handlers = log.handlers, [escaping(logging.StreamHandler())]
    code = 0
    try:
        yield [word for word in words if word != _DEBUG]
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        pass
    except Exception as error:
        code = exit_code(error)
        with contextlib.suppress(OSError):  # stderr may be gone too
            if debug:
                traceback.print_exc()
            sys.stderr.write(f"error: {printable(in_one_line(error))}\n")
    finally:
        log.handlers = before
        _finish(sys.stdout)
    if code:
        raise SystemExit(code)


def _finish(stream: Any) -> None:
    """Write what is left in a stream's buffer; where that cannot be, let it go, in silence."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def results_table(metrics: Mapping[str, Any]) -> Table:
    """A run's `metrics.json` as a table: category by category, seeds averaged, and the mean."""
    title = ["generated data"] if metrics.get("data") == "generated" else []
    encoder = metrics.get("encoder", {})
    if encoder.get("random"):
        title.append("random encoder weights: figures mean little")
    said = ": ".join(filter(None, (f"encoder {encoder.get('name')}", encoder.get("about"))))
    notes = metrics.get("notes", {})
    lines = [f"{name}: {note['words']}" for name, found in notes.items() for note in found]
    lines = [said, *_reasons(metrics["categories"]), *(["* see here:"] if lines else []), *lines]
    table = Table(
        title="; ".join(title) or None,
        title_style="bold red",
        caption=Text(printable("\n".join(lines))),
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


def _reasons(categories: Mapping[str, Any]) -> Iterator[str]:
    """Why there is a "-" in the table, category by category."""
    if not categories:
        yield "no test scans: nothing was measured"
    for category, seeds in categories.items():
        found = next(iter(seeds.values()), {})
        if "i_auroc" not in found and "scans" in found:
            all_bad = found["defective"] == found["scans"]
            kind = "good" if all_bad else "defective"
            yield f"{category}: - as no test scan is known to be {kind}"
        elif "p_auroc" not in found and "scans" in found:
            yield f"{category}: - as masks are not known for all test scans"


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
