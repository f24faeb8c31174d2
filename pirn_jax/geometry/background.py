"""Which pixels show the object: the plane it lies on, found and removed.

Source: M3DM's preprocessing, which the paper cites for "background pixels are removed": a plane by
    RANSAC to the points of the 10-pixel border, points within 5 mm of it removed, DBSCAN, the
    largest cluster kept. `method="open3d"` is that, constant by constant.
Differs from the paper: nothing is done in place; the noise label of DBSCAN cannot win; a border in
    which most points lie on no common plane removes nothing, and says so; unmeasured pixels inside
    the object belong to it, so that its RGB is not perforated. `method="grid"` finds the same plane
    by a seeded RANSAC of its own, and clusters by walking the pixel grid instead of space.

Dimension letters: H, W the pixels of the scan; n border points; T trial planes.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.open3d_import import load_open3d
from pirn_jax.geometry.points import GeometryWarning, measured

BORDER = 10
"""Pixels: the width of the border in which only background is expected."""
PLANE_TOLERANCE = 0.004
"""Metres: border points this near to a plane vote for it."""
PLANE_CLEARANCE = 0.005
"""Metres: points nearer to the plane than this are background."""
CLUSTER_DISTANCE = 0.006
"""Metres: points this near to each other belong together."""
CLUSTER_POINTS = 30
"""Points within `CLUSTER_DISTANCE` that make a point the core of a cluster (DBSCAN). Scans so
coarse that a plane facing the sensor has fewer than twice as many: half of what it has ("grid")."""
PLANE_SHARE = 0.5
"""A plane holds at least this share of the border's points, or there is no plane."""
GOES_ON = 0.5
"""The part itself is the plane where points off it are at least half as common at the border as
inside: what stands on a plane leaves the border clean. Measured: 0 on every generated category,
0.11-0.13 on structured-light scans of bins, 0.42 and 0.49 on noisy RGB-D scans of tables; 0.64-1.35
on good squares of road."""

_RANSAC_SAMPLE, _RANSAC_TRIALS = 50, 1000  # M3DM's, for Open3D's RANSAC
_TRIALS, _REFITS, _JURY = 500, 200, 4000  # ours: planes through three points, fits, judges


class Background(NamedTuple):
    """The outcome of looking for the object.

    Attributes:
        object: the pixels that show the object, whether each was measured or not.
        plane: (a, b, c, d) with ax + by + cz + d = 0, (a, b, c) of length 1, in metres; or None.
        reason: why nothing was removed, or "".
    """

    object: Bool[np.ndarray, "H W"]
    plane: Float[np.ndarray, " 4"] | None
    reason: str


def remove_background(
    xyz: Float[np.ndarray, " ..."],
    rgb: UInt8[np.ndarray, " ..."] | None = None,
    seed: int = 0,
    method: str = "grid",
) -> Bool[np.ndarray, "H W"]:
    """The pixels that show the object, by `find_object`; warns where it had to keep everything.

    Args:
        xyz: points (H, W, 3) in metres; all-zero or non-finite where nothing was measured.
        rgb: the photograph (H, W, 3) on the same grid, or None; the decision is geometry's alone.
        seed: of the random choices; the same seed gives the same pixels.
        method: "grid" or "open3d".

    Returns:
        True where the object is; blacken `rgb` elsewhere. Nothing is changed in place.

    Raises:
        BadInputError: the shapes do not fit.
        ConfigError: no such method.
        MissingDependencyError: "open3d" where open3d cannot be imported.
    """
    if rgb is not None and rgb.shape != xyz.shape:
        raise BadInputError(
            f"rgb {rgb.shape} and points {xyz.shape} are on different pixel grids",
            "register the geometry to the photograph first",
        )
    found = find_object(xyz, seed=seed, method=method)
    if found.reason:
        warnings.warn(found.reason, GeometryWarning, stacklevel=2)
    return found.object


