"""`python -m pirn_jax.train --shots 5`: train, calibrate, evaluate, report.

With nothing else given the scans are generated; `--dataset mvtec3d --data-root ROOT` is the real
thing. See `pirn_jax.config.TrainConfig` for every setting and `pirn_jax.runs` for what is written.

`--add RUN FOLDER` trains the next version of a run instead: good scans join its shots
(`pirn_jax.runs.additions`); `--add --help` has the flags that go with it.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pirn_jax.command import UNJUDGED, Console, exits, parse, progress_bars, results_table
from pirn_jax.config import PRESETS, TrainConfig, preset
from pirn_jax.errors import ConfigError
from pirn_jax.methods import MethodSettings, recipes_of
from pirn_jax.places import address
from pirn_jax.scans.formats.options import Reading


@dataclass(frozen=True)
class Arguments:
    """Train a few-shot anomaly detector, evaluate it and write a report.

    --add RUN FOLDER trains the next version of a run instead, with the folder's good scans among
    its shots; --add --help has its flags.
    """

    run: Annotated[TrainConfig, tyro.conf.arg(name="")]
    """The settings."""
    settings: Annotated[MethodSettings, tyro.conf.arg(name="recipe")]
    """Of the method's recipe: what --method and --recipe name, and these flags change."""
    recipe: str = "default"
    """The method's recipe: default; of pirn also paper: the equations to the letter, on ViT-B/14
    where --encoder is auto, with Open3D's geometry where --geometry is auto, 8 epochs with all
    shots."""
    config: str = "default"
    """Where to start from: default, paper, debug, or a JSON file; the other flags change what it
    says."""
    allow_code: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A function, as package.module:function, that the file of --config may name; may be given
    again."""
    print_config: bool = False
    """Print the settings as JSON, and do nothing."""


@dataclass(frozen=True)
class AddArguments(Reading):
    """Train the next version of a run: good scans join its shots. The run stays as it is."""

    add: tuple[Path, Path]
    """RUN FOLDER: the run, and good scans as predict takes them; or the --state folder of a
    service: the parts that were marked as false alarms there."""
    out: Path | None = None
    """The new run's folder; without it RUN-v2 beside the old one, RUN-v3 beside that."""
    category: str | None = None
    """Whose scans these are, where the run holds models of several."""
    data_root: str | None = None
    """Folder that holds the run's own data, where it has moved."""
    weights: str | None = None
    """The encoder's file, where it has moved."""
    allow_code: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A function, as package.module:function, that the run may name; may be given again."""
    cache: str | None = None
    """Folder for compiled programs, as in training."""


def starting_point(arguments: Sequence[str]) -> TrainConfig:
    """The settings that `--config`, `--method` and `--recipe` name, which the other flags change.

    Raises:
        ConfigError: neither a preset nor a file, a file that does not fit, no such method or
            recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("config", "method", "recipe"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--allow-code", "--allow_code", action="append", default=[])
    try:
        named = parser.parse_known_args(list(arguments))[0]
    except argparse.ArgumentError:
        named = parser.parse_args([])  # said by the parser proper
    config = _config_named(named.config or "default", named.allow_code)
    detector = config.detector
    if named.method is not None and named.method.replace("_", "-") != detector.method:
        detector = replace(detector, method=named.method, recipe="default")
    if named.recipe is not None:
        known = named.method is not None or named.recipe in recipes_of(detector.method)
        method = detector.method if known else "auto"
        detector = replace(detector, method=method, recipe=named.recipe)
    return replace(config, detector=detector)


def _config_named(name: str, allow_code: Sequence[str]) -> TrainConfig:
    if name in PRESETS:
        return preset(name)
    if not Path(name).is_file():
        raise ConfigError(
            f"config: expected one of {', '.join(PRESETS)}, or a JSON file; got {name!r}",
            "--print-config shows what such a file holds",
        )
    from pirn_jax.config_json import from_json
    from pirn_jax.storage import read_object

    return from_json(TrainConfig, read_object(Path(name)), name, allow_code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    with exits(arguments) as words:
        if "--add" in words:
            code = add(parse_added(words), ["python", "-m", "pirn_jax.train", *words])
        else:
            code = _train_as_told(words)
    if code:
        raise SystemExit(code)


def _train_as_told(words: Sequence[str]) -> int:
    """Parse the flags of a training, and do what they say; returns the exit code."""
    from pirn_jax.config_json import to_json
    from pirn_jax.training import are_several, watched

    start = starting_point(words)
    given = parse(
        Arguments,
        words,
        default=Arguments(start, start.detector.chosen_recipe, start.detector.recipe_name),
        prog="python -m pirn_jax.train",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    config = replace(given.run, detector=replace(given.run.detector, recipe=given.settings))
    command = ["python", "-m", "pirn_jax.train", *words]
    if given.print_config:
        Console().print_json(json.dumps(to_json(config)))
        return 0
    if config.parallel in ("auto", "sharding") and are_several(config.coordinator):
        return watched(_one_of_several, config, command)
    return train(config, command)


def _one_of_several(config: TrainConfig, command: Sequence[str]) -> None:
    with exits():  # of the same words: --debug is among them, or not
        code = train(config, command)
    if code:
        raise SystemExit(code)


def parse_added(words: Sequence[str]) -> AddArguments:
    """The flags of `--add`."""
    if "--help" in words or "-h" in words:
        words = ["--help"]
    return parse(
        AddArguments,
        words,
        prog="python -m pirn_jax.train",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def add(arguments: AddArguments, command: Sequence[str]) -> int:
    """Train the next version, and say what has changed; returns the exit code."""
    from pirn_jax.report import layout
    from pirn_jax.runs.additions import add_to_run
    from pirn_jax.storage import read_object

    logging.getLogger("pirn_jax").setLevel(logging.INFO)
    with progress_bars() as progress:
        added = add_to_run(
            *arguments.add,
            arguments.out,
            reading=arguments,
            data_root=arguments.data_root,
            category=arguments.category,
            weights=arguments.weights,
            allow_code=arguments.allow_code,
            cache=arguments.cache,
            progress=progress,
            command=command,
        )
    console = Console(soft_wrap=True, highlight=False)
    for name, changes in added.changes.items():
        for line in changes.lines():
            console.print(f"{name}: {line}", markup=False)
    console.print(f"changes: {address(added.folder / layout.CHANGES)}", markup=False)
    console.print(f"report: {address(added.folder / layout.REPORT)}", markup=False)
    return UNJUDGED if read_object(added.folder / layout.METRICS)["left_out"] else 0


def train(config: TrainConfig, command: Sequence[str]) -> int:
    """Do what the flags say; returns the exit code."""
    from pirn_jax.report import layout
    from pirn_jax.runs import train_run
    from pirn_jax.storage import read_object
    from pirn_jax.training import is_first

    console = Console()
    logging.getLogger("pirn_jax").setLevel(logging.INFO)
    with progress_bars() as progress:
        folder = train_run(config, progress, command)
    if not is_first():
        return 0
    metrics = read_object(folder / layout.METRICS)
    console.print(results_table(metrics))
    console.print(f"report: {address(folder / layout.REPORT)}", soft_wrap=True, highlight=False)
    return UNJUDGED if metrics["left_out"] else 0


if __name__ == "__main__":
    main()
