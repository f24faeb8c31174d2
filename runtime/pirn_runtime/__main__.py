"""`python -m pirn_runtime FILE FILES|FOLDER`: is this part good?

Scans are found and read as `python -m pirn_jax.predict` does it: pairs by name (`a.png a.tiff`), by
the folders `rgb/ xyz/ depth/ normals/`, or one folder per part. stdout carries one JSON line per
scan; with --out pictures and the same lines go to a folder, which must hold nothing yet. --rules
and --roi are those of `predict`: what is not OK, and what is not judged.

Exit code: 0; 1 with --fail-on-defect if a scan is called defective; 2 if the file or a scan could
not be read or judged; 3 for wrong usage; 4 where the machine is at fault, or for an error that
nobody foresaw (--debug shows its traceback); 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from pirn_jax.detector.judging import part_finder, read_judging
from pirn_jax.detector.prediction import Prediction
from pirn_jax.detector.records import Record, not_judged, record_of
from pirn_jax.errors import (
    DEFECT_FOUND,
    STOPPED,
    UNJUDGED,
    USAGE,
    ConfigError,
    PirnError,
    exit_code,
    in_one_line,
    printable,
)
from pirn_jax.report.heatmap import overlay
from pirn_jax.report.layout import picture_stem
from pirn_jax.scans import Limits, Scan
from pirn_jax.scans.datasets.inputs import PREDICTIONS
from pirn_jax.scans.datasets.judged import find_scans, options_of
from pirn_jax.scans.datasets.left_out import describe_left_out
from pirn_jax.scans.formats.options import Reading
from pirn_jax.scoring.rules import Verdict
from pirn_runtime.engines import RUNTIMES
from pirn_runtime.judge import Judge
from pirn_runtime.version import __version__


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser("python -m pirn_runtime", description="Judge scans with an exported model.")
    add = parser.add_argument
    add("file", type=Path, help="that `python -m pirn_jax.export` wrote")
    add("files", type=Path, nargs="*", help="photographs, points and normal maps; or folders")
    for role in ("rgb", "xyz", "depth", "normals"):
        add(f"--{role}", type=Path, help="of a single scan, instead")
    add("--threshold", type=float, help="scores above it are called defective, not the file's own")
    add("--fail-on-defect", action="store_true", help="exit with 1 if a scan is called defective")
    add("--rules", type=Path, help="TOML file of what is not OK: thresholds, sizes in mm, zones")
    add("--roi", type=Path, help="what is not judged: a picture, white there, or a file of zones")
    add("--out", type=Path, help="folder for predictions.jsonl, heatmaps and masks")
    add("--runtime", choices=RUNTIMES, default="onnxruntime")
    add("--threads", type=int, help="that the runtime may use")
    add("--batch", type=int, default=1, help="scans a call; changes no score")
    add("--unit", choices=("m", "mm", "auto"), help="of point files")
    add("--assume-aligned", action="store_true", help="geometry shows what the photograph shows")
    add("--scale", type=float, help="photograph pixels per pixel of the geometry")
    add("--calibration", help="JSON file of the photograph's camera and its pose")
    add("--intrinsics", help="JSON file of the depth camera")
    add("--white", type=int, help="the value of white in photographs of more than 8 bits")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--version", action="version", version=f"pirn_runtime {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    given = _parser().parse_args(arguments)
    code = 0
    try:
        code = predict(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        code = exit_code(error)
        _say(f"error: {in_one_line(error)}")
    if code:
        raise SystemExit(code)


def predict(given: argparse.Namespace) -> int:
    """Do what the flags say; returns the exit code."""
    named = {role: getattr(given, role) for role in ("rgb", "xyz", "depth", "normals")}
    roles = {role: file for role, file in named.items() if file is not None}
    if not roles and not given.files:
        raise ConfigError("nothing to predict", "give files, a folder, or --rgb and --xyz")
    if given.batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {given.batch}")
    if given.out is not None and given.out.exists() and any(given.out.iterdir()):
        raise ConfigError("there is something in this folder", "name a new one", given.out)
    judge = Judge(
        given.file, threshold=given.threshold, runtime=given.runtime, threads=given.threads
    )
    judging = read_judging(given.rules, given.roi, Limits())
    judging.check(judge.looking, judge.calibration is not None)
    find_part = part_finder(judge.looking)
    options, camera = options_of({"reading": judge.description.reading}, _reading(given))
    modalities = judge.looking.modalities
    scans, left_out = find_scans(given.files, roles, modalities, options, given.out, camera)
    for line in describe_left_out(left_out):
        _say(line)
    bad, defective = len(left_out), 0
    unjudged: list[Record] = []

    def failed(key: str, error: PirnError) -> None:
        nonlocal bad
        bad += 1
        _say(f"skipped: {key}: {error}")
        unjudged.append(not_judged(key, error))

    laid = scans.changed(lambda scan: judging.lay_on(scan, find_part))
    found = judge.predict_scans(laid, batch=given.batch, failed=failed)
    for result in itertools.chain(found, (None,)):
        records, unjudged[:] = unjudged[:], ()
        if result is not None:
            prediction = judge.postprocess(result)
            verdict = judging.verdict(result.scan, prediction, judge.calibration, find_part)
            record = record_of(judge, result.scan.key, prediction, verdict)
            record |= _write_pictures(judge, result.scan, prediction, verdict, given.out)
            records.append(record)
        for record in records:
            defective += record["label"] == 1
            line = json.dumps(record) + "\n"
            sys.stdout.write(line)
            sys.stdout.flush()
            if given.out is not None:
                given.out.mkdir(parents=True, exist_ok=True)
                with (given.out / PREDICTIONS).open("a", encoding="utf-8") as file:
                    file.write(line)
    if bad:
        return UNJUDGED
    return DEFECT_FOUND if defective and given.fail_on_defect else 0


def _write_pictures(
    judge: Judge, scan: Scan, prediction: Prediction, verdict: Verdict, out: Path | None
) -> dict[str, str]:
    """The heatmap and the mask; their places."""
    if out is None:
        return {}
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    stem = picture_stem(scan.key)
    pictures = {"heatmap": overlay(scan.rgb, prediction.anomaly_map, judge.calibration)}
    if verdict.mask is not None:
        pictures["mask"] = verdict.mask.astype(np.uint8) * np.uint8(255)
    places = {kind: out / f"{stem}_{kind}.png" for kind in pictures}
    for kind, picture in pictures.items():
        Image.fromarray(picture).save(places[kind])
    return {kind: str(place) for kind, place in places.items()}


def _reading(given: argparse.Namespace) -> Reading:
    values = {
        name: getattr(given, name)
        for name in ("unit", "scale", "calibration", "intrinsics", "white")
        if getattr(given, name) is not None
    }
    return Reading(**values, assume_aligned=given.assume_aligned)


def _say(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")


if __name__ == "__main__":
    main()