def choose_object(
    xyz: Float[np.ndarray, "H W 3"] | None,
    valid: Bool[np.ndarray, "H W"],
    background: str = "plane",
    mask: Bool[np.ndarray, " ..."] | None = None,
    seed: int = 0,
    method: str = "grid",
) -> Background:
    """The three ways to say what the object is: `--background plane|mask|none`.

    Args:
        xyz: points in metres, or None for a scan without geometry.
        valid: the pixels that carry a measurement.
        background: "plane": the object stands on a plane that is found and removed; a scan without
            points keeps everything. "mask": the object is where `mask` says, for fixtures and
            fixed cameras. "none": every pixel belongs to the object.
        mask: bool (H, W), True where the object is, for "mask" only.
        seed: of "plane".
        method: of "plane".

    Raises:
        BadInputError: the mask has another size than the scan.
        ConfigError: no such way, or a mask missing or given in vain.
    """
    if (background == "mask") != (mask is not None):
        given = "is missing" if mask is None else "is given"
        raise ConfigError(
            f"background={background!r}, but a mask {given}",
            'background="mask" and a mask come together',
        )
    everything = np.ones(valid.shape, bool)
    if background == "none":
        return Background(everything, None, "")
    if background == "mask" and mask is not None:
        if mask.shape != valid.shape:
            raise BadInputError(
                f"an object mask of {mask.shape} pixels for a scan of {valid.shape}",
                "draw the mask on the scan's own pixels",
            )
        return Background(mask.copy(), None, "")
    if background == "plane":
        if xyz is None:
            return Background(everything, None, "no points: nothing removed")
        return find_object(np.where(valid[..., None], xyz, 0), seed=seed, method=method)
    raise ConfigError(f"no background {background!r}", "choose plane, mask, or none")


def find_object(
    xyz: Float[np.ndarray, " ..."], *, seed: int = 0, method: str = "grid"
) -> Background:
    """Removes the plane under the object and all but the largest connected rest.

    Args:
        xyz: points (H, W, 3) in metres; all-zero or non-finite where nothing was measured.
        seed: of the random choices.
        method: "grid" or "open3d".

    Returns:
        The object's pixels. Everything, with a reason, where the border shows no plane or nothing
        rises above it.
    """
    if xyz.ndim != 3 or xyz.shape[-1] != 3:
        raise BadInputError(
            f"remove_background needs points of shape (H, W, 3), got {xyz.shape}",
            "give the organised point cloud on its pixel grid",
        )
    if method not in ("grid", "open3d"):
        raise ConfigError(f"no method {method!r} for the background", 'choose "grid" or "open3d"')
    xyz, valid, border = _border(xyz)
    everything = np.ones(valid.shape, bool)
    plane, reason = _border_plane(xyz[border], seed, method)
    if plane is None:
        return Background(everything, None, reason)
    height = xyz @ plane[:3].astype(np.float32) + np.float32(plane[3])
    rising = valid & (np.abs(height) >= PLANE_CLEARANCE)
    kept = (_grid_cluster if method == "grid" else _open3d_cluster)(xyz, rising)
    if not kept.any():
        return Background(everything, plane, "nothing rises above the plane: nothing removed")
    return Background(kept | _enclosed(kept, valid), plane, "")


def stands_on_plane(xyz: Float[np.ndarray, " ..."], *, seed: int = 0, method: str = "grid") -> bool:
    """Whether a scan shows a part that stands on a plane, and not one that is a plane.

    A part that fills the picture, such as a sheet or a floor, has a plane at the border too; but
    that plane goes on through the middle, and what leaves it does so everywhere alike.

    Args:
        xyz: as for `find_object`.
        seed: of the random choices.
        method: "grid" or "open3d".
    """
    xyz, valid, border = _border(xyz)
    plane, _ = _border_plane(xyz[border], seed, method)
    if plane is None:
        return False
    off = np.abs(xyz @ plane[:3].astype(np.float32) + np.float32(plane[3])) >= PLANE_CLEARANCE
    inside = off[valid & ~border]
    return bool(inside.any() and off[border].mean() < GOES_ON * inside.mean())


def _border(
    xyz: Float[np.ndarray, "H W 3"],
) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Points with zeros where none was measured, those that were, and those of the border."""
    valid = measured(xyz)
    border = valid.copy()
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    return np.where(valid[..., None], xyz, 0).astype(np.float32), valid, border


def _border_plane(
    points: Float32[np.ndarray, "n 3"], seed: int, method: str
) -> tuple[Float[np.ndarray, " 4"] | None, str]:
    """The plane most of the border's points are near to; or None, and why there is none."""
    if len(points) < _RANSAC_SAMPLE:
        what = f"the {BORDER}-pixel border has only {len(points)} measured points"
        return None, f"{what}: no plane, nothing removed"
    points = points.astype(np.float64)
    plane = (_grid_plane if method == "grid" else _open3d_plane)(points, seed)
    share = float(np.mean(np.abs(points @ plane[:3] + plane[3]) < PLANE_TOLERANCE))
    if share < PLANE_SHARE:
        what = f"the best plane holds {share:.0%} of the border's points, not {PLANE_SHARE:.0%}"
        return None, f"{what}: no plane, nothing removed"
    return plane, ""


