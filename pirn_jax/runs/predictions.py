"""Scans nothing is known about → a JSON record, a heatmap and a mask each.

`<out>/predictions.jsonl`, `<out>/<key>_heatmap.png`, `<out>/<key>_mask.png`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.detector import PIRN, Prediction, ScanResult
from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.records import not_judged, record_of
from pirn_jax.detector.saving import is_model
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.places import address
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
    called: Path | None = None,
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
        called: what records call the folder, where it is the copy of another.

    Yields:
        A record per scan, written to disk already (beside what it replaces): see
        `pirn_jax.detector.records`, and the files. Of a scan that cannot be used: key, time, no
        score, no label, and why.
    """
    if batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {batch}", "use 4")
    done, unjudged = 0, dict[str, PirnError]()
    judging.check(model.looking, model.has_threshold)
    find_part = part_finder(model.looking, model.prepared)
    laid = scans.changed(lambda scan: judging.lay_on(scan, find_part))

    def left_out(key: str, error: PirnError) -> None:
        unjudged[key] = error
        failed(key, error)

    with (
        (going_on if append else writing)(out, PREDICTIONS_FORMAT) as place,
        _lines(place / PREDICTIONS) as lines,
    ):
        found = model.predict_scans(laid, batch=min(batch, len(scans)), failed=left_out)
        write = Writing(model, judging, place, address(called or out), append)
        for record in in_order(scans.keys, found, unjudged, write.record):
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            done += 1
            if progress is not None:
                progress("scans", done, len(scans), "")
            yield record


def in_order(
    keys: Sequence[str],
    results: Iterable[ScanResult],
    left_out: Mapping[str, PirnError],
    record: Callable[[ScanResult], Document],
) -> Iterator[Document]:
    """A record per scan, in the order of the scans, as results come.

    Args:
        keys: of all scans.
        results: of those that could be used, in that order.
        left_out: why, of the others; filled while results come.
        record: of a result.
    """
    rest = iter(keys)
    for result in results:
        for key in rest:
            if key == result.scan.key:
                break
            yield not_judged(key, left_out[key])
        yield record(result)
    for key in rest:
        yield not_judged(key, left_out[key])


class Writing(NamedTuple):
    """How results become records and pictures.

    Attributes:
        model: that judged.
        judging: rules and zones.
        place: where the pictures are written.
        out: what that folder will be called, and is in the records.
        append: an earlier call's pictures may be there, and are not touched.
    """

    model: PIRN
    judging: Judging
    place: Path
    out: str
    append: bool = False

    def record(self, result: ScanResult) -> Document:
        """The record of a scan, whose pictures are then there."""
        model, scan = self.model, result.scan
        prediction = model.postprocess(result)
        find_part = part_finder(model.looking, model.prepared)
        verdict = self.judging.verdict(scan, prediction, model.calibration, find_part)
        record = record_of(model, scan.key, prediction, verdict)
        return record | self._pictures(scan, prediction, verdict)

    def _pictures(self, scan: Scan, prediction: Prediction, verdict: Verdict) -> Document:
        """Write the pictures of a scan; returns their files."""
        from PIL import Image

        stem = picture_stem(scan.key)
        name = _free_name(self.place, stem) if self.append else stem
        calibration = self.model.calibration
        pictures = {"heatmap": heatmap(scan, prediction.anomaly_map, calibration)}
        if verdict.mask is not None:
            pictures["mask"] = verdict.mask.view(np.uint8) * np.uint8(255)
        files = {}
        for kind in tuple(pictures):  # one after the other: large ones are not held together
            with whole_file(self.place / f"{name}_{kind}.png") as file:
                Image.fromarray(pictures.pop(kind)).save(file, "PNG")
            files[kind] = os.path.join(self.out, f"{name}_{kind}.png")
        return files


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """A file to add lines to; a line that a kill cut short is taken off first."""
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
    with path.open("a", encoding="utf-8") as lines:
        yield lines


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
