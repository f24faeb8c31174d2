"""`python -m pirn_jax.train --shots 5`: train, calibrate, evaluate, report.

With nothing else given the scans are generated; `--dataset mvtec3d --data-root ROOT` is the real
thing. See `pirn_jax.config.TrainConfig` for every setting and `pirn_jax.runs` for what is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from pirn_jax.command import exits, progress_bars, results_table
from pirn_jax.config import PRESETS, TrainConfig
from pirn_jax.errors import ConfigError


def starting_point(arguments: Sequence[str]) -> TrainConfig:
    """The settings that `--config` names, which the other flags change.

    Raises:
        ConfigError: neither a preset nor a file, or a file that does not fit.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", default="default")
    try:
        name = parser.parse_known_args(list(arguments))[0].config
    except argparse.ArgumentError:
        name = "default"  # said by the parser proper
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).is_file():
        raise ConfigError(
            f"config: expected one of {', '.join(PRESETS)}, or a JSON file; got {name!r}",
            "--print-config shows what such a file holds",
        )
    from pirn_jax.runs import from_flat
    from pirn_jax.storage import read_object

    return from_flat(read_object(Path(name)), name)


@dataclass(frozen=True)
class Arguments:
    """Train a few-shot anomaly detector, evaluate it and write a report."""

    run: TrainConfig
    """The settings."""
    config: str = "default"
    """Where to start from: default, paper, debug, or a JSON file; the other flags change what it
    says."""
    print_config: bool = False
    """Print the settings as JSON, and do nothing."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with exits():
        given = tyro.cli(
            Arguments,
            args=words,
            default=Arguments(starting_point(words)),
            prog="python -m pirn_jax.train",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
        train(given, ["python", "-m", "pirn_jax.train", *words])


def train(arguments: Arguments, command: Sequence[str]) -> None:
    """Do what the flags say."""
    from pirn_jax.runs import flat, train_run
    from pirn_jax.storage import read_object
    from pirn_jax.training import is_first

    console = Console()
    if arguments.print_config:
        console.print_json(json.dumps(flat(arguments.run)))
        return
    with progress_bars() as progress:
        folder = train_run(arguments.run, progress, command)
    if not is_first():
        return
    console.print(results_table(read_object(folder / "metrics.json")))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
