"""What one model says of the test scans, as files: the model's folder of a run.

`pirn_jax.report.layout` names the files. Pictures and maps have the scan's own shape, at most 256
pixels long. Every file says whether the data was generated and the encoder's weights random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from pirn_jax.detector import PIRN, Evaluator, ScanResult, Truth
from pirn_jax.errors import PirnError
from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder
from pirn_jax.report.schema import (
    Provenance,
    calibration_document,
    curves_document,
    figures_document,
    read_curves,
    usage_document,
)
from pirn_jax.report.tables import ScoreRow, write_scores
from pirn_jax.scans import Scan
from pirn_jax.storage import write_array, write_arrays, write_json, write_whole

SIDE = 256
"""Longest side of maps and pictures, pixels."""
SHOWN = 6
"""Pictures of good, and of defective scans: best, worst, median and evenly spaced ranks."""
CURVE_POINTS = 200


class Results(NamedTuple):
    """Figures by name, and the scores."""

    figures: dict[str, float]
    rows: list[ScoreRow]


def write_results(
    folder: ModelFolder,
    model: PIRN,
    scans: Iterable[Scan],
    provenance: Provenance,
    advance: Callable[[], None] | None = None,
    failed: Callable[[str, PirnError], None] | None = None,
) -> Results:
    """Predict test scans, evaluate, and write what was found.

    Args:
        folder: of the model; made if missing.
        model: trained, with or without a threshold.
        scans: to judge.
        provenance: put into every file.
        advance: called after each scan.
        failed: called with the key and the error of a scan that cannot be used, which is then left
            out. None: the error is raised.
    """
    found = model.predict_scans(scans, failed=failed)
    calibration = model.calibration  # of a lot, only once it is judged
    evaluator = Evaluator(None if calibration is None else calibration.threshold)
    rows: list[ScoreRow] = []
    usage: list[Float[np.ndarray, "M K"]] = []
    pictures: dict[str, dict[str, np.ndarray]] = {}
    for result in found:
        scan, views, inferred = result
        evaluator.add(Truth.of(scan, views), inferred)
        verdict = None if calibration is None else calibration.label(inferred.score)
        rows.append(ScoreRow(scan.key, scan.label, scan.defect, inferred.score, verdict))
        if inferred.usage is not None:
            usage.append(inferred.usage)
        fused = shrink(views.to_scan(inferred.fused))
        write_array(folder.map_of(scan.key), fused.astype(np.float32))
        pictures[scan.key] = pictures_of(result, model.config.modalities)
        if advance is not None:
            advance()
    figures, curves = evaluator.figures(CURVE_POINTS)
    for key in choose_shown(rows):
        write_arrays(folder.picture_of(key), pictures[key])
    place = folder.path
    write_whole(place / layout.SCORES, write_scores(rows, provenance))
    write_json(place / layout.CURVES, curves_document(read_curves(dict(curves)), provenance))
    if usage:
        mean = np.mean(usage, axis=0).astype(float).tolist()
        shares = dict(zip(model.config.modalities, mean, strict=True))
        write_json(place / layout.USAGE, usage_document(shares, provenance))
    if calibration is not None:
        write_json(place / layout.CALIBRATION, calibration_document(calibration, provenance))
    # Last: it says that all is there.
    write_json(place / layout.METRICS, figures_document(figures, provenance))
    return Results(figures, rows)


def pictures_of(result: ScanResult, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Small pictures of a scan: rgb, normals and mask uint8, `map_<modality>` float16."""
    scan, views, inferred = result
    found: dict[str, np.ndarray] = {}
    if scan.rgb is not None:
        found["rgb"] = shrink(scan.rgb)
    if views.normals is not None:
        channels = [views.to_scan(views.normals[..., axis].copy()) for axis in range(3)]
        found["normals"] = shrink(np.rint(np.stack(channels, -1) * 255).astype(np.uint8))
    if scan.mask is not None:
        found["mask"] = shrink((scan.mask > 0).astype(np.uint8) * np.uint8(255), nearest=True)
    for name, array in zip(modalities, inferred.maps, strict=True):
        small = shrink(views.to_scan(array)).astype(np.float16)
        found[f"{layout.MAP_PREFIX}{name}"] = small
    return found


def shrink(
    array: Shaped[np.ndarray, "H W *c"], nearest: bool = False
) -> Shaped[np.ndarray, "h w *c"]:
    """The picture with its longest side at most `SIDE`; the same if it is."""
    height, width = array.shape[:2]
    share = SIDE / max(height, width)
    if share >= 1:
        return array
    size = (max(1, round(width * share)), max(1, round(height * share)))
    way = Image.Resampling.NEAREST if nearest else Image.Resampling.BOX
    return np.asarray(Image.fromarray(array).resize(size, way))


def choose_shown(rows: list[ScoreRow]) -> list[str]:
    """Keys of the scans whose pictures are kept."""
    chosen: list[str] = []
    for label in (1, 0, None):
        ranked = sorted((row for row in rows if row.label == label), key=lambda row: row.score)
        if ranked:
            places = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)
            chosen += [ranked[place].key for place in places]
    return chosen[: 2 * SHOWN]
