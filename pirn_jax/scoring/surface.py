"""The measured surface around a defect: areas, sizes and deviations in millimetres.

An organised point cloud gives every pixel a place; neighbours span small triangles. Nothing here
knows of scores. Points come in metres (camera frame, zeros where nothing was measured), results
leave in millimetres and square millimetres.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from pirn_jax.errors import BadInputError
from pirn_jax.pixels import distance_within, hull, label, nearest

JUMP = 25.0  # an edge this many times the median one (88 degrees steep) is a gap, not a surface
STEP = 8.0  # the same for the ring around a region, which is to lie on one face
GAP = 2  # pixels left out around a region before the ring begins: masks are seldom exact
TRIM = 3.5  # ring points this many robust standard deviations off the surface are dropped


def measured_pixels(
    xyz: Float[np.ndarray, "H W 3"], valid: Bool[np.ndarray, "H W"] | None = None
) -> Bool[np.ndarray, "H W"]:
    """Pixels with a measurement: finite, any coordinate non-zero, and valid where that is given."""
    measured = np.isfinite(xyz).all(axis=2) & (xyz != 0).any(axis=2)
    return measured if valid is None else measured & valid


def pixel_areas(
    xyz: Float[np.ndarray, "H W 3"],
    valid: Bool[np.ndarray, "H W"] | None = None,
    asked: Bool[np.ndarray, "H W"] | None = None,
) -> Float64[np.ndarray, "H W"]:
    """Surface area that each pixel stands for, in mm².

    Four neighbouring points span two triangles; a pixel's area is the mean over the up to four such
    cells around it. Cells that span a jump in depth are left out. A hole in the measurement is
    bridged by straight lines between its rims first (steep walls are what sensors lose, and their
    rims are known); a pixel that still has no cell takes the area of the nearest that has one.
    What lies deeper than the rims of a hole cannot be known and does not count.

    Args:
        xyz: points in metres.
        valid: pixels that count as measured, where more is known than `xyz != 0`.
        asked: pixels whose area is asked for; the others may be 0. None: all.

    Raises:
        BadInputError: where no four neighbours were measured.
    """
    points, measured = _bridged(xyz, measured_pixels(xyz, valid))
    a, b = points[:-1, :-1], points[:-1, 1:]
    c, d = points[1:, :-1], points[1:, 1:]
    complete = measured[:-1, :-1] & measured[:-1, 1:] & measured[1:, :-1] & measured[1:, 1:]
    longest = np.max([np.linalg.norm(e, axis=2) for e in (b - a, d - c, c - a, d - b)], axis=0)
    if complete.any():
        complete &= longest <= JUMP * np.median(longest[complete])
    if not complete.any():
        raise BadInputError(
            "no four neighbouring pixels of the scan were measured: areas are undefined",
            "check that xyz is the organised point cloud, in metres",
        )
    cell = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=2)
    cell += 0.5 * np.linalg.norm(np.cross(b - d, c - d), axis=2)
    total, cells = np.zeros(measured.shape), np.zeros(measured.shape)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            total[rows, columns] += np.where(complete, cell, 0.0)
            cells[rows, columns] += complete
    known = cells > 0
    areas = total / np.maximum(cells, 1)
    without = ~known if asked is None else asked & ~known
    areas[without] = areas[nearest(known, without)]
    return areas


def _bridged(
    xyz: Float[np.ndarray, "H W 3"], measured: Bool[np.ndarray, "H W"]
) -> tuple[Float64[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """Points in mm with holes filled along rows and columns, the shorter bridge weighing more."""
    points = np.where(measured[..., None], xyz, 0.0).astype(np.float64) * 1e3
    total, weight = np.zeros_like(points), np.zeros(measured.shape)
    for turned in (False, True):
        known, place = (measured.T, points.swapaxes(0, 1)) if turned else (measured, points)
        count = known.shape[1]
        index = np.arange(count)
        before = np.maximum.accumulate(np.where(known, index, -1), axis=1)
        after = np.where(known, index, count)[:, ::-1]
        after = np.minimum.accumulate(after, axis=1)[:, ::-1]
        row, column = np.nonzero((before >= 0) & (after < count) & ~known)
        low, high = before[row, column], after[row, column]
        share = ((column - low) / (high - low))[:, None]
        bridge = place[row, low] * (1 - share) + place[row, high] * share
        where = (column, row) if turned else (row, column)
        total[where] += bridge / (high - low)[:, None]
        weight[where] += 1.0 / (high - low)
    filled = weight > 0
    points[filled] = total[filled] / weight[filled][:, None]
    return points, measured | filled


class LocalSurface(NamedTuple):
    """A region in the frame of the surface around it.

    Attributes:
        centroid: area centre of the region's measured points, metres, camera frame.
        length: longer side of the smallest rectangle around the region in the tangent plane, mm.
        width: its shorter side, mm.
        deviation: largest distance of the region from the fitted surface, mm; > 0 towards the
            sensor (a bump), < 0 away from it (a dent); None where too little surface surrounds it.
        noise: robust standard deviation of the ring about the fitted surface, mm: a deviation of
            that order means nothing.
    """

    centroid: tuple[float, float, float]
    length: float
    width: float
    deviation: float | None
    noise: float | None


def local_surface(
    region: Bool[np.ndarray, "H W"],
    xyz: Float[np.ndarray, "H W 3"],
    measured: Bool[np.ndarray, "H W"],
    areas: Float[np.ndarray, "H W"],
    others: Bool[np.ndarray, "H W"],
) -> LocalSurface | None:
    """Centre, size and depth of a region relative to the surface in a ring around it.

    The median of the ring's normals is that of the tangent plane, pointing to the sensor at the
    origin. A quadratic surface is fitted to the ring (a plane, where the ring does not surround
    the region or has few points) by least squares, dropping outliers three times.

    Args:
        region: pixels of the region; the arrays need reach no further than `surroundings`.
        xyz: points in metres.
        measured: pixels with a measurement.
        areas: mm² of each pixel.
        others: all defective pixels, which no ring may use.

    Returns:
        None where no pixel of the region, or no neighbours of three pixels, were measured.
    """
    points = np.where(measured[..., None], xyz, 0.0).astype(np.float64) * 1e3
    reach = GAP + _ring_width(int(region.sum()))
    distance = distance_within(region, reach)
    ring = _nearest_surface(points, (distance > GAP) & (distance <= reach) & measured & ~others)
    inside = region & measured
    if not inside.any():
        return None
    centroid = np.average(points[inside], axis=0, weights=areas[inside] + 1e-12)

    normal = _median_normal(points, measured, ring if ring.sum() >= 12 else ring | inside)
    if normal is None:
        return None
    normal = normal if normal @ centroid < 0 else -normal
    tangent = np.linalg.svd(normal[None])[2][1:]

    place = (points - centroid) @ tangent.T  # H W 2, mm in the tangent plane
    length, width = _size(region, inside | ring, inside, place)
    deviation = noise = None
    if ring.sum() >= 6:
        height = (points - centroid) @ normal
        deviation, noise = _deviation(place[ring], height[ring], place[inside], height[inside])
    x, y, z = (float(value) / 1e3 for value in centroid)
    return LocalSurface((x, y, z), length, width, deviation, noise)


def _nearest_surface(
    points: Float64[np.ndarray, "h w 3"], ring: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The ring without what lies behind a jump in depth.

    Of the parts of the ring that hold a quarter of it or more, the one nearest to the sensor: a
    part hides its background.
    """
    if not ring.any():
        return ring
    jump = np.zeros(ring.shape, dtype=bool)
    steps = []
    for axis in (0, 1):
        both = np.delete(ring, -1, axis) & np.delete(ring, 0, axis)
        steps.append(np.where(both, np.linalg.norm(np.diff(points, axis=axis), axis=2), 0.0))
    known = np.concatenate([step[step > 0] for step in steps])
    if known.size == 0:
        return ring
    limit = STEP * np.median(known)
    jump[:-1] |= steps[0] > limit
    jump[1:] |= steps[0] > limit
    jump[:, :-1] |= steps[1] > limit
    jump[:, 1:] |= steps[1] > limit
    if not jump.any():
        return ring
    labels, _ = label(ring & ~jump, corners=False)  # by edges only: the ones that were measured
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    large = np.flatnonzero(sizes >= max(1, sizes.sum() // 4))
    depths = [np.median(np.linalg.norm(points[labels == part], axis=1)) for part in large]
    return labels == large[np.argmin(depths)] if len(large) else ring


def _median_normal(
    points: Float64[np.ndarray, "h w 3"],
    measured: Bool[np.ndarray, "h w"],
    where: Bool[np.ndarray, "h w"],
) -> Float64[np.ndarray, " 3"] | None:
    """Unit normal that most of these pixels agree on, to the right and below of each.

    A median, as a ring may hold a minority of another face, of an edge, or of the table.
    """
    complete = where[:-1, :-1] & measured[:-1, 1:] & measured[1:, :-1]
    right = (points[:-1, 1:] - points[:-1, :-1])[complete]
    down = (points[1:, :-1] - points[:-1, :-1])[complete]
    normals = np.cross(right, down)
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals[lengths > 0] / lengths[lengths > 0, None]
    if len(normals) == 0:
        return None
    normal = np.median(normals, axis=0)
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else None


def surroundings(window: tuple[slice, slice], pixels: int) -> tuple[slice, slice]:
    """The window of a region of so many pixels, widened to hold the ring around it."""
    margin = GAP + _ring_width(pixels) + 1
    rows, columns = window
    return (
        slice(max(0, rows.start - margin), rows.stop + margin),
        slice(max(0, columns.start - margin), columns.stop + margin),
    )


def _ring_width(pixels: int) -> int:
    """Half the radius of a disc of so many pixels, at least 4."""
    return max(4, round(0.5 * np.sqrt(pixels / np.pi)))


def _size(
    region: Bool[np.ndarray, "h w"],
    support: Bool[np.ndarray, "h w"],
    inside: Bool[np.ndarray, "h w"],
    place: Float64[np.ndarray, "h w 2"],
) -> tuple[float, float]:
    """Length and width of the region's pixels, whole pixels and not only their centres."""
    row, column = np.nonzero(support)
    grid = np.stack([row, column, np.ones_like(row)], axis=1).astype(np.float64)
    pixel_to_plane, *_ = np.linalg.lstsq(grid, place[support], rcond=None)  # 3 x 2
    row, column = np.nonzero(region)
    grid = np.stack([row, column, np.ones_like(row)], axis=1).astype(np.float64)
    centres = grid @ pixel_to_plane  # where a pixel was not measured
    seen = inside[region]
    centres[seen] = place[region][seen]
    half = 0.5 * pixel_to_plane[:2]
    corners = [centres + i * half[0] + j * half[1] for i in (-1, 1) for j in (-1, 1)]
    return rectangle(np.concatenate(corners))


def rectangle(points: Float64[np.ndarray, "n 2"]) -> tuple[float, float]:
    """Longer and shorter side of the rectangle of least area around points of the plane."""
    corners = hull(points)
    edges = np.roll(corners, -1, axis=0) - corners
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    extents = np.stack([np.ptp(corners @ axis.T, axis=0) for axis in (along, across)])
    best = np.argmin(extents.prod(axis=0))
    return float(extents[:, best].max()), float(extents[:, best].min())


def _deviation(
    ring: Float64[np.ndarray, "n 2"],
    ring_height: Float64[np.ndarray, " n"],
    inside: Float64[np.ndarray, "m 2"],
    height: Float64[np.ndarray, " m"],
) -> tuple[float, float]:
    """Largest signed residual of the region about a surface through the ring, and the ring's."""
    scale = np.abs(ring).max()
    angles = np.sort(np.arctan2(*(ring - inside.mean(axis=0)).T))
    opening = np.max(np.diff(np.append(angles, angles[0] + 2 * np.pi)))
    quadratic = opening < np.pi / 2 and len(ring) >= 24

    def terms(place: np.ndarray) -> np.ndarray:
        u, v = (place / scale).T
        columns = [np.ones_like(u), u, v]
        return np.stack(columns + ([u * u, u * v, v * v] if quadratic else []), axis=1)

    off = np.abs(ring_height - np.median(ring_height))
    kept = off <= TRIM * 1.4826 * np.median(off)  # another face, first of all: half of all at least
    matrix = terms(ring)
    for _ in range(4):
        surface, *_ = np.linalg.lstsq(matrix[kept], ring_height[kept], rcond=None)
        residual = ring_height - matrix @ surface
        noise = 1.4826 * float(np.median(np.abs(residual[kept])))
        narrower = np.abs(residual) <= max(TRIM * noise, 1e-9 * scale)
        if narrower.sum() < max(6, len(ring) // 2) or (narrower == kept).all():
            break
        kept = narrower
    off = height - terms(inside) @ surface
    return float(off[np.argmax(np.abs(off))]), noise
