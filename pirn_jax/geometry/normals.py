"""Surface normals of an organised point cloud.

Source: the paper, appendix B.2, takes Open3D's plane fit to the 30 nearest neighbours of every
    point (`method="open3d"`, see `open3d_normals.py`). `method="grid"` fits the same plane, by the
    same smallest eigenvector of the local covariance, to neighbours taken from the pixel grid.
Differs from the paper: the default window is the disc of 29 pixels in a 7×7 window, which on a
    surface facing the sensor *is* the set of 30 nearest neighbours up to one. Neighbours across a
    depth edge are left out, where the nearest neighbours in space may reach across. The sign is
    decided per pixel by the line of sight instead of by propagation from point to point.

The arithmetic is in `plane_fits.py`. How a scan is sampled (`Sampling` there) is measured on the
scan itself: rays that meet in the origin, as a camera has them, or parallel ones, as a height map
has them. It gives the distance between neighbouring pixels, which the depth test is relative to,
and the direction the sensor lies in.

Dimension letters: H, W the pixels of the scan; `*batch` any leading dimensions.
"""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.background import GeometryWarning, measured
from pirn_jax.geometry.plane_fits import (
    WINDOW,
    fit_planes,
    measure_sampling,
    stride_of,
)

_LARGE = 1 << 22  # pixels; larger scans are fitted strip by strip


def surface_normals(
    xyz: Float[np.ndarray | Array, " ..."],
    valid: Bool[np.ndarray | Array, " ..."] | None = None,
    method: str = "grid",
    *,
    window: int = WINDOW,
    time_limit: float | int = 300.0,
) -> Float32[np.ndarray | Array, "*batch H W 3"]:
    """Unit normals of a scan, pointing towards the sensor.

    "Towards the sensor" means n·p < 0 for a camera at the origin. Where the points are no camera's
    (a height map: x and y do not depend on z), it means n_z < 0: `Scan` promises that z grows away
    from the sensor. For a map of heights *above* a table, z towards the sensor, every normal is
    therefore mirrored alike, which an anomaly detector does not notice.

    Args:
        xyz: points (*batch, H, W, 3) in metres, camera frame, z away from the sensor. Any unit
            gives the same normals.
        valid: pixels to use (*batch, H, W); by default those that are finite and not all zero.
        method: "grid" (here, JAX, batched, any device) or "open3d" (the paper's, slow).
        window: side of the window of "grid", odd, at least 3 pixels.
        time_limit: seconds "open3d" may take before it is stopped and the orientation towards the
            sensor is used in place of the tangent-plane propagation, with a `GeometryWarning`.

    Returns:
        Unit vectors, float32 (*batch, H, W, 3), zeros where undefined (no measurement, or too few
        points around it). A NumPy array for NumPy input, a JAX array for JAX input, traced or not.

    Raises:
        BadInputError: the shapes do not fit.
        ConfigError: no such method, or no such window.
        MissingDependencyError: "open3d" where open3d cannot be imported.
    """
    normals, fallbacks = fit_normals(xyz, valid, method, window=window, time_limit=time_limit)
    for fallback in fallbacks:
        warnings.warn(fallback, GeometryWarning, stacklevel=2)
    return normals


def fit_normals(
    xyz: Float[np.ndarray | Array, " ..."],
    valid: Bool[np.ndarray | Array, " ..."] | None = None,
    method: str = "grid",
    *,
    window: int = WINDOW,
    time_limit: float | int = 300.0,
) -> tuple[Float32[np.ndarray | Array, "*batch H W 3"], tuple[str, ...]]:
    """`surface_normals`, and in place of its warnings what they say: for threads and files."""
    if xyz.ndim < 3 or xyz.shape[-1] != 3:
        raise BadInputError(
            f"surface_normals needs points of shape (H, W, 3), got {xyz.shape}",
            "give the organised point cloud on its pixel grid, not a list of points",
        )
    if valid is not None and valid.shape != xyz.shape[:-1]:
        raise BadInputError(
            f"`valid` of shape {valid.shape} does not fit points of shape {xyz.shape}",
            "give one boolean per pixel",
        )
    if window < 3 or window % 2 == 0:
        raise ConfigError(f"window={window}", "give an odd number of pixels, at least 3")
    if method == "grid" and isinstance(xyz, np.ndarray) and _is_large(xyz):
        use = measured(xyz) if valid is None else np.asarray(valid)
        return _normals_by_strips(xyz, use, window), ()
    if method == "grid":
        points = jnp.asarray(xyz, jnp.float32)
        if valid is None:
            valid = jnp.isfinite(points).all(-1) & (points != 0).any(-1)
        normals = grid_normals(points, jnp.asarray(valid), window=window)
        return (normals if isinstance(xyz, jax.Array) else np.asarray(normals)), ()
    if method == "open3d":
        return _open3d_normals(xyz, valid, time_limit)
    raise ConfigError(f"no method {method!r} for normals", 'choose "grid" or "open3d"')


