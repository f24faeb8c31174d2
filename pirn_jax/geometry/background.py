"""Which pixels carry a point, and which show the object: the plane it lies on, found and removed.

Source: M3DM's preprocessing, which the paper cites for "background pixels are removed": a plane by
    RANSAC to the points of the 10-pixel border, points within 5 mm of it removed, DBSCAN, the
    largest cluster kept. `method="open3d"` is that, constant by constant.
Differs from the paper: nothing is done in place; a border in which most points lie on no common
    plane removes nothing, and says so; unmeasured pixels inside the object belong to it, so that
    its RGB is not perforated. `method="grid"` finds the same plane by a seeded RANSAC of its own,
    and clusters by walking the pixel grid instead of space (`clusters.py`).

Dimension letters: H, W the pixels of the scan; n border points; T trial planes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.clusters import grid_cluster, open3d_cluster
from pirn_jax.geometry.open3d_import import load_open3d
from pirn_jax.pixels import holes

BORDER = 10
"""Pixels: the width of the border in which only background is expected."""
PLANE_TOLERANCE = 0.004
"""Metres: border points this near to a plane vote for it."""
PLANE_CLEARANCE = 0.005
"""Metres: points nearer to the plane than this are background."""
PLANE_SHARE = 0.5
"""A plane holds at least this share of the border's points, or there is no plane."""
GOES_ON = 0.5
"""The part itself is the plane where points off it are at least half as common at the border as
inside: what stands on a plane leaves the border clean. Measured: 0 on every generated category,
0.11-0.13 on structured-light scans of bins, 0.42 and 0.49 on noisy RGB-D scans of tables; 0.64-1.35
on good squares of road."""
WITNESSES = 10
"""Good scans that are asked whether a category's parts stand on a plane."""

_RANSAC_SAMPLE, _RANSAC_TRIALS = 50, 1000  # M3DM's, for Open3D's RANSAC
_TRIALS, _REFITS, _JURY = 500, 200, 4000  # ours: planes through three points, fits, judges


class GeometryWarning(UserWarning):
    """A result is usable, but not what was asked for: a fallback was taken, and this says which."""


class Background(NamedTuple):
    """The outcome of looking for the object.

    Attributes:
        object: the pixels that show the object, whether each was measured or not.
        plane: (a, b, c, d) with ax + by + cz + d = 0, (a, b, c) of length 1, in metres; or None.
        reason: why nothing was removed, or "".
        stands: the scan shows a part that stands on a plane, and not one that is a plane. A part
            that fills the picture, such as a sheet or a floor, has a plane at the border too; but
            that plane goes on through the middle, and what leaves it does so everywhere alike.
            False where no plane was found, or none was looked for.
    """

    object: Bool[np.ndarray, "H W"]
    plane: Float[np.ndarray, " 4"] | None
    reason: str
    stands: bool


@runtime_checkable
class Witness(Protocol):
    """What knows whether a scan's part stands on a plane: `Background`, `Prepared`."""

    @property
    def stands(self) -> bool:
        """As in `Background`."""
        ...


def measured(xyz: Float[np.ndarray, "*batch H W 3"]) -> Bool[np.ndarray, "*batch H W"]:
    """Pixels that carry a point: all coordinates finite, and not all of them zero.

    Differs from the paper: its code base asks for three non-zero coordinates, which also drops the
        real points of the row and column through the optical axis.
    """
    return np.isfinite(xyz).all(-1) & (xyz != 0).any(-1)


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


def background_of(found: Iterable[Witness]) -> Literal["plane", "none"]:
    """What the background "auto" is for a category, by what was found with "plane".

    Args:
        found: of good scans with points, `WITNESSES` of them at most; each has a vote. Scans
            without points cannot tell: leave them out.

    Returns:
        "none" where most of them show a part that itself is the plane at the border.
    """
    votes = [witness.stands for witness in found]
    return "plane" if 2 * sum(votes) >= len(votes) else "none"


def choose_object(
    xyz: Float[np.ndarray, "H W 3"] | None,
    valid: Bool[np.ndarray, "H W"],
    background: str = "plane",
    seed: int = 0,
    method: str = "grid",
) -> Background:
    """The two ways to say what the object is: `--background plane|none`.

    Args:
        xyz: points in metres, or None for a scan without geometry.
        valid: the pixels that carry a measurement.
        background: "plane": the object stands on a plane that is found and removed; a scan without
            points keeps everything. "none": every pixel belongs to the object.
        seed: of "plane".
        method: of "plane".

    Raises:
        ConfigError: no such way.
    """
    if background == "none":
        return Background(np.ones(valid.shape, bool), None, "", False)
    if background == "plane":
        if xyz is None:
            everything = np.ones(valid.shape, bool)
            return Background(everything, None, "no points: nothing removed", False)
        return find_object(np.where(valid[..., None], xyz, 0), seed=seed, method=method)
    raise ConfigError(f"no background {background!r}", "choose plane or none")


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
        return Background(everything, None, reason, False)
    height = xyz @ plane[:3].astype(np.float32) + np.float32(plane[3])
    off = np.abs(height) >= PLANE_CLEARANCE
    inside = off[valid & ~border]
    stands = bool(inside.any() and off[border].mean() < GOES_ON * inside.mean())
    kept = (grid_cluster if method == "grid" else open3d_cluster)(xyz, valid & off)
    if not kept.any():
        reason = "nothing rises above the plane: nothing removed"
        return Background(everything, plane, reason, stands)
    return Background(kept | holes(kept, valid), plane, "", stands)


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
