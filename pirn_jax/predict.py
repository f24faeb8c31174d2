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
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pirn_jax.cluster import Where
from pirn_jax.command import DEFECT_FOUND, UNJUDGED, Console, exits, parse, progress_bars
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.scans.formats.options import Reading

if TYPE_CHECKING:
    from pirn_jax.detector import PIRN
    from pirn_jax.runs.sources import ModelSource


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
    modalities: tuple[str, ...] | None = None
    """What is looked at then: rgb, normals, or both; without it both."""
    fail_on_defect: bool = False
    """Exit with 1 if a scan is called defective."""
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
    from pirn_jax.detector import Lot
    from pirn_jax.detector.judging import part_finder, read_judging
    from pirn_jax.manifest import is_ours
    from pirn_jax.places import is_remote
    from pirn_jax.runs.mirror import mirrored
    from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, check_free
    from pirn_jax.runs.predictions import predict_scans
    from pirn_jax.runs.spread import is_unfinished, predict_on
    from pirn_jax.scans.datasets.inputs import PREDICTIONS
    from pirn_jax.scans.datasets.judged import find_scans, options_of
    from pirn_jax.scans.datasets.left_out import describe_left_out

    named = {name: getattr(arguments, name) for name in ("rgb", "xyz", "depth", "normals")}
    roles = {role: file for role, file in named.items() if file is not None}
    inputs = [*arguments.files, *roles.values()]
    own = (arguments.rules, arguments.roi, arguments.good)
    inputs += [path for path in own if path is not None]
    on_ray = arguments.where.on == "ray"
    if not arguments.lot and (arguments.encoder or arguments.good):
        raise ConfigError("--encoder and --good are of a lot", "add --lot")
    if arguments.modalities is not None and not arguments.encoder:
        raise ConfigError("--modalities is of a lot without a run", "add --lot --encoder auto")
    if arguments.lot and on_ray:
        raise ConfigError("a lot is judged whole, by one process", "leave --on ray out")
    if arguments.good is not None and arguments.threshold is not None:
        raise ConfigError("--good and --threshold contradict each other", "give one of them")
    if arguments.append and (arguments.overwrite or on_ray):
        other = "--overwrite" if arguments.overwrite else "--on ray"
        raise ConfigError(f"--append and {other} contradict each other", "give one of them")
    if on_ray and is_remote(arguments.out):
        raise ConfigError(
            "workers write pictures themselves, and not into an object store",
            "give --out a folder that all of them share, and copy it when it is whole",
        )
    files = (arguments.run, *arguments.files) if arguments.encoder else arguments.files
    if not roles and not files:
        raise ConfigError("nothing to predict", "give files, a folder, or --rgb and --xyz")
    judging = read_judging(arguments.rules, arguments.roi, arguments.limits)
    complain = Console(stderr=True, soft_wrap=True, highlight=False)
    stdout, bad, defective = sys.stdout, 0, 0

    def failed(key: str, error: PirnError) -> None:
        nonlocal bad
        bad += 1
        complain.print(f"skipped: {key}: {error}", markup=False)

    trained = None if arguments.encoder else arguments.run
    read = [*inputs, arguments.run]
    with (
        nullcontext() if trained is None else mirrored(trained, read_only=True) as run,
        mirrored(arguments.out, (PREDICTIONS,), inputs=read) as results,
        arguments.where.cluster() as cluster,
        progress_bars() as progress,
    ):
        out = results.folder
        resume = cluster is not None and is_unfinished(out) and not arguments.overwrite
        if not (resume or (arguments.append and is_ours(out, PREDICTIONS_FORMAT))):
            read.append(arguments.run if run is None else run.folder)
            check_free(out, PREDICTIONS_FORMAT, overwrite=arguments.overwrite, inputs=read)
        if arguments.append and is_unfinished(out):
            raise ConfigError(
                "a job of --on ray was stopped there before its end",
                "give its command again first, or name another with --out",
                out,
            )
        source = None if run is None else source_of(arguments, run.folder)
        model = without_shots(arguments) if source is None else source.load()
        if arguments.lot:
            model = Lot(model)
            if arguments.threshold is not None:
                model.set_fixed_threshold(arguments.threshold)
        options, camera = options_of(model.origin, arguments)
        where = (model.config.modalities, options, arguments.out, camera)
        links = arguments.follow_links
        scans, left_out = find_scans(files, roles, *where, follow_links=links)
        if isinstance(model, Lot):
            model.decide(scans)  # before zones are laid on by what it looks at
        if isinstance(model, Lot) and arguments.good is not None:
            good, others = find_scans([arguments.good], {}, *where, follow_links=links)
            find_part = part_finder(model.looking, model.prepared)
            laid = good.changed(lambda scan: judging.lay_on(scan, find_part))
            model.calibrate(laid, failed=failed)
            left_out += others
        bad += len(left_out)
        for line in describe_left_out(left_out):
            complain.print(line, markup=False)
        same = {"batch": arguments.batch, "judging": judging}
        if cluster is None or source is None:
            more = {"append": arguments.append, "called": arguments.out}
            records = predict_scans(model, scans, out, failed, progress, **more, **same)
        else:
            more = {"resume": resume, "reading": repr((options, camera))}
            records = predict_on(
                cluster, source, model, scans, out, failed, progress, **more, **same
            )
        for record in records:
            defective += record["label"] == 1
            stdout.write(json.dumps(record) + "\n")
            stdout.flush()
    if bad:
        return UNJUDGED
    return DEFECT_FOUND if defective and arguments.fail_on_defect else 0


def source_of(arguments: Arguments, run: Path) -> ModelSource:
    """Where the model is found, and how it is loaded."""
    from pirn_jax.runs.predictions import find_model
    from pirn_jax.runs.sources import ModelSource

    return ModelSource(
        find_model(run, arguments.category, arguments.seed),
        arguments.weights,
        arguments.runtime,
        arguments.allow_code,
        arguments.cache,
        arguments.threshold,
    )


def without_shots(arguments: Arguments) -> PIRN:
    """What has learned nothing: a lot alone judges."""
    from pirn_jax import Config
    from pirn_jax.detector import PIRN
    from pirn_jax.runs.folder import start_caches

    _, prepared = start_caches(arguments.cache)
    config = Config(
        encoder=arguments.encoder or "auto",
        weights=arguments.weights,
        modalities=arguments.modalities or ("rgb", "normals"),
    )
    config = replace(config, runtime=arguments.runtime or config.runtime)
    return PIRN(config, prepared=prepared)


if __name__ == "__main__":
    main()
