"""Scans nothing is known about → a JSON record, a heatmap and a mask each.

`<out>/predictions.jsonl`, `<out>/<key>_heatmap.png`, `<out>/<key>_mask.png`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from pirn_jax.detector import MODEL_FORMAT, PIRN, Prediction
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.runs.folder import Progress, model_folders, start_caches
from pirn_jax.runs.results import file_name
from pirn_jax.storage import read_object
from pirn_jax.scans import Scan, Split, open_dataset, open_files
from pirn_jax.scans.datasets.dataset import Entry
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.options import Options, Unit
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scoring import Calibration, normalise

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Request:
    """What to predict, with what, and where to; see `pirn_jax.predict.Arguments`."""

    run: Path
    files: tuple[Path, ...]
    roles: Mapping[str, Path]
    out: Path
    category: str | None = None
    seed: int | None = None
    weights: str | None = None
    unit: Unit = "auto"
    batch: int = 4
    overwrite: bool = False
    cache: str | None = None
    runtime: str | None = None


def predict_scans(
    request: Request,
    failed: Callable[[str, PirnError], None],
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Predict scan by scan.

    Args:
        request: see `Request`.
        failed: called with the key and the error of each scan that cannot be used.
        progress: see `Progress`.

    Yields:
        A record per scan, written to disk already: key, score, label, threshold, regions, the
        files, and whether the model's data was generated or its encoder a demo.

    Raises:
        PirnError: no such model, nothing to predict, or predictions there already.
    """
    if request.batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {request.batch}", "use 4")
    target = request.out / PREDICTIONS
    if target.exists() and not request.overwrite:
        raise BadInputError(
            "there are predictions in this folder already",
            "--overwrite replaces them, --out names another",
            request.out,
        )
    scans = _scans(request)
    if not len(scans):
        raise BadInputError(
            "no scans to predict", "give a folder of scans, or one with a test/ in it"
        )
    place = _model_folder(request)
    start_caches(request.cache)
    model = PIRN.load(place, weights=request.weights, runtime=request.runtime)
    request.out.mkdir(parents=True, exist_ok=True)
    done = 0
    with target.open("w", encoding="utf-8") as lines:
        for judged in model.judge(scans, batch=min(request.batch, len(scans)), failed=failed):
            prediction = model.conclude(judged)
            record = _write(request.out, judged.scan, prediction, model)
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            done += 1
            if progress is not None:
                progress("scans", done, len(scans), "")
            yield record


def _scans(request: Request) -> Split:
    folders = [path for path in request.files if path.is_dir()]
    if request.roles and request.files:
        raise ConfigError("files beside --rgb, --xyz or --normals", "give the one or the other")
    if request.roles:
        files = {role: File(path) for role, path in request.roles.items()}
        key = next(iter(files.values())).stem
        options = Options(unit=request.unit)

        def read(entry: Entry) -> Scan:
            return read_entry(entry, options)

        return Split([Entry(key, files)], read)
    if not request.files:
        raise ConfigError("nothing to predict", "give files, a folder, or --rgb and --xyz")
    if folders:
        if len(request.files) > 1:
            raise ConfigError("a folder beside other files", "give one folder, or files alone")
        data = open_dataset("folder", folders[0], "", unit=request.unit)
        return data.test
    return open_files(request.files, unit=request.unit)


def _model_folder(request: Request) -> Path:
    config = request.run / "config.json"
    if config.is_file() and read_object(config).get("format") == MODEL_FORMAT:
        return request.run
    found = model_folders(request.run, (request.category,) if request.category else ())
    categories = {category for category, _ in found}
    if len(categories) > 1:
        raise ConfigError(
            f"the run holds models of {', '.join(sorted(categories))}",
            "say which with --category",
        )
    seeds = {seed: place for (_, seed), place in found.items()}
    if request.seed is not None and request.seed not in seeds:
        raise ConfigError(f"no model of seed {request.seed}", f"there are {sorted(seeds)}")
    return seeds[min(seeds) if request.seed is None else request.seed] / "model"


def _write(out: Path, scan: Scan, prediction: Prediction, model: PIRN) -> dict[str, Any]:
    from PIL import Image

    name = file_name(scan.key)
    shown = out / f"{name}_heatmap.png"
    Image.fromarray(heatmap(scan, prediction.anomaly_map, model.calibration)).save(shown)
    files = {"heatmap": str(shown)}
    if prediction.pred_mask is not None:
        files["mask"] = str(out / f"{name}_mask.png")
        Image.fromarray(prediction.pred_mask.astype(np.uint8) * np.uint8(255)).save(files["mask"])
    return {
        "key": scan.key,
        "score": prediction.pred_score,
        "label": prediction.pred_label,
        "threshold": None if model.calibration is None else model.calibration.threshold,
        "regions": [region._asdict() for region in prediction.regions],
        **files,
        "trained_on": model.origin.get("data"),
        "demo_encoder": model.demo,
    }


def heatmap(
    scan: Scan, anomaly_map: Float32[np.ndarray, "H W"], calibration: Calibration | None
) -> UInt8[np.ndarray, "H W 3"]:
    """The map in colours over the photograph in grey.

    With a threshold the colours mean the same for every scan: black is the least there is, the
    middle of the scale is the threshold. Without one they span the map's own range.
    """
    from matplotlib import colormaps

    if calibration is None:
        low, high = float(anomaly_map.min()), float(anomaly_map.max())
        share = (anomaly_map - low) / (high - low) if high > low else np.zeros_like(anomaly_map)
    else:
        share = normalise(anomaly_map, calibration)
    colours = colormaps["inferno"](share)[..., :3]
    if scan.rgb is not None:
        grey = scan.rgb.mean(-1, keepdims=True) / 255
        colours = 0.65 * colours + 0.35 * grey
    return np.rint(colours * 255).astype(np.uint8)
