"""What hangs together and what is near on a grid of pixels; numpy alone.

Connected parts, dilation, distances and hulls: what judging needs of `scipy.ndimage` and
`scipy.spatial`, so that a machine on the line, which has no use for the rest of SciPy, can do
without its 143 MB. Tests hold each to SciPy's.

Dimension letters: H, W pixels; m ties; n points.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32

_DIRECTIONS = 32  # in which the outermost points are taken before a hull is looked for
_AT_ONCE = 1 << 22  # distances


def connected(ties: Int[np.ndarray, "2 m"], total: int) -> Int[np.ndarray, " total"]:
    """The group of each of `total` things of which some are tied; groups count from 0.

    Everything starts as its own root. Roots hang themselves below the smallest root they are tied
    to, and paths are shortened, until no tie joins two of them: each round at least halves the
    roots that still have another to join.
    """
    root = np.arange(total)
    first, second = ties
    while len(first):
        low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
        joins = low != high
        first, second = first[joins], second[joins]
        np.minimum.at(root, high[joins], low[joins])
        while not np.array_equal(shorter := root[root], root):
            root = shorter
    return np.unique(root, return_inverse=True)[1]


def label(
    mask: Bool[np.ndarray, "H W"], *, corners: bool = True
) -> tuple[Int32[np.ndarray, "H W"], int]:
    """Numbers the connected parts of a mask from 1, in reading order; and how many there are.

    Runs of pixels along rows are tied where they touch those of the next row.

    Args:
        mask: what is numbered.
        corners: whether pixels that share a corner alone are connected.
    """
    height, width = mask.shape
    row, start, end = _runs(mask)
    stride = width + 2  # so that neither end of a row touches the next
    below = (row + 1) * stride
    reach = int(corners)
    first = np.searchsorted(row * stride + end, below + start - reach, "right")
    last = np.searchsorted(row * stride + start, below + end + reach, "left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(row)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    number = connected(np.stack([upper, lower]), len(row)) + 1
    steps = np.zeros((height, width + 1), np.int32)
    steps[row, start] = number
    steps[row, end] -= number.astype(np.int32)
    np.cumsum(steps, axis=1, out=steps)
    return steps[:, :-1], int(number.max(initial=0))


def windows(labels: Int32[np.ndarray, "H W"], count: int) -> list[tuple[slice, slice]]:
    """The bounding box of each part that `label` numbered."""
    row, start, end = _runs(labels > 0)
    number = labels[row, start] - 1
    found = []
    for first, last in ((row, row + 1), (start, end)):
        low, high = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
        np.minimum.at(low, number, first)
        np.maximum.at(high, number, last)
        found.append([slice(int(a), int(b)) for a, b in zip(low, high, strict=True)])
    return list(zip(*found, strict=True))


def _runs(mask: Bool[np.ndarray, "H W"]) -> tuple[Int[np.ndarray, " R"], ...]:
    """Of each run of pixels along a row: the row, the first column, the one after the last.

    Everything of an array's size is in bytes here: pictures may have 10^8 pixels.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).view(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    return row, start, np.nonzero(edges == -1)[1]


def holes(
    part: Bool[np.ndarray, "H W"], measured: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Unmeasured pixels inside the part: they hang together with neither its outside nor the edge.

    Args:
        part: measured pixels of it.
        measured: all that are.
    """
    gap, count = label(~measured)
    outside = np.pad(measured & ~part, 1, constant_values=True)
    outside = dilate(outside)[1:-1, 1:-1]
    is_open = np.zeros(count + 1, bool)
    is_open[gap[outside]] = True
    return ~measured & ~is_open[gap]


def dilate(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask and its 8 neighbours."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def erode(mask: Bool[np.ndarray, "H W"], times: int = 1) -> Bool[np.ndarray, "H W"]:
    """The pixels that lie, by steps to one of four neighbours, deeper in than so many.

    What lies beyond the picture is outside.
    """
    for _ in range(times):
        around = np.pad(mask, 1)
        across = around[1:-1, :-2] & around[1:-1, 2:]
        mask = mask & across & around[:-2, 1:-1] & around[2:, 1:-1]
    return mask


def _along_columns(mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """The row of the nearest pixel of the mask in the same column; far off where there is none."""
    height = mask.shape[0]
    rows = np.arange(height)[:, None]
    far = 4 * sum(mask.shape)
    above = np.maximum.accumulate(np.where(mask, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(mask, rows, far + height)[::-1], axis=0)[::-1]
    return np.where(rows - above <= below - rows, above, below)


def distance_within(
    mask: Bool[np.ndarray, "H W"], reach: float | int
) -> Float64[np.ndarray, "H W"]:
    """Distance of each pixel to the nearest of the mask; infinite where that is beyond `reach`."""
    height, width = mask.shape
    down = np.abs(_along_columns(mask) - np.arange(height)[:, None]).astype(np.float64)
    squared = down * down
    found = squared.copy()
    for right in range(1, min(math.floor(reach), width - 1) + 1):
        np.minimum(found[:, right:], squared[:, :-right] + right**2, out=found[:, right:])
        np.minimum(found[:, :-right], squared[:, right:] + right**2, out=found[:, :-right])
    found[found > reach * reach] = np.inf
    return np.sqrt(found)


def nearest(
    known: Bool[np.ndarray, "H W"], asked: Bool[np.ndarray, "H W"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Row and column of the known pixel nearest to each of those asked about, in reading order.

    Args:
        known: at least one.
        asked: each costs a look at every column.
    """
    column = np.arange(known.shape[1])
    there = _along_columns(known)
    rows, columns = np.nonzero(asked)
    found = np.empty(len(rows), np.intp)
    many = max(1, _AT_ONCE // len(column))
    for start in range(0, len(rows), many):
        some = slice(start, start + many)
        down = there[rows[some]] - rows[some, None]
        found[some] = (down**2 + (column - columns[some, None]) ** 2).argmin(axis=1)
    return there[rows, found], found


def hull(points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "corners 2"]:
    """Corners of the convex hull, counter-clockwise; of points on a line, its ends.

    Andrew's chain over the points that are not inside the polygon of the outermost ones.
    """
    points = np.asarray(points, np.float64)
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    outward = np.stack([np.cos(angles), np.sin(angles)])
    outer = points[(points @ outward).argmax(axis=0)]
    after = np.roll(outer, -1, axis=0)
    inside = np.ones(len(points), bool)
    size = np.ptp(points, axis=0).max(initial=0.0)
    for (x, y), (to_x, to_y) in zip(outer, after, strict=True):
        if (x, y) != (to_x, to_y):
            side = (to_x - x) * (points[:, 1] - y) - (to_y - y) * (points[:, 0] - x)
            inside &= side > 1e-9 * size * size
    ordered = np.unique(points[~inside], axis=0)
    if len(ordered) < 3:
        return ordered
    return np.array(_chain(ordered)[:-1] + _chain(ordered[::-1])[:-1])


def _chain(points: Float64[np.ndarray, "n 2"]) -> list[tuple[float, float]]:
    """One side of the hull of sorted points: from the first to the last, turning left."""
    kept: list[tuple[float, float]] = []
    for x, y in points.tolist():
        while len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            kept.pop()
        kept.append((x, y))
    return kept