@functools.partial(jax.jit, static_argnames=("window",))
def grid_normals(
    xyz: Float32[Array, "*batch H W 3"],
    valid: Bool[Array, "*batch H W"],
    window: int = WINDOW,
) -> Float32[Array, "*batch H W 3"]:
    """Plane fits over a window of the organised grid: `surface_normals` for use inside `jax.jit`.

    The points of the window enter as differences to the pixel's own point, so that single
    precision loses nothing at a metre's distance; a separable sum would be quicker still but could
    neither do that nor leave out single neighbours.

    Args:
        xyz: points, camera frame, z away from the sensor.
        valid: pixels to use; others may hold anything.
        window: side of the window in pixels, odd; the inscribed disc is used.

    Returns:
        Unit normals towards the sensor, zeros where undefined.
    """
    fit = functools.partial(fit_planes, jnp, window=window)
    return jnp.vectorize(fit, signature="(h,w,c),(h,w)->(h,w,c)")(xyz, valid)


def _is_large(xyz: np.ndarray) -> bool:
    return xyz.ndim == 3 and xyz.shape[0] * xyz.shape[1] > _LARGE


def _normals_by_strips(
    xyz: Float[np.ndarray, "H W 3"], valid: Bool[np.ndarray, "H W"], window: int
) -> Float32[np.ndarray, "H W 3"]:
    """`grid_normals` of a large scan, some rows at a time: a fit holds dozens of planes of them."""
    (height, width), reach = valid.shape, window // 2
    stride = stride_of(valid.shape)
    some, there = xyz[::stride, ::stride], valid[::stride, ::stride]
    there = there & np.isfinite(some).all(-1)
    some = np.where(there[..., None], some, 0).astype(np.float32)
    sampling = _sampling(some, there, float(stride))
    rows = max(1, _LARGE // 4 // width)
    normals = np.empty((height, width, 3), np.float32)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        top, bottom = max(0, start - reach), min(height, stop + reach)
        points = np.zeros((rows + 2 * reach, width, 3), np.float32)  # one shape for all strips
        use = np.zeros(points.shape[:2], bool)
        place = slice(top - start + reach, bottom - start + reach)
        points[place], use[place] = xyz[top:bottom], valid[top:bottom]
        fitted = np.asarray(_fit_strip(points, use, sampling, window=window))
        normals[start:stop] = fitted[reach : reach + stop - start]
    return normals


def _open3d_normals(
    xyz: Float[np.ndarray | Array, "*batch H W 3"],
    valid: Bool[np.ndarray | Array, "*batch H W"] | None,
    time_limit: float | int,
) -> tuple[Float32[np.ndarray | Array, "*batch H W 3"], tuple[str, ...]]:
    from pirn_jax.geometry.open3d_normals import tangent_plane_normals

    points = np.asarray(xyz, np.float32)
    use = measured(points) if valid is None else np.asarray(valid) & np.isfinite(points).all(-1)
    points = np.where(use[..., None], points, np.float32(0))
    normals, fallbacks = np.zeros_like(points), []
    for scan in np.ndindex(points.shape[:-3]):
        stride = stride_of(use[scan].shape)
        some = (points[scan][::stride, ::stride], use[scan][::stride, ::stride])
        pinhole = _sampling(*some, float(stride)).pinhole
        sight = points[scan] if pinhole else np.array([[[0.0, 0.0, 1.0]]], np.float32)
        normals[scan], why = tangent_plane_normals(points[scan], use[scan], sight, time_limit)
        if why:
            fallbacks.append(why)
    return (jnp.asarray(normals) if isinstance(xyz, jax.Array) else normals), tuple(fallbacks)


_sampling = jax.jit(functools.partial(measure_sampling, jnp))
_fit_strip = jax.jit(functools.partial(fit_planes, jnp), static_argnames=("window",))
