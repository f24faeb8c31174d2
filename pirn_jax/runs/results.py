"""What one model says of the test scans, as files: `<category>/seed<k>/` of a run.

`metrics.json`, `scores.csv`, `curves.json`, `usage.json`, `calibration.json`, `maps/<key>.npy` (the
fused map of every scan) and `pictures/<key>.npz` (photograph, normals, truth and maps of some).
Pictures and maps have the scan's own shape, at most 256 pixels long. Every file says whether the
data was generated and the encoder a demo.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from pirn_jax.detector import PIRN
from pirn_jax.judging import Judged, Measurement
from pirn_jax.storage import write_json
from pirn_jax.scans import Scan
from pirn_jax.storage import write_whole

SIDE = 256
"""Longest side of maps and pictures, pixels."""
SHOWN = 6
"""Pictures of good, and of defective scans: best, worst, median and evenly spaced ranks."""
CURVE_POINTS = 200
COLUMNS = ("key", "label", "defect", "score", "pred_label")


class Row(NamedTuple):
    """A line of `scores.csv`; None is written as nothing."""

    key: str
    label: int | None
    defect: str
    score: float
    pred_label: int | None


def write_results(
    folder: Path,
    model: PIRN,
    scans: Iterable[Scan],
    marks: Mapping[str, Any],
    advance: Callable[[], None] | None = None,
) -> tuple[dict[str, float], list[Row]]:
    """Judge test scans and write what was found.

    Args:
        folder: `<category>/seed<k>/`; made if missing.
        model: trained, with or without a threshold.
        scans: to judge.
        marks: "data" and "demo_encoder", put into every file.
        advance: called after each scan.

    Returns:
        The figures and the scores.
    """
    threshold = None if model.calibration is None else model.calibration.threshold
    measurement = Measurement(threshold)
    rows: list[Row] = []
    usage: list[Float32[np.ndarray, "M K"]] = []
    pictures: dict[str, dict[str, np.ndarray]] = {}
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    for judged in model.judge(scans):
        measurement.add(judged)
        scan, views, outcome = judged
        verdict = None if threshold is None else int(outcome.score > threshold)
        rows.append(Row(scan.key, scan.label, scan.defect, outcome.score, verdict))
        if outcome.usage is not None:
            usage.append(outcome.usage)
        fused = shrink(views.to_scan(outcome.fused))
        _save_array(folder / "maps" / f"{file_name(scan.key)}.npy", fused)
        pictures[scan.key] = pictures_of(judged)
        if advance is not None:
            advance()
    figures, curves = measurement.figures(CURVE_POINTS)
    for key in _chosen(rows):
        _save_arrays(folder / "pictures" / f"{file_name(key)}.npz", pictures[key])
    write_whole(folder / "scores.csv", scores_table(rows, marks))
    write_json(folder / "curves.json", {**curves, **marks})
    if usage:
        mean = np.mean(usage, axis=0).astype(float).tolist()
        shares = dict(zip(model.config.modalities, mean, strict=True))
        write_json(folder / "usage.json", {**shares, **marks})
    if model.calibration is not None:
        write_json(folder / "calibration.json", {**model.calibration._asdict(), **marks})
    write_json(folder / "metrics.json", {**figures, **marks})  # last: says that all is there
    return figures, rows


def pictures_of(judged: Judged) -> dict[str, np.ndarray]:
    """Small pictures of a scan: rgb, normals and mask uint8, `map_<modality>` float16."""
    scan, views, outcome = judged
    found: dict[str, np.ndarray] = {}
    if scan.rgb is not None:
        found["rgb"] = shrink(scan.rgb)
    if views.normals is not None:
        channels = [views.to_scan(views.normals[..., axis].copy()) for axis in range(3)]
        found["normals"] = shrink(np.rint(np.stack(channels, -1) * 255).astype(np.uint8))
    if scan.mask is not None:
        found["mask"] = shrink((scan.mask > 0).astype(np.uint8) * np.uint8(255), nearest=True)
    for name, array in outcome.maps.items():
        found[f"map_{name}"] = shrink(views.to_scan(array)).astype(np.float16)
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


def file_name(key: str) -> str:
    """A scan's key as the name of a file."""
    return key.replace("/", "__").replace("\\", "__") or "scan"


def scores_table(
    rows: Iterable[Row], marks: Mapping[str, Any], first: Mapping[str, Any] | None = None
) -> bytes:
    """`scores.csv`, with the marks as last columns.

    Args:
        rows: its lines.
        marks: the same in every line.
        first: columns to begin each line with.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    before = dict(first or {})
    writer.writerow([*before, *COLUMNS, *marks])
    for row in rows:
        cells = ["" if value is None else value for value in row]
        writer.writerow([*before.values(), *cells, *marks.values()])
    return text.getvalue().encode()


def _chosen(rows: list[Row]) -> list[str]:
    chosen: list[str] = []
    for label in (1, 0, None):
        ranked = sorted((row for row in rows if row.label == label), key=lambda row: row.score)
        if ranked:
            places = np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)
            chosen += [ranked[place].key for place in places]
    return chosen[: 2 * SHOWN]


def _save_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    write_whole(path, buffer.getvalue())


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())
