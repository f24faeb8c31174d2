"""The scans shown in the report: arrays of `pictures/*.npz` and `maps/*.npy` → JPEG data URIs.

Colours mean the same everywhere: all maps of a kind share one colour scale, see `scales`; the truth
is filled in the accent colour; a white line encloses what lies above the threshold.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.report.contents import Model
from pirn_jax.report.heatmap import colour_map
from pirn_jax.report.layout import MAP_PREFIX
from pirn_jax.report.tables import ScoreRow
from pirn_jax.scans.formats.arrays import read_array
from pirn_jax.scans.formats.files import File, Limits, open_archive

SIDE = 256
"""Longest side of a picture, pixels."""

_LIMITS = Limits(pixels=4_000_000, memory=128 << 20)  # more is no picture of this program
_TRUTH = np.array([234, 88, 12], np.float32)  # the accent, between its light and dark variants


class Shown(NamedTuple):
    """One scan to be shown.

    Attributes:
        row: its line of `scores.csv`.
        rank: 1 for the largest score among the scans of its label.
        rgb: photograph, uint8 (h, w, 3), or None.
        normals: normal map in colours, uint8 (h, w, 3), or None.
        mask: truth, bool (h, w), or None.
        maps: "fused" and the modalities' maps, float32 (h, w).
    """

    row: ScoreRow
    rank: int
    rgb: UInt8[np.ndarray, "h w 3"] | None
    normals: UInt8[np.ndarray, "h w 3"] | None
    mask: Bool[np.ndarray, "h w"] | None
    maps: dict[str, Float32[np.ndarray, "h w"]]


class Tile(NamedTuple):
    """One picture of a scan: its caption and its data URI."""

    name: str
    uri: str
    width: int
    height: int


def select(model: Model, most: int, notes: list[str]) -> list[Shown]:
    """Scans with pictures: defective ones first, hardest first, then good ones, hardest first.

    Hard means a defective scan with a low score, or a good one with a high score. Where there are
    more than `most`, evenly spaced ranks are kept, the first and last of each kind among them.

    Args:
        model: the model.
        most: scans at most; at least 2.
        notes: damaged files are named here.
    """
    found = []
    for label in (1, 0, None):
        rows = sorted((r for r in model.rows if r.label == label), key=lambda r: -r.score)
        ranked = [
            (rank, row)
            for rank, row in enumerate(rows, 1)
            if model.folder.picture_of(row.key).is_file()
        ]
        found.append(ranked[::-1] if label == 1 else ranked)
    kinds = [kind for kind in found if kind]
    shown = []
    for kind in kinds:
        room = min(len(kind), max(1, most // len(kinds)))
        for place in np.unique(np.linspace(0, len(kind) - 1, room).round().astype(int)):
            rank, row = kind[place]
            scan = _read(model, rank, row, notes)
            shown += [] if scan is None else [scan]
    return shown


def scales(shown: Sequence[Shown], threshold: float | None) -> dict[str, tuple[float, float]]:
    """Black and brightest value of each map, one pair for all scans shown.

    Black is the ordinary: the value a quarter of the pixels stay below. The fused map's brightest
    value lies half as far again above it as the threshold, so that all maps can be compared with
    it; without a threshold, and for the modalities, it is the value one pixel in 500 exceeds.
    """
    found = {}
    for name in {name: None for scan in shown for name in scan.maps}:
        pixels = np.concatenate([s.maps[name].reshape(-1) for s in shown if name in s.maps])
        low, high = (float(value) for value in np.quantile(pixels, (0.25, 0.998)))
        if name == "fused" and threshold is not None and threshold > low:
            high = low + 1.5 * (threshold - low)
        found[name] = (low, high)
    return found


def tiles(
    scan: Shown, scale: Mapping[str, tuple[float, float]], threshold: float | None
) -> list[Tile]:
    """The pictures of one scan, in the order they are shown.

    Args:
        scan: the scan.
        scale: from `scales`.
        threshold: what the fused map's outline is drawn at.
    """
    found = []
    if scan.rgb is not None:
        found.append(_tile("RGB", scan.rgb))
    if scan.normals is not None:
        found.append(_tile("normals", scan.normals))
    if scan.mask is not None:
        found.append(_tile("truth", _truth(scan)))
    names = sorted(scan.maps, key=lambda name: ({"fused": 0, "rgb": 1}.get(name, 2), name))
    if len(names) == 2 and "fused" in names:
        names = ["fused"]  # one modality: its map is the fused one
    for name in names:
        low, high = scale[name]
        coloured = colour_map(scan.maps[name], low, high)
        if name == "fused" and threshold is not None:
            coloured[_outline(scan.maps[name] > threshold)] = 255
        found.append(_tile("anomaly map" if name == "fused" else f"{name} map", coloured))
    return found


def _read(model: Model, rank: int, row: ScoreRow, notes: list[str]) -> Shown | None:
    path, fused = model.folder.picture_of(row.key), model.folder.map_of(row.key)
    try:
        with open_archive(path, _LIMITS) as archive:
            names = [name.removesuffix(".npy") for name in archive.members]
        arrays = {name: read_array(File(path), _LIMITS, name) for name in names}
        if fused.is_file():
            arrays[f"{MAP_PREFIX}fused"] = read_array(File(fused), _LIMITS)
    except BadInputError as error:
        notes.append(f"{model.folder.name}: picture of {row.key}: {error.problem}")
        return None
    maps = {
        name.removeprefix(MAP_PREFIX): _shrink(array)
        for name, array in arrays.items()
        if name.startswith(MAP_PREFIX) and array.dtype.kind == "f" and array.ndim == 2
    }
    return Shown(
        row,
        rank,
        _colours(arrays.get("rgb")),
        _colours(arrays.get("normals")),
        _mask(arrays.get("mask")),
        {name: array for name, array in maps.items() if np.abs(array).max() < 1e30},
    )


def _colours(array: np.ndarray | None) -> UInt8[np.ndarray, "h w 3"] | None:
    if array is None or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        return None
    image = Image.fromarray(array)
    image.thumbnail((SIDE, SIDE))
    return np.asarray(image)


def _mask(array: np.ndarray | None) -> Bool[np.ndarray, "h w"] | None:
    if array is None or array.ndim != 2:
        return None
    image = Image.fromarray((array > 0).astype(np.uint8))
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    return np.asarray(image) > 0


def _shrink(array: np.ndarray) -> Float32[np.ndarray, "h w"]:
    image = Image.fromarray(array.astype(np.float32))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _truth(scan: Shown) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph in dim grey, as bright for every scan, the defect in the accent colour."""
    assert scan.mask is not None
    height, width = scan.mask.shape
    base = scan.rgb if scan.rgb is not None else scan.normals
    grey = np.full((height, width), 60, np.float32)
    if base is not None:
        image = Image.fromarray(base).convert("L").resize((width, height))
        grey = np.asarray(image, np.float32)
        grey *= min(1.5, 110 / max(1.0, float(np.quantile(grey, 0.99))))  # dark ones stay visible
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[scan.mask] = 0.25 * picture[scan.mask] + 0.75 * _TRUTH
    return picture.clip(0, 255).astype(np.uint8)


def _outline(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a region that have a neighbour outside of it."""
    padded = np.pad(inside, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~inner


def _tile(name: str, picture: UInt8[np.ndarray, "h w 3"]) -> Tile:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=82, subsampling=0, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Tile(name, uri, picture.shape[1], picture.shape[0])
