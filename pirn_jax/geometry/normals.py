"""Surface normals of an organised point cloud.

Source: the paper, appendix B.2, takes Open3D's plane fit to the 30 nearest neighbours of every
    point (`method="open3d"`, see `open3d_normals.py`). `method="grid"` fits the same plane, by the
    same smallest eigenvector of the local covariance, to neighbours taken from the pixel grid.
Differs from the paper: the default window is the disc of 29 pixels in a 7×7 window, which on a
    surface facing the sensor *is* the set of 30 nearest neighbours up to one. Neighbours across a
    depth edge are left out, where the nearest neighbours in space may reach across. The sign is
    decided per pixel by the line of sight instead of by propagation from point to point.

How a scan is sampled (`_Sampling`) is measured on the scan itself: rays that meet in the origin, as
a camera has them, or parallel ones, as a height map has them. It gives the distance between
neighbouring pixels, which the depth test is relative to, and the direction the sensor lies in.

Dimension letters: H, W the pixels of the scan; `*batch` any leading dimensions.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.background import GeometryWarning, measured

WINDOW = 7
"""Side of the window in pixels, of which the inscribed disc is used: 29 pixels, as kNN 30."""

EDGE_SLOPE = 4.0
"""A neighbour is across a depth edge where z changes by more than this many pixel distances per
pixel: a surface seen at more than 76° from its normal, which no sensor measures well anyway."""

FEWEST_POINTS = 5
"""Fewer points in the window, the pixel itself included, leave the normal undefined."""

_LARGE = 1 << 22  # pixels; larger scans are fitted strip by strip
_ROUNDEST_LINE = 1e-3  # below this ratio of middle to total variance, points are on a line


class _Sampling(NamedTuple):
    """How the pixels of one scan sample space."""

    pinhole: Bool[Array, ""]  # True: rays meet in the origin; False: parallel to z
    step: Float[Array, ""]  # between neighbours: per metre of z (pinhole) or metres (parallel)


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
    fit = functools.partial(_fit_planes, window=window)
    return jnp.vectorize(fit, signature="(h,w,c),(h,w)->(h,w,c)")(xyz, valid)


def _is_large(xyz: np.ndarray) -> bool:
    return xyz.ndim == 3 and xyz.shape[0] * xyz.shape[1] > _LARGE


def _normals_by_strips(
    xyz: Float[np.ndarray, "H W 3"], valid: Bool[np.ndarray, "H W"], window: int
) -> Float32[np.ndarray, "H W 3"]:
    """`grid_normals` of a large scan, some rows at a time: a fit holds dozens of planes of them."""
    (height, width), reach = valid.shape, window // 2
    stride = _stride(valid.shape)
    some, there = xyz[::stride, ::stride], valid[::stride, ::stride]
    there = there & np.isfinite(some).all(-1)
    some = np.where(there[..., None], some, 0).astype(np.float32)
    sampling = _jitted_sampling(some, there, float(stride))
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


def _fit_planes(
    xyz: Float32[Array, "H W 3"],
    valid: Bool[Array, "H W"],
    sampling: _Sampling | None = None,
    *,
    window: int,
) -> Float32[Array, "H W 3"]:
    """Planes of one scan; how it samples space is measured unless it is known."""
    height, width = valid.shape
    reach = window // 2
    valid = valid & jnp.isfinite(xyz).all(-1)
    xyz = jnp.where(valid[..., None], xyz, 0.0)
    if sampling is None:
        stride = _stride(valid.shape)
        sampling = _sampling(xyz[::stride, ::stride], valid[::stride, ::stride], float(stride))
    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    jump = EDGE_SLOPE * sampling.step * jnp.where(sampling.pinhole, z, 1.0)

    padded = [jnp.pad(plane, reach) for plane in (x, y, z, valid.astype(jnp.float32))]
    sums = [jnp.zeros_like(z)] * 10
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if not 0 < down**2 + right**2 <= reach**2:
                continue
            rows = slice(reach + down, reach + down + height)
            columns = slice(reach + right, reach + right + width)
            x_there, y_there, z_there, weight = (plane[rows, columns] for plane in padded)
            dx, dy, dz = x_there - x, y_there - y, z_there - z
            weight = jnp.where(jnp.abs(dz) <= jump * max(abs(down), abs(right)), weight, 0.0)
            wx, wy, wz = weight * dx, weight * dy, weight * dz
            products = (wx * dx, wx * dy, wx * dz, wy * dy, wy * dz, wz * dz)
            sums = [s + term for s, term in zip(sums, (weight, wx, wy, wz, *products), strict=True)]

    count = sums[0] + 1.0  # the pixel itself, with difference zero
    mx, my, mz, xx, xy, xz, yy, yz, zz = (s / count for s in sums[1:])
    covariance = (
        xx - mx * mx,
        xy - mx * my,
        xz - mx * mz,
        yy - my * my,
        yz - my * mz,
        zz - mz * mz,
    )
    (nx, ny, nz), planar = _smallest_eigenvector(covariance)

    away = jnp.where(sampling.pinhole, nx * x + ny * y + nz * z, nz) > 0
    defined = valid & planar & (count >= FEWEST_POINTS)
    sign = jnp.where(defined, jnp.where(away, -1.0, 1.0), 0.0)
    return jnp.stack([nx * sign, ny * sign, nz * sign], axis=-1)


def _stride(shape: tuple[int, ...]) -> int:
    """Of the at most 128×128 pixels by which a scan's sampling is measured."""
    return max(1, -(-max(shape) // 128))


def _sampling(
    xyz: Float32[Array, "h w 3"], valid: Bool[Array, "h w"], stride: float | Float32[Array, ""]
) -> _Sampling:
    """Decides between rays that meet in the origin and parallel ones, and measures their distance.

    A camera's x/z and y/z are linear in the pixel's row and column, whatever the depth; a height
    map's x and y are. The camera is believed where it is right to a pixel or nearer than the other:
    with nearly constant z the two are the same.

    Args:
        xyz: every so many rows and columns of the scan; zeros where not valid.
        valid: pixels to use.
        stride: how many.
    """
    weight = valid.astype(jnp.float32)
    rows = jnp.arange(valid.shape[0], dtype=jnp.float32) * stride
    columns = jnp.arange(valid.shape[1], dtype=jnp.float32) * stride
    row, column = jnp.meshgrid(rows, columns, indexing="ij")

    def centre(plane: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
        mean = jnp.sum(plane * weight) / jnp.maximum(jnp.sum(weight), 1.0)
        return jnp.where(valid, plane - mean, 0.0)

    row, column = centre(row), centre(column)
    rr, rc, cc = jnp.sum(row * row), jnp.sum(row * column), jnp.sum(column * column)
    determinant = jnp.maximum(rr * cc - rc * rc, 1e-6)

    def linear(plane: Float32[Array, "h w"]) -> tuple[Array, Array, Array]:
        plane = centre(plane)
        pr, pc = jnp.sum(plane * row), jnp.sum(plane * column)
        by_row = (pr * cc - pc * rc) / determinant
        by_column = (pc * rr - pr * rc) / determinant
        rest = plane - by_row * row - by_column * column
        return by_row, by_column, jnp.sum(rest * rest)

    def model(across: Float32[Array, "h w"], along: Float32[Array, "h w"]) -> tuple[Array, Array]:
        (a, b, rest_across), (c, d, rest_along) = linear(across), linear(along)
        step = jnp.sqrt(jnp.abs(a * d - b * c))  # one pixel's area, as a side
        rest = jnp.sqrt((rest_across + rest_along) / jnp.maximum(jnp.sum(weight), 1.0))
        return step, rest / jnp.maximum(step, 1e-30)  # and the misfit in pixels

    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    in_front = jnp.all(jnp.where(valid, z > 0, True))
    depth = jnp.where(valid & (z > 0), z, 1.0)
    ray_step, ray_misfit = model(x / depth, y / depth)
    flat_step, flat_misfit = model(x, y)
    pinhole = in_front & ((ray_misfit < 1.0) | (ray_misfit <= flat_misfit))
    return _Sampling(pinhole, jnp.where(pinhole, ray_step, flat_step))


def _smallest_eigenvector(
    matrix: tuple[Array, ...],
) -> tuple[tuple[Array, Array, Array], Array]:
    """Unit eigenvector to the smallest eigenvalue of symmetric 3×3 matrices, in closed form.

    The eigenvalue by the cubic's trigonometric solution; the eigenvector as the largest column of
    the adjugate of A - λI, which is (λ₁-λ)(λ₂-λ) v vᵀ: three candidates, of which the largest
    cannot vanish unless λ is a double root, that is, unless the points lie on a line.

    Args:
        matrix: the entries xx, xy, xz, yy, yz, zz, each of one shape.

    Returns:
        The vector's three components, and False where the two smaller eigenvalues coincide so
        nearly that there is no such vector.
    """
    xx, xy, xz, yy, yz, zz = matrix
    scale = 1.0 / jnp.maximum(xx + yy + zz, 1e-30)  # trace 1: the unit of length cancels
    xx, xy, xz, yy, yz, zz = (entry * scale for entry in (xx, xy, xz, yy, yz, zz))
    mean = (xx + yy + zz) / 3.0
    dx, dy, dz = xx - mean, yy - mean, zz - mean
    spread = dx * dx + dy * dy + dz * dz + 2.0 * (xy * xy + xz * xz + yz * yz)
    radius = jnp.sqrt(jnp.maximum(spread / 6.0, 1e-20))
    det = dx * (dy * dz - yz * yz) - xy * (xy * dz - yz * xz) + xz * (xy * yz - dy * xz)
    angle = jnp.arccos(jnp.clip(det / (2.0 * radius**3), -1.0, 1.0)) / 3.0
    smallest = mean + 2.0 * radius * jnp.cos(angle + 2.0 * np.pi / 3.0)

    xx, yy, zz = xx - smallest, yy - smallest, zz - smallest
    axx, ayy, azz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    axy, axz, ayz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - yz * xx
    by_z = (azz >= axx) & (azz >= ayy)
    by_x = ~by_z & (axx >= ayy)
    nx = jnp.where(by_z, axz, jnp.where(by_x, axx, axy))
    ny = jnp.where(by_z, ayz, jnp.where(by_x, axy, ayy))
    nz = jnp.where(by_z, azz, jnp.where(by_x, axz, ayz))
    inverse = jax.lax.rsqrt(jnp.maximum(nx * nx + ny * ny + nz * nz, 1e-30))
    return (nx * inverse, ny * inverse, nz * inverse), axx + ayy + azz > _ROUNDEST_LINE


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
        stride = _stride(use[scan].shape)
        some = (points[scan][::stride, ::stride], use[scan][::stride, ::stride])
        pinhole = _jitted_sampling(*some, float(stride)).pinhole
        sight = points[scan] if pinhole else np.array([[[0.0, 0.0, 1.0]]], np.float32)
        normals[scan], why = tangent_plane_normals(points[scan], use[scan], sight, time_limit)
        if why:
            fallbacks.append(why)
    return (jnp.asarray(normals) if isinstance(xyz, jax.Array) else normals), tuple(fallbacks)


_jitted_sampling = jax.jit(_sampling)
_fit_strip = jax.jit(_fit_planes, static_argnames=("window",))
