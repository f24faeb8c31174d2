"""`python -m pirn_jax.evaluate RUN`: the models of a run on its test scans, or on others.

The run itself is left as it is; results and report go to a folder of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from pirn_jax.command import exits, progress_bars, results_table
from pirn_jax.scans.formats.options import Reading


@dataclass(frozen=True)
class Arguments(Reading):
    """Evaluate the models of a run; what is not given is as it was in training."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    dataset: str | None = None
    """Another dataset, with the same categories."""
    data_root: str | None = None
    """Another place where the data lies."""
    category: tuple[str, ...] = ()
    """Only these categories."""
    test_scans: int | None = None
    """Another number of test scans per generated category."""
    weights: str | None = None
    """The encoder's file, where it has moved."""
    runtime: str | None = None
    """What the encoder runs on: jax, or openvino (faster on a CPU); without it as in training."""
    out: Path | None = None
    """Folder for the results; without it RUN-evaluated. It must not be there yet."""
    cache: str | None = None
    """Folder for compiled programs, as in training."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with exits():
        given = tyro.cli(Arguments, args=words, prog="python -m pirn_jax.evaluate")
        evaluate(given, ["python", "-m", "pirn_jax.evaluate", *words])


def evaluate(arguments: Arguments, command: Sequence[str]) -> None:
    """Do what the flags say."""
    from pirn_jax.runs import evaluate_run
    from pirn_jax.storage import read_object

    names = ("dataset", "data_root", "test_scans", "cache")
    with progress_bars() as progress:
        folder = evaluate_run(
            arguments.run,
            arguments.out or arguments.run.with_name(f"{arguments.run.resolve().name}-evaluated"),
            {**{name: getattr(arguments, name) for name in names}, **arguments.changed()},
            categories=arguments.category,
            weights=arguments.weights,
            runtime=arguments.runtime,
            progress=progress,
            command=command,
        )
    console = Console()
    console.print(results_table(read_object(folder / "metrics.json")))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
