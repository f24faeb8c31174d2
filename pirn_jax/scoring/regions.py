"""Regions: what the threshold found, one by one, in the units of the part.

A region is an 8-connected component of the mask. With the point cloud it has a place in metres, an
area in mm² along the surface, length and width in mm in the local tangent plane, and a depth in mm
against the surface around it; without one it has pixels.

Differs from the paper: PIRN stops at the anomaly map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pirn_jax.errors import BadInputError
from pirn_jax.pixels import label, windows
from pirn_jax.scoring.surface import (
    local_surface,
    measured_pixels,
    pixel_areas,
    rectangle,
    surroundings,
)

_TELL = 1 << 22  # pixels of which a median is taken


class Region(NamedTuple):
    """One connected region of a mask. Fields in millimetres are None without a measurement.

    Attributes:
        box: (top, left, bottom, right) in pixels; bottom and right are the first beyond.
        pixels: how many.
        length_px: longer side of the smallest rectangle around it, pixels.
        width_px: its shorter side, pixels.
        peak: largest score in it.
        peak_pixel: (row, column) of that score.
        shares: each modality's part of the score's excess over the part's median, 1 in all: which
            modality spoke. Empty without modalities.
        measured_share: share of its pixels that carry a measurement, in [0, 1].
        centroid_m: (x, y, z) of its middle, metres, camera frame.
        area_mm2: area along the surface, mm²; holes in the measurement are bridged.
        length_mm: longer side of the smallest rectangle around it in the tangent plane, mm.
        width_mm: its shorter side, mm.
        deviation_mm: largest distance from the surface fitted around it, mm; > 0 towards the
            sensor.
        deviation_noise_mm: standard deviation of the surroundings about that surface, mm.
    """

    box: tuple[int, int, int, int]
    pixels: int
    length_px: float
    width_px: float
    peak: float
    peak_pixel: tuple[int, int]
    shares: dict[str, float]
    measured_share: float = 0.0
    centroid_m: tuple[float, float, float] | None = None
    area_mm2: float | None = None
    length_mm: float | None = None
    width_mm: float | None = None
    deviation_mm: float | None = None
    deviation_noise_mm: float | None = None


def find_regions(
    mask: Bool[np.ndarray, "H W"],
    anomaly_map: Float[np.ndarray, "H W"],
    *,
    modalities: Mapping[str, Float[np.ndarray, "H W"]] | None = None,
    usual: Mapping[str, float] | None = None,
    xyz: Float[np.ndarray, "H W 3"] | None = None,
    valid: Bool[np.ndarray, "H W"] | None = None,
) -> list[Region]:
    """The regions of a mask, the one with the highest peak first.

    Args:
        mask: pixels called defective (`decide(...).mask`).
        anomaly_map: scores, larger is more anomalous.
        modalities: each modality's map, for `shares`.
        usual: the median of each of these maps over the part; None: over all that is valid.
        xyz: organised points in metres, zeros where nothing was measured.
        valid: pixels that carry a measurement; None: those where `xyz` is not 0.

    Raises:
        BadInputError: for arrays of different size.
    """
    sized: dict[str, np.ndarray | None] = {"anomaly_map": anomaly_map, "xyz": xyz, "valid": valid}
    sized |= dict(modalities or {})
    for name, array in sized.items():
        if array is not None and array.shape[:2] != mask.shape:
            raise BadInputError(f"{name} has shape {array.shape}, the mask {mask.shape}")
    if not mask.any():
        return []
    if usual is None:
        usual = {name: _median(array, valid) for name, array in (modalities or {}).items()}
    measured, areas = np.zeros_like(mask), None
    if xyz is not None:
        measured = measured_pixels(xyz, valid)
        if (measured & mask).any():
            with suppress(BadInputError):  # no four neighbours were measured, so no size is known
                areas = pixel_areas(xyz, valid, mask)
    labels, count = label(mask)
    regions = []
    for number, window in enumerate(windows(labels, count), start=1):
        inside = labels[window] == number
        region = _in_pixels(window, inside, anomaly_map[window])
        excess = {
            name: float(np.mean(array[window], where=inside, dtype=np.float64)) - usual[name]
            for name, array in (modalities or {}).items()
        }
        region = region._replace(
            shares=_parts(excess), measured_share=float(np.mean(measured[window], where=inside))
        )
        if xyz is not None and areas is not None and region.measured_share > 0:
            region = region._replace(area_mm2=float(areas[window][inside].sum()))
            near = surroundings(window, region.pixels)
            surface = local_surface(
                labels[near] == number, xyz[near], measured[near], areas[near], mask[near]
            )
            if surface is not None:
                region = region._replace(
                    centroid_m=surface.centroid,
                    length_mm=surface.length,
                    width_mm=surface.width,
                    deviation_mm=surface.deviation,
                    deviation_noise_mm=surface.noise,
                )
        regions.append(region)
    return sorted(regions, key=lambda region: region.peak, reverse=True)


def _in_pixels(
    window: tuple[slice, slice],
    inside: Bool[np.ndarray, "h w"],
    scores: Float[np.ndarray, "h w"],
) -> Region:
    """What pixels alone say."""
    top, left = window[0].start, window[1].start
    # The outermost pixels of each row have the same hull as all of them.
    row = np.flatnonzero(inside.any(axis=1))
    first = inside[row].argmax(axis=1)
    last = inside.shape[1] - inside[row, ::-1].argmax(axis=1)
    corners = [[row + down, column] for down in (0, 1) for column in (first, last)]
    length, width = rectangle(np.concatenate(corners, axis=1).T.astype(np.float64))
    hottest = np.argmax(np.where(inside, scores, -np.inf))
    peak = np.unravel_index(hottest, inside.shape)
    return Region(
        box=(top, left, window[0].stop, window[1].stop),
        pixels=int(np.count_nonzero(inside)),
        length_px=length,
        width_px=width,
        peak=float(scores[peak]),
        peak_pixel=(top + int(peak[0]), left + int(peak[1])),
        shares={},
    )


def _median(array: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"] | None) -> float:
    """Of large maps every so many rows and columns tell."""
    step = max(1, math.isqrt(array.size // _TELL))
    array = array[::step, ::step]
    chosen = np.ones_like(array, bool) if valid is None else valid[::step, ::step]
    return float(np.median(array[chosen] if chosen.any() else array))


def _parts(excess: Mapping[str, float]) -> dict[str, float]:
    """Excesses as parts of 1; equal parts where none is above the median."""
    above = {name: max(0.0, float(value)) for name, value in excess.items()}
    total = sum(above.values())
    return {name: value / total if total else 1 / len(above) for name, value in above.items()}
