"""`python -m pirn_jax.predict RUN FILES|FOLDER`: is this part good?

Scans need neither masks nor labels. They are paired by stem, from the files given, from a folder of
files side by side (`a.png a.tiff`), or from its folders `rgb/ xyz/ normals/`; or one scan's files
are named with --rgb, --xyz and --normals.

stdout carries one JSON line per scan; pictures and the same lines go to the folder --out. What
cannot be read is reported on stderr and skipped.

Exit code: 0; 1 with --fail-on-defect if a scan is called defective; 2 if a scan could not be read
or judged; 3 for wrong usage, 4 where the machine is at fault (see `pirn_jax.command`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pirn_jax.command import (
    DEFECT_FOUND,
    UNJUDGED,
    Console,
    exits,
    parse,
    progress_bars,
)
from pirn_jax.errors import PirnError


@dataclass(frozen=True)
class Arguments:
    """Score scans with a trained model."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or the model/ folder of one model."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Photographs, point files and normal maps, paired by stem; or one folder of them."""
    rgb: Path | None = None
    """The photograph of a single scan."""
    xyz: Path | None = None
    """Its points: TIFF, NPY, NPZ, or an organised PLY or PCD."""
    normals: Path | None = None
    """Its normal map, instead of points."""
    category: str | None = None
    """Which model, where a run holds several."""
    seed: int | None = None
    """Which seed's model; without it the first."""
    weights: str | None = None
    """The encoder's file, where it has moved."""
    runtime: str | None = None
    """What the encoder runs on: jax, or openvino (faster on a CPU); without it as in training."""
    allow_code: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A function, as package.module:function, that the model may name and that is then run; may be
    given again. Without it a model that names code is refused."""
    unit: Literal["auto", "m", "mm"] = "auto"
    """Of points."""
    batch: int = 4
    """Scans a call of the device; changes no score."""
    out: Path = Path("predictions")
    """Folder for predictions.jsonl, heatmaps and masks; holds nothing yet, or predictions."""
    overwrite: bool = False
    """Replace predictions that are there already, once the new ones are whole."""
    fail_on_defect: bool = False
    """Exit with 1 if a scan is called defective."""
    cache: str | None = None
    """Folder for compiled programs, as in training."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    with exits(arguments) as words:
        given = parse(
            Arguments,
            words,
            prog="python -m pirn_jax.predict",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        code = predict(given)
    if code:
        raise SystemExit(code)


def predict(arguments: Arguments) -> int:
    """Do what the flags say; returns the exit code."""
    from pirn_jax.detector import PIRN
    from pirn_jax.runs.folder import start_caches
    from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, check_free
    from pirn_jax.runs.predictions import find_model, find_scans, predict_scans

    named = {"rgb": arguments.rgb, "xyz": arguments.xyz, "normals": arguments.normals}
    roles = {role: file for role, file in named.items() if file is not None}
    inputs = [arguments.run, *arguments.files, *roles.values()]
    check_free(arguments.out, PREDICTIONS_FORMAT, overwrite=arguments.overwrite, inputs=inputs)
    scans = find_scans(arguments.files, roles, arguments.unit)
    place = find_model(arguments.run, arguments.category, arguments.seed)
    _, prepared = start_caches(arguments.cache)
    model = PIRN.load(
        place,
        weights=arguments.weights,
        runtime=arguments.runtime,
        prepared=prepared,
        allow_code=arguments.allow_code,
    )
    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    bad = defective = 0
    with progress_bars() as progress:

        def failed(key: str, error: PirnError) -> None:
            nonlocal bad
            bad += 1
            complain.print(f"skipped: {key}: {error}", markup=False)

        for record in predict_scans(
            model, scans, arguments.out, failed, progress, batch=arguments.batch
        ):
            defective += record["label"] == 1
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
    if bad:
        return UNJUDGED
    return DEFECT_FOUND if defective and arguments.fail_on_defect else 0


if __name__ == "__main__":
    main()