def _grid_plane(points: Float[np.ndarray, "n 3"], seed: int) -> Float[np.ndarray, " 4"]:
    """The plane most points are near to.

    Planes through three random points stand a chance among many outliers, but are as tilted as the
    noise of three points makes them. So the winner's followers are fitted, all of them and random
    samples of them, twice, and the plane with the most votes is kept.
    """
    random = np.random.default_rng(seed)
    centre = points.mean(0)
    points = points - centre
    jury = points[random.permutation(len(points))[:_JURY]]
    best = _elect(_fit(points[random.integers(0, len(points), (_TRIALS, 3))]), jury)
    for _ in range(2):
        near = points[np.abs(points @ best[:3] + best[3]) < PLANE_TOLERANCE]
        if len(near) < 3:
            break
        samples = near[random.integers(0, len(near), (_REFITS, _RANSAC_SAMPLE))]
        best = _elect(np.concatenate([_fit(near[None]), best[None], _fit(samples)]), jury)
    return np.append(best[:3], best[3] - best[:3] @ centre)


def _fit(groups: Float[np.ndarray, "T m 3"]) -> Float[np.ndarray, "T 4"]:
    """The least-squares plane of each group of points."""
    middle = groups.mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.swapaxes(groups - middle, 1, 2) @ (groups - middle))
    normals = axes[:, :, 0]
    return np.append(normals, -np.sum(normals * middle[:, 0], axis=1, keepdims=True), axis=1)


def _elect(
    planes: Float[np.ndarray, "T 4"], jury: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " 4"]:
    """The plane most points are near to, the first of several."""
    votes = np.abs(jury @ planes[:, :3].T + planes[:, 3]) < PLANE_TOLERANCE
    return planes[np.argmax(votes.sum(0))]


def _open3d_plane(points: Float[np.ndarray, "n 3"], seed: int) -> Float[np.ndarray, " 4"]:
    open3d = load_open3d()
    open3d.utility.random.seed(seed)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    plane, _ = cloud.segment_plane(PLANE_TOLERANCE, _RANSAC_SAMPLE, _RANSAC_TRIALS)
    return np.asarray(plane) / np.linalg.norm(plane[:3])


def _grid_cluster(
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


_Slices = tuple[slice, slice]


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
    number[core] = _components(np.concatenate(ties, axis=1), int(core.sum()))
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
    group = _components(np.concatenate(ties, axis=1), int(label.max()) + 1)
    return np.where(label >= 0, group[label], -1)


def _components(ties: Int[np.ndarray, "2 m"], total: int) -> Int[np.ndarray, " total"]:
    graph = coo_array((np.ones(ties.shape[1], np.int8), tuple(ties)), shape=(total, total))
    return connected_components(graph, directed=False)[1]


def _open3d_cluster(
    xyz: Float32[np.ndarray, "H W 3"], points: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    kept = np.zeros_like(points)
    if not points.any():
        return kept
    open3d = load_open3d()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz[points].astype(float)))
    label = np.asarray(cloud.cluster_dbscan(eps=CLUSTER_DISTANCE, min_points=CLUSTER_POINTS))
    if label.max() >= 0:  # -1 is noise
        kept[points] = label == np.argmax(np.bincount(label[label >= 0]))
    return kept


def _enclosed(
    kept: Bool[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Unmeasured pixels that touch neither a removed point nor the edge of the picture."""
    labelled: Any = ndimage.label(~valid, structure=np.ones((3, 3)))
    hole, count = labelled
    outside = np.pad(valid & ~kept, 1, constant_values=True)
    outside = ndimage.binary_dilation(outside, np.ones((3, 3)))[1:-1, 1:-1]
    open_hole = np.zeros(count + 1, bool)
    open_hole[hole[outside]] = True
    return ~valid & ~open_hole[hole]
