"""Scans nothing is known about → a JSON record, a heatmap and a mask each.

`<out>/predictions.jsonl`, `<out>/<key>_heatmap.png`, `<out>/<key>_mask.png`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.detector import PIRN, Prediction
from pirn_jax.detector.saving import is_model
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.report import layout
from pirn_jax.report.heatmap import overlay
from pirn_jax.report.layout import picture_stem
from pirn_jax.report.schema import Document
from pirn_jax.runs.folder import Progress, trained_models
from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, writing
from pirn_jax.scans import Scan, Split
from pirn_jax.scans.datasets.inputs import PREDICTIONS
from pirn_jax.scoring import Calibration


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
) -> Iterator[Document]:
    """Predict scan by scan.

    Args:
        model: trained.
        scans: to predict.
        out: folder for the records and pictures, as `check_free` has let it pass; what is there
            is replaced when all scans are done.
        failed: called with the key and the error of each scan that cannot be used.
        progress: see `Progress`.
        batch: scans a call of the device; changes no score.

    Yields:
        A record per scan, written to disk already (beside what it replaces): key, score, label,
        threshold, regions, the files, and whether the model's data was generated or its encoder's
        weights random.
    """
    if batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {batch}", "use 4")
    done = 0
    with (
        writing(out, PREDICTIONS_FORMAT) as place,
        (place / PREDICTIONS).open("w", encoding="utf-8") as lines,
    ):
        for result in model.predict_scans(scans, batch=min(batch, len(scans)), failed=failed):
            record = _write(place, out, result.scan, model.postprocess(result), model)
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            done += 1
            if progress is not None:
                progress("scans", done, len(scans), "")
            yield record


def _write(place: Path, out: Path, scan: Scan, prediction: Prediction, model: PIRN) -> Document:
    from PIL import Image

    name = picture_stem(scan.key)
    pictures = {"heatmap": heatmap(scan, prediction.anomaly_map, model.calibration)}
    if prediction.pred_mask is not None:
        pictures["mask"] = prediction.pred_mask.astype(np.uint8) * np.uint8(255)
    files = {}
    for kind, picture in pictures.items():
        Image.fromarray(picture).save(place / f"{name}_{kind}.png")
        files[kind] = str(out / f"{name}_{kind}.png")
    return {
        "key": scan.key,
        "score": prediction.pred_score,
        "label": prediction.pred_label,
        "threshold": None if model.calibration is None else model.calibration.threshold,
        "regions": [region._asdict() for region in prediction.regions],
        **files,
        "trained_on": model.origin.get("data"),
        "random_weights": model.random_weights,
    }


def heatmap(
    scan: Scan, anomaly_map: Float32[np.ndarray, "H W"], calibration: Calibration | None
) -> UInt8[np.ndarray, "H W 3"]:
    """The map in colours over the photograph in grey.

    With a threshold the colours mean the same for every scan: black is the least there is, the
    middle of the scale is the threshold. Without one they span the map's own range.
    """
    return overlay(scan.rgb, anomaly_map, calibration)
