"""`python -m pirn_runtime FILE FILES|FOLDER`: is this part good?

Scans are found and read as `python -m pirn_jax.predict` does it: pairs by name (`a.png a.tiff`), by
the folders `rgb/ xyz/ depth/ normals/`, or one folder per part. stdout carries one JSON line per
scan; with --out pictures and the same lines go to a folder, which must hold nothing yet.

Exit code: 0; 1 with --fail-on-defect if a scan is called defective; 2 if the file or a scan could
not be read or judged; 3 for wrong usage; 4 where the machine is at fault, or for an error that
nobody foresaw (--debug shows its traceback); 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pirn_jax.errors import (
    BadInputError,
    ConfigError,
    MachineError,
    MissingDependencyError,
    PirnError,
    printable,
)
from pirn_jax.manifest import digest_of
from pirn_jax.report.heatmap import overlay
from pirn_jax.report.layout import picture_stem
from pirn_jax.scans import Split
from pirn_jax.scans.datasets.inputs import PREDICTIONS
from pirn_jax.scans.datasets.judged import find_scans, options_of
from pirn_jax.scans.datasets.left_out import describe_left_out
from pirn_jax.scans.formats.options import Reading
from pirn_jax.storage import write_whole
from pirn_runtime import __version__
from pirn_runtime.engines import RUNTIMES
from pirn_runtime.judge import Judge, Judged

DEFECT_FOUND, UNJUDGED, USAGE, MACHINE, STOPPED = 1, 2, 3, 4, 130


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
        code = _exit_code(error)
        _say(f"error: {_words(error)}")
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
    about = judge.description
    options, camera = options_of({"reading": about.reading}, _reading(given))
    modalities = about.looking.modalities
    scans, left_out = find_scans(given.files, roles, modalities, options, given.out, camera)
    for line in describe_left_out(left_out):
        _say(line)
    bad, defective, lines = len(left_out), 0, []
    for key, found in _each(judge, scans, given.batch):
        if isinstance(found, PirnError):
            bad += 1
            _say(f"skipped: {key}: {found}")
            record = not_judged(key, found)
        else:
            record = record_of(judge, found) | _write_pictures(judge, found, given.out)
        defective += record["label"] == 1
        lines.append(json.dumps(record) + "\n")
        sys.stdout.write(lines[-1])
        sys.stdout.flush()
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            write_whole(given.out / PREDICTIONS, "".join(lines).encode())
    if bad:
        return UNJUDGED
    return DEFECT_FOUND if defective and given.fail_on_defect else 0


def _each(judge: Judge, scans: Split, batch: int) -> Iterator[tuple[str, Judged | PirnError]]:
    """Each scan judged, or why it cannot be, which keeps no other from being judged."""
    size, waiting = judge.description.batch or batch, []
    for place, key in enumerate(scans.keys):
        try:
            scan = scans[place]
            waiting.append((scan, judge.show(scan)))
        except Exception as error:
            yield key, _as_ours(error)
        if len(waiting) == size or place + 1 == len(scans.keys):
            yield from ((found.scan.key, found) for found in judge.judge_shown(waiting))
            waiting = []


def record_of(judge: Judge, judged: Judged) -> dict[str, Any]:
    """What is said of a scan, as `python -m pirn_jax.predict` says it."""
    known, about, prediction = judge.calibration, judge.description, judged.prediction
    return {
        "key": judged.scan.key,
        "time": _now(),
        "size": prediction.anomaly_map.shape,
        "score": prediction.pred_score,
        "label": prediction.pred_label,
        "threshold": None if known is None else known.threshold,
        "regions": [region._asdict() for region in prediction.regions],
        "model": about.model,
        "calibration": None if known is None else digest_of(known._asdict())[:16],
        "versions": {"pirn_runtime": __version__, "pirn_jax": about.version},
        "trained_on": about.trained_on,
        "random_weights": about.random_weights,
    }


def not_judged(key: str, error: PirnError) -> dict[str, Any]:
    """What is said of a scan that cannot be used: no score, no label, and why."""
    reason = printable(error.problem)
    return {"key": key, "time": _now(), "score": None, "label": None, "not_judged": reason}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _write_pictures(judge: Judge, judged: Judged, out: Path | None) -> dict[str, str]:
    """The heatmap and the mask; their places."""
    if out is None:
        return {}
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    prediction, stem = judged.prediction, picture_stem(judged.scan.key)
    pictures = {"heatmap": overlay(judged.scan.rgb, prediction.anomaly_map, judge.calibration)}
    if prediction.pred_mask is not None:
        pictures["mask"] = prediction.pred_mask.astype(np.uint8) * np.uint8(255)
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


def _as_ours(error: Exception) -> PirnError:
    if isinstance(error, PirnError):
        return error
    reason = str(error).partition("\n")[0][:200]
    return BadInputError(f"cannot be used: {type(error).__name__}: {reason}", "see to this file")


def _exit_code(error: Exception) -> int:
    if isinstance(error, ConfigError):
        return USAGE
    machine = isinstance(error, MachineError | MissingDependencyError)
    return UNJUDGED if isinstance(error, PirnError) and not machine else MACHINE


def _words(error: Exception) -> str:
    if isinstance(error, PirnError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror or error}"
    reason = str(error).partition("\n")[0][:500]
    return f"unforeseen: {type(error).__name__}: {reason} (--debug shows where)"


def _say(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")


if __name__ == "__main__":
    main()
