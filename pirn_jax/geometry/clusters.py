"""The largest cluster of points: DBSCAN, in space or on the pixel grid.

Source: M3DM's preprocessing takes Open3D's DBSCAN (`open3d_cluster`).
Differs from it: the noise label of DBSCAN cannot win. `grid_cluster` looks for neighbours on the
    pixel grid instead of in space.

Dimension letters: H, W the pixels of the scan; m ties between groups.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int

from pirn_jax.geometry.open3d_import import load_open3d
from pirn_jax.pixels import connected

CLUSTER_DISTANCE = 0.006
"""Metres: points this near to each other belong together."""
CLUSTER_POINTS = 30
"""Points within `CLUSTER_DISTANCE` that make a point the core of a cluster (DBSCAN). Scans so
coarse that a plane facing the sensor has fewer than twice as many: half of what it has ("grid")."""

_Slices = tuple[slice, slice]


def grid_cluster(
    xyz: Float32[np.ndarray, "H W 3"], points: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """The largest cluster of `points`, as DBSCAN's, found on the pixel grid.

    A point with enough points near it is a core; cores near each other are tied. The largest tied
    set, with the points near any of its cores, is the cluster. "Near" is looked for at most 4
    pixels each way, in steps of several pixels on fine grids, where one pixel then stands for all
    that were stepped over; ties to the next core in a row or column make up for the steps.
    """
    rows, columns = np.nonzero(points)
    if not len(rows):
        return points
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    xyz, inside = xyz[box], points[box]
    beside = inside[:, 1:] & inside[:, :-1]
    pitch = np.linalg.norm(np.diff(xyz[..., :2], axis=1)[beside], axis=-1)
    pitch = pitch[pitch > 0]  # geometry registered to a finer photograph repeats its points
    finest, typical = np.percentile(pitch, (5, 50)) if len(pitch) else (np.inf, np.inf)
    enough = min(CLUSTER_POINTS, np.pi / 2 * (CLUSTER_DISTANCE / typical) ** 2)
    stride = max(1, int(CLUSTER_DISTANCE / finest / 4))
    pairs = _near_pairs(xyz, inside, CLUSTER_DISTANCE / finest, stride)

    neighbours = np.zeros(inside.shape, np.float32)
    for here, there, near in pairs:
        neighbours[here] += near
        neighbours[there] += near
    core = inside & (1 + stride**2 * neighbours >= enough)
    if not core.any():
        return np.zeros_like(points)
    label = _tie_lines(xyz, core)
    label = _tie_groups(label, [(label[h], label[t], near) for h, t, near in pairs])
    largest = core & (label == np.argmax(np.bincount(label[core])))
    cluster = largest.copy()
    for here, there, near in pairs:
        cluster[here] |= near & largest[there]
        cluster[there] |= near & largest[here]
    kept = np.zeros_like(points)
    kept[box] = cluster
    return kept


def open3d_cluster(
    xyz: Float32[np.ndarray, "H W 3"], points: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """The largest cluster of `points` by Open3D's DBSCAN."""
    kept = np.zeros_like(points)
    if not points.any():
        return kept
    open3d = load_open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz[points].astype(float)))
    label = np.asarray(cloud.cluster_dbscan(eps=CLUSTER_DISTANCE, min_points=CLUSTER_POINTS))
    if label.max() >= 0:  # -1 is noise
        kept[points] = label == np.argmax(np.bincount(label[label >= 0]))
    return kept


def _near_pairs(
    xyz: Float32[np.ndarray, "H W 3"], inside: Bool[np.ndarray, "H W"], reach: float, stride: int
) -> list[tuple[_Slices, _Slices, Bool[np.ndarray, "_ _"]]]:
    """For every offset up to `reach` pixels: both partners' pixels, and which pairs are near."""
    steps = int(reach / stride)
    planes = [np.ascontiguousarray(xyz[..., axis]) for axis in range(3)]
    pairs = []
    for down in range(steps + 1):
        for right in range(-steps, steps + 1):
            if (down, right) <= (0, 0) or (down**2 + right**2) * stride**2 > reach**2:
                continue
            here, there = _overlap(inside.shape, down * stride, right * stride)
            distance = sum((plane[here] - plane[there]) ** 2 for plane in planes)
            near = distance < np.float32(CLUSTER_DISTANCE**2)
            pairs.append((here, there, near & inside[here] & inside[there]))
    return pairs


def _overlap(
    shape: tuple[int, ...], down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the pixels that have a partner (down ≥ 0, right) away, and of their partners."""
    height, width = shape
    rows, partner_rows = slice(0, max(0, height - down)), slice(min(height, down), height)
    left, shift = max(0, -right), max(0, right)
    columns = slice(min(width, left), max(min(width, left), width - shift))
    partner_columns = slice(min(width, shift), max(min(width, shift), width - left))
    return (rows, columns), (partner_rows, partner_columns)


def _tie_lines(
    xyz: Float32[np.ndarray, "H W 3"], core: Bool[np.ndarray, "H W"]
) -> Int[np.ndarray, "H W"]:
    """Groups of cores, each tied to the next in its row and column; -1 where there is no core.

    A neighbouring pixel is tied if the depths differ by less than `CLUSTER_DISTANCE`, the next
    core across a gap if the two are nearer than that in space.
    """
    number = np.full(core.shape, -1)
    number[core] = np.arange(core.sum())
    ties = []
    for mask, names, where in ((core, number, xyz), (core.T, number.T, xyz.transpose(1, 0, 2))):
        line, position = np.nonzero(mask)
        name, step = names[mask], np.diff(where[mask], axis=0)
        adjacent = np.diff(position) == 1
        near = np.where(adjacent, np.abs(step[:, 2]), np.linalg.norm(step, axis=1))
        tied = (np.diff(line) == 0) & (near < CLUSTER_DISTANCE)
        ties.append(np.stack([name[:-1][tied], name[1:][tied]]))
    number[core] = connected(np.concatenate(ties, axis=1), int(core.sum()))
    return number


def _tie_groups(
    label: Int[np.ndarray, "H W"],
    pairs: list[tuple[Int[np.ndarray, "_ _"], Int[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]],
) -> Int[np.ndarray, "H W"]:
    """Joins the groups of which two cores are near each other."""
    ties = [np.zeros((2, 0), label.dtype)]
    for one, other, near in pairs:
        joins = near & (one != other) & (one >= 0) & (other >= 0)
        ties.append(np.stack([one[joins], other[joins]]))
    group = connected(np.concatenate(ties, axis=1), int(label.max()) + 1)
    return np.where(label >= 0, group[label], -1)
