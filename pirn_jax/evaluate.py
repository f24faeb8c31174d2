"""`python -m pirn_jax.evaluate RUN`: the models of a run on its test scans, or on others.

The run itself is left as it is; results and report go to a folder of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pirn_jax.cluster import Where
from pirn_jax.command import UNJUDGED, Console, exits, parse, progress_bars, results_table
from pirn_jax.places import address, is_remote
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
    allow_code: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A function, as package.module:function, that the run may name and that is then run; may be
    given again. Without it a run that names code is refused."""
    out: Path | None = None
    """Folder for the results; without it RUN-evaluated."""
    false_alarm_rate: float | None = None
    """Set the threshold anew for this share of good scans, by the validation scans."""
    lot: bool = False
    """Judge each category's test scans as one lot, each also against the others; a threshold there
    is only with --false-alarm-rate, set by validation scans that join the lot."""
    overwrite: bool = False
    """Replace results that are there already, once the new ones are whole."""
    cache: str | None = None
    """Folder for compiled programs, as in training."""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)
    """Where the work is done."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    with exits(arguments) as words:
        given = parse(Arguments, words, prog="python -m pirn_jax.evaluate")
        code = evaluate(given, ["python", "-m", "pirn_jax.evaluate", *words])
    if code:
        raise SystemExit(code)


def beside(run: Path) -> Path:
    """Where results go that no folder was named for."""
    place = run if is_remote(run) else run.resolve()  # `.` and `..` have names too
    return place.with_name(f"{place.name}-evaluated")


def evaluate(arguments: Arguments, command: Sequence[str]) -> int:
    """Do what the flags say; returns the exit code."""
    from pirn_jax.runs import evaluate_run
    from pirn_jax.storage import read_object

    names = ("dataset", "data_root", "test_scans")
    with arguments.where.cluster() as cluster, progress_bars() as progress:
        folder = evaluate_run(
            arguments.run,
            arguments.out or beside(arguments.run),
            {**{name: getattr(arguments, name) for name in names}, **arguments.changed()},
            categories=arguments.category,
            weights=arguments.weights,
            runtime=arguments.runtime,
            allow_code=arguments.allow_code,
            false_alarm_rate=arguments.false_alarm_rate,
            lot=arguments.lot,
            overwrite=arguments.overwrite,
            cache=arguments.cache,
            cluster=cluster,
            progress=progress,
            command=command,
        )
    console = Console()
    metrics = read_object(folder / "metrics.json")
    console.print(results_table(metrics))
    console.print(f"report: {address(folder / 'report.html')}", soft_wrap=True, highlight=False)
    return UNJUDGED if metrics["left_out"] else 0


if __name__ == "__main__":
    main()
