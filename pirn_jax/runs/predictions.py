"""Scans nothing is known about → a JSON record, a heatmap and a mask each.

`<out>/predictions.jsonl`, `<out>/<key>_heatmap.png`, `<out>/<key>_mask.png`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.detector import PIRN, Prediction
from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.records import not_judged, record_of
from pirn_jax.detector.saving import is_model
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.report import layout
from pirn_jax.report.heatmap import overlay
from pirn_jax.report.layout import picture_stem
from pirn_jax.report.schema import Document
from pirn_jax.runs.folder import Progress, trained_models
from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, going_on, writing
from pirn_jax.scans import Scan, Split
from pirn_jax.scans.datasets.inputs import PREDICTIONS
from pirn_jax.scoring import Calibration
from pirn_jax.scoring.rules import Verdict
from pirn_jax.storage import whole_file

JUDGED_BY_THRESHOLD = Judging()
"""No rules, no zones."""


def find_model(run: Path, category: str | None, seed: int | None) -> Path:
    """The `model/` folder of a run, or the run itself where it is one.

    Raises:
        PirnError: no such model, or several categories and none is named.
    """
    if is_model(run):
        return run
    found = trained_models(run, (category,) if category else ())
    categories = {place.category for place in found}
    if len(categories) > 1:
        raise ConfigError(
            f"the run holds models of {', '.join(sorted(categories))}",
            "say which with --category",
        )
    seeds = {place.seed: place for place in found}
    if seed is not None and seed not in seeds:
        raise ConfigError(f"no model of seed {seed}", f"there are {sorted(seeds)}")
    return seeds[min(seeds) if seed is None else seed].path / layout.MODEL


def predict_scans(
    model: PIRN,
    scans: Split,
    out: Path,
    failed: Callable[[str, PirnError], None],
    progress: Progress | None = None,
    *,
    batch: int = 4,
    judging: Judging = JUDGED_BY_THRESHOLD,
    append: bool = False,
) -> Iterator[Document]:
    """Predict scan by scan.

    Args:
        model: trained.
        scans: to predict.
        out: folder for the records and pictures, as `check_free` has let it pass; what is there
            is replaced when all scans are done.
        failed: called with the key and the error of each scan that cannot be used.
        progress: see `Progress`.
        batch: scans a call of the device; changes a score by rounding alone.
        judging: rules and zones.
        append: to the predictions that are there; nothing of them is touched.

    Yields:
        A record per scan, written to disk already (beside what it replaces): see
        `pirn_jax.detector.records`, and the files. Of a scan that cannot be used: key, time, no
        score, no label, and why.
    """
    if batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {batch}", "use 4")
    done, unjudged = 0, list[Document]()
    judging.check(model.looking, model.calibration is not None)
    find_part = part_finder(model.looking, model.prepared)
    laid = scans.changed(lambda scan: judging.lay_on(scan, find_part))

    def left_out(key: str, error: PirnError) -> None:
        unjudged.append(not_judged(key, error))
        failed(key, error)

    with (
        (going_on if append else writing)(out, PREDICTIONS_FORMAT) as place,
        _lines(place / PREDICTIONS) as lines,
    ):
        found = model.predict_scans(laid, batch=min(batch, len(scans)), failed=left_out)
        for result in itertools.chain(found, (None,)):
            records, unjudged[:] = unjudged[:], ()
            if result is not None:
                prediction = model.postprocess(result)
                verdict = judging.verdict(result.scan, prediction, model.calibration, find_part)
                record = record_of(model, result.scan.key, prediction, verdict)
                record |= _write(place, out, result.scan, prediction, verdict, model.calibration)
                records.append(record)
            for record in records:
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                done += 1
                if progress is not None:
                    progress("scans", done, len(scans), "")
                yield record


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """A file to add lines to; a line that a kill cut short is taken off first."""
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
    with path.open("a", encoding="utf-8") as lines:
        yield lines


def _write(
    place: Path,
    out: Path,
    scan: Scan,
    prediction: Prediction,
    verdict: Verdict,
    calibration: Calibration | None,
) -> Document:
    """Write the pictures of a scan; returns their files."""
    from PIL import Image

    name = _free_name(place, picture_stem(scan.key))
    pictures = {"heatmap": heatmap(scan, prediction.anomaly_map, calibration)}
    if verdict.mask is not None:
        pictures["mask"] = verdict.mask.view(np.uint8) * np.uint8(255)
    files = {}
    for kind in tuple(pictures):  # one after the other: large ones are not held together
        with whole_file(place / f"{name}_{kind}.png") as file:
            Image.fromarray(pictures.pop(kind)).save(file, "PNG")
        files[kind] = str(out / f"{name}_{kind}.png")
    return files


def _free_name(place: Path, stem: str) -> str:
    """The stem; where an earlier call wrote pictures of it, the first free one of stem~2 and on."""
    names = itertools.chain([stem], (f"{stem}~{number}" for number in itertools.count(2)))
    return next(name for name in names if not (place / f"{name}_heatmap.png").exists())


def heatmap(
    scan: Scan, anomaly_map: Float32[np.ndarray, "H W"], calibration: Calibration | None
) -> UInt8[np.ndarray, "H W 3"]:
    """The map in colours over the photograph in grey.

    With a threshold the colours mean the same for every scan: black is the least there is, the
    middle of the scale is the threshold. Without one they span the map's own range.
    """
    return overlay(scan.rgb, anomaly_map, calibration)
