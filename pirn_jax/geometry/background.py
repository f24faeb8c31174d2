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
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
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
"""Points within `CLUSTER_DISTANCE` that make a point the core of a cluster (DBSCAN)."""
PLANE_SHARE = 0.5
"""A plane holds at least this share of the border's points, or there is no plane."""

_RANSAC_SAMPLE, _RANSAC_TRIALS = 50, 1000  # M3DM's, for Open3D's RANSAC
_TRIALS, _JURY = 500, 1000  # ours: planes through three points, judged by this many points


class Background(NamedTuple):
    """The outcome of looking for the object.

    Attributes:
        object: the pixels that show the object, whether each was measured or not.
        plane: (a, b, c, d) with ax + by + cz + d = 0, (a, b, c) of length 1, in metres; or None.
        reason: why nothing was removed, or "".
    """

    object: Bool[np.ndarray, "H W"]
    plane: Float[np.ndarray, "4"] | None
    reason: str


def remove_background(
    xyz: Float[np.ndarray, "H W 3"],
    rgb: UInt8[np.ndarray, "H W 3"] | None = None,
    seed: int = 0,
    method: str = "grid",
) -> Bool[np.ndarray, "H W"]:
    """The pixels that show the object, by `find_object`; warns where it had to keep everything.

    Args:
        xyz: points in metres; all-zero or non-finite where nothing was measured.
        rgb: the photograph on the same grid, or None; the decision is geometry's alone.
        seed: of the random choices; the same seed gives the same pixels.
        method: "grid" or "open3d".

    Returns:
        True where the object is; blacken `rgb` elsewhere. Nothing is changed in place.

    Raises:
        BadInputError: the shapes do not fit.
        ConfigError: no such method.
        MissingDependencyError: "open3d" where open3d cannot be imported.
    """
    if rgb is not None and rgb.shape[:2] != xyz.shape[:2]:
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
    mask: Bool[np.ndarray, "H W"] | None = None,
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
        mask: True where the object is, for "mask" only.
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
    xyz: Float[np.ndarray, "H W 3"], *, seed: int = 0, method: str = "grid"
) -> Background:
    """Removes the plane under the object and all but the largest connected rest.

    Args:
        xyz: points in metres; all-zero or non-finite where nothing was measured.
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
    valid = measured(xyz)
    xyz = np.where(valid[..., None], xyz, 0).astype(np.float32)
    border = valid.copy()
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    everything = np.ones(valid.shape, bool)

    points = xyz[border].astype(np.float64)
    if len(points) < _RANSAC_SAMPLE:
        what = f"the {BORDER}-pixel border has only {len(points)} measured points"
        return Background(everything, None, f"{what}: no plane, nothing removed")
    plane = (_grid_plane if method == "grid" else _open3d_plane)(points, seed)
    share = float(np.mean(np.abs(points @ plane[:3] + plane[3]) < PLANE_TOLERANCE))
    if share < PLANE_SHARE:
        what = f"the best plane holds {share:.0%} of the border's points, not {PLANE_SHARE:.0%}"
        return Background(everything, None, f"{what}: no plane, nothing removed")

    height = xyz @ plane[:3].astype(np.float32) + np.float32(plane[3])
    rising = valid & (np.abs(height) >= PLANE_CLEARANCE)
    kept = (_grid_cluster if method == "grid" else _open3d_cluster)(xyz, rising)
    if not kept.any():
        return Background(everything, plane, "nothing rises above the plane: nothing removed")
    return Background(kept | _enclosed(kept, valid), plane, "")


def _grid_plane(points: Float[np.ndarray, "n 3"], seed: int) -> Float[np.ndarray, "4"]:
    """The plane most points are near to, fitted to all of these by least squares.

    A plane through three random points is judged by a random thousand; the winner is refitted to
    the points near it until these no longer change.
    """
    random = np.random.default_rng(seed)
    centre = points.mean(0)
    points = points - centre
    corners = points[random.integers(0, len(points), (_TRIALS, 3))]
    jury = points[random.permutation(len(points))[:_JURY]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    normals[length > 0] /= length[length > 0, None]
    distance = jury @ normals.T - np.sum(normals * corners[:, 0], axis=1)  # (jury, T)
    votes = np.sum(np.abs(distance) < PLANE_TOLERANCE, axis=0)
    votes[length == 0] = 0  # three points on a line
    best = int(np.argmax(votes))
    normal, offset = normals[best], -normals[best] @ corners[best, 0]
    near = np.abs(points @ normal + offset) < PLANE_TOLERANCE
    for _ in range(10):
        if near.sum() < 3:
            break
        middle = points[near].mean(0)
        _, axes = np.linalg.eigh(np.cov(points[near].T))
        normal, offset = axes[:, 0], -axes[:, 0] @ middle
        before, near = near, np.abs(points @ normal + offset) < PLANE_TOLERANCE
        if np.array_equal(before, near):
            break
    return np.append(normal, offset - normal @ centre)


def _open3d_plane(points: Float[np.ndarray, "n 3"], seed: int) -> Float[np.ndarray, "4"]:
    open3d = load_open3d()
    open3d.utility.random.seed(seed)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    plane, _ = cloud.segment_plane(PLANE_TOLERANCE, _RANSAC_SAMPLE, _RANSAC_TRIALS)
    return np.asarray(plane) / np.linalg.norm(plane[:3])


def _grid_cluster(
    xyz: Float32[np.ndarray, "H W 3"], points: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """The largest set of `points` connected along rows and columns.

    Each point is tied to the next one in its row and in its column, across unmeasured pixels as
    well: where the next is a neighbouring pixel, if the two differ by less than
    `CLUSTER_DISTANCE` in depth; across a gap, if they are nearer than that in space.
    """
    number = np.cumsum(points.ravel()).reshape(points.shape) - 1
    total = int(points.sum())
    if not total:
        return points
    ties = []
    for swap in (False, True):
        mask, order, where = (
            (points.T, number.T, xyz.transpose(1, 0, 2)) if swap else (points, number, xyz)
        )
        line, position = np.nonzero(mask)
        node, location = order[mask], where[mask]
        step = np.diff(location, axis=0)
        adjacent = np.diff(position) == 1
        near = np.where(adjacent, np.abs(step[:, 2]), np.linalg.norm(step, axis=1))
        tied = (np.diff(line) == 0) & (near < CLUSTER_DISTANCE)
        ties.append(np.stack([node[:-1][tied], node[1:][tied]]))
    start, end = np.concatenate(ties, axis=1)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(total, total))
    _, label = connected_components(graph, directed=False)
    kept = np.zeros_like(points)
    kept[points] = label == np.argmax(np.bincount(label))
    return kept


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
    hole, count = ndimage.label(~valid, structure=np.ones((3, 3)))
    outside = np.pad(valid & ~kept, 1, constant_values=True)
    outside = ndimage.binary_dilation(outside, np.ones((3, 3)))[1:-1, 1:-1]
    open_hole = np.zeros(count + 1, bool)
    open_hole[hole[outside]] = True
    return ~valid & ~open_hole[hole]
