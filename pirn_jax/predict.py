"""`python -m pirn_jax.predict RUN FILES|FOLDER`: is this part good?

Scans need neither masks nor labels. Which files are looked for follows from the model: a folder is
looked through to the bottom, and its files are paired by name (`a.png a.tiff`), by the folders
`rgb/ xyz/ depth/ normals/`, or as one folder per part (`part_17/rgb.png part_17/depth.png`); a
scan's key is its path. Or one scan's files are named with --rgb, --xyz, --depth and --normals.

stdout carries one JSON line per scan (`pirn_jax.detector.records`); pictures and the same lines go
to the folder --out. A scan that cannot be read, or shows what no working sensor would show of such
a part (a black photograph, few points), has a line without score and label that says why
(`not_judged`). What belongs to no scan is named on stderr.

--lot judges all scans together, each also against the others (`pirn_jax.detector.lot`): it needs
the whole lot. Scores then mean something within the lot alone: the model's threshold says nothing
of them, and label is null without --threshold, or --good: good scans that join the lot and set one.
With --encoder there are no RUN and no shots: the lot alone judges.

--rules is a TOML file of what is not OK (`pirn_jax.scoring.rules`), --roi a picture or TOML file of
what is not judged (`pirn_jax.geometry.zones`).

Exit code: 0; 1 with --fail-on-defect if a scan is called defective; 2 if a scan could not be read
or judged; 3 for wrong usage, 4 where the machine is at fault (see `pirn_jax.command`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pirn_jax.command import DEFECT_FOUND, UNJUDGED, Console, exits, parse, progress_bars
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.scans.formats.options import Reading


@dataclass(frozen=True)
class Arguments(Reading):
    """Score scans with a trained model."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or the model/ folder of one model; with --encoder the first of the files."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Photographs, point files and normal maps, paired by name; or folders of them."""
    rgb: Path | None = None
    """The photograph of a single scan."""
    xyz: Path | None = None
    """Its points: TIFF, NPY, NPZ, or an organised PLY or PCD."""
    depth: Path | None = None
    """Its depth map, instead of points; the camera is --intrinsics, or as in training."""
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
    threshold: float | None = None
    """Scores above it are called defective, instead of the model's own threshold."""
    follow_links: bool = False
    """Go where links in folders lead, also out of them."""
    rules: Path | None = None
    """TOML file of what is not OK: thresholds, sizes in mm, severities, zones."""
    roi: Path | None = None
    """What is not judged: a picture, white there, or a TOML file of zones."""
    batch: int = 4
    """Scans a call of the device; changes a score by rounding alone."""
    out: Path = Path("predictions")
    """Folder for predictions.jsonl, heatmaps and masks; holds nothing yet, or predictions."""
    append: bool = False
    """Add to the predictions that are there already."""
    overwrite: bool = False
    """Replace predictions that are there already, once the new ones are whole."""
    lot: bool = False
    """Judge the scans together, as one lot, each also against the others."""
    good: Path | None = None
    """A folder of good scans that join the lot and set its threshold."""
    encoder: str | None = None
    """Judge a lot without a run, by this encoder; auto: as in training."""
    modalities: tuple[str, ...] = ("rgb", "normals")
    """What is looked at then: rgb, normals, or both."""
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
    from pirn_jax import Config
    from pirn_jax.detector import PIRN, Lot
    from pirn_jax.detector.judging import read_judging
    from pirn_jax.manifest import is_ours
    from pirn_jax.runs.folder import start_caches
    from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, check_free
    from pirn_jax.runs.predictions import find_model, predict_scans
    from pirn_jax.scans.datasets.judged import find_scans, options_of
    from pirn_jax.scans.datasets.left_out import describe_left_out

    named = {name: getattr(arguments, name) for name in ("rgb", "xyz", "depth", "normals")}
    roles = {role: file for role, file in named.items() if file is not None}
    inputs = [arguments.run, *arguments.files, *roles.values()]
    own = (arguments.rules, arguments.roi, arguments.good)
    inputs += [path for path in own if path is not None]
    if not arguments.lot and (arguments.encoder or arguments.good):
        raise ConfigError("--encoder and --good are of a lot", "add --lot")
    if arguments.good is not None and arguments.threshold is not None:
        raise ConfigError("--good and --threshold contradict each other", "give one of them")
    files = (arguments.run, *arguments.files) if arguments.encoder else arguments.files
    if arguments.append and arguments.overwrite:
        raise ConfigError("--append and --overwrite contradict each other", "give one of them")
    if not (arguments.append and is_ours(arguments.out, PREDICTIONS_FORMAT)):
        check_free(arguments.out, PREDICTIONS_FORMAT, overwrite=arguments.overwrite, inputs=inputs)
    if not roles and not files:
        raise ConfigError("nothing to predict", "give files, a folder, or --rgb and --xyz")
    judging = read_judging(arguments.rules, arguments.roi, arguments.limits)
    _, prepared = start_caches(arguments.cache)
    if arguments.encoder:
        config = Config(
            encoder=arguments.encoder,
            weights=arguments.weights,
            modalities=arguments.modalities,
        )
        config = replace(config, runtime=arguments.runtime or config.runtime)
        model = PIRN(config, prepared=prepared)
    else:
        model = PIRN.load(
            find_model(arguments.run, arguments.category, arguments.seed),
            weights=arguments.weights,
            runtime=arguments.runtime,
            prepared=prepared,
            allow_code=arguments.allow_code,
        )
    if arguments.lot:
        model = Lot(model)
    if arguments.threshold is not None:
        model.set_fixed_threshold(arguments.threshold)
    options, camera = options_of(model.origin, arguments)
    modalities, links = model.config.modalities, arguments.follow_links
    where = (modalities, options, arguments.out, camera)
    scans, left_out = find_scans(files, roles, *where, follow_links=links)
    if arguments.good is not None:
        good, others = find_scans([arguments.good], {}, *where, follow_links=links)
        model.calibrate(good)
        left_out += others
    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    bad, defective = len(left_out), 0
    for line in describe_left_out(left_out):
        complain.print(line, markup=False)
    with progress_bars() as progress:

        def failed(key: str, error: PirnError) -> None:
            nonlocal bad
            bad += 1
            complain.print(f"skipped: {key}: {error}", markup=False)

        for record in predict_scans(
            model,
            scans,
            arguments.out,
            failed,
            progress,
            batch=arguments.batch,
            judging=judging,
            append=arguments.append,
        ):
            defective += record["label"] == 1
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
    if bad:
        return UNJUDGED
    return DEFECT_FOUND if defective and arguments.fail_on_defect else 0


if __name__ == "__main__":
    main()
