"""Planes fitted to the neighbours of every pixel: the arithmetic behind method "grid".

Written for any array library of numpy's names (`xp`): with `jax.numpy` it is compiled, batched and
runs on any device (`normals.py`); with numpy it runs where there is no JAX (`numpy_normals`). What
is done and why: `pirn_jax.geometry.normals`.

Dimension letters: H, W the pixels of the scan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

WINDOW = 7
"""Side of the window in pixels, of which the inscribed disc is used: 29 pixels, as kNN 30."""

EDGE_SLOPE = 4.0
"""A neighbour is across a depth edge where z changes by more than this many pixel distances per
pixel: a surface seen at more than 76° from its normal, which no sensor measures well anyway."""

FEWEST_POINTS = 5
"""Fewer points in the window, the pixel itself included, leave the normal undefined."""

_ROUNDEST_LINE = 1e-3  # below this ratio of middle to total variance, points are on a line
_ROWS = 32  # of a scan that numpy looks at together: what fits the processor's cache


class Sampling(NamedTuple):
    """How the pixels of one scan sample space."""

    pinhole: Bool[Any, ""]  # True: rays meet in the origin; False: parallel to z
    step: Float[Any, ""]  # between neighbours: per metre of z (pinhole) or metres (parallel)


def numpy_normals(
    xyz: Float32[np.ndarray, "H W 3"], valid: Bool[np.ndarray, "H W"], window: int = WINDOW
) -> Float32[np.ndarray, "H W 3"]:
    """`pirn_jax.geometry.normals.grid_normals` in numpy, some rows at a time.

    Args:
        xyz: points, camera frame, z away from the sensor.
        valid: pixels to use; others may hold anything.
        window: side of the window in pixels, odd; the inscribed disc is used.
    """
    reach = window // 2
    valid = valid & np.isfinite(xyz).all(-1)
    xyz = np.where(valid[..., None], xyz, np.float32(0)).astype(np.float32)
    sampling = scan_sampling(np, xyz, valid)
    points = np.pad(xyz, ((reach, reach), (reach, reach), (0, 0)))
    use = np.pad(valid, reach)
    normals = np.zeros_like(xyz)
    for start in range(0, len(xyz), _ROWS):
        rows = slice(start, min(start + _ROWS, len(xyz)))
        around = slice(start, rows.stop + 2 * reach)
        if valid[rows].any():
            normals[rows] = fit_padded(np, points[around], use[around], sampling, window)
    return normals


def fit_planes(
    xp: Any,
    xyz: Float32[Any, "H W 3"],
    valid: Bool[Any, "H W"],
    sampling: Sampling | None = None,
    *,
    window: int,
) -> Float32[Any, "H W 3"]:
    """Unit normals towards the sensor, zeros where undefined.

    Args:
        xp: numpy, or jax.numpy.
        xyz: points; of pixels that are not valid they may be anything.
        valid: pixels to use.
        sampling: of the scan; None: it is measured.
        window: side of the window in pixels, odd.
    """
    reach = window // 2
    valid = valid & xp.isfinite(xyz).all(-1)
    xyz = xp.where(valid[..., None], xyz, 0.0)
    if sampling is None:
        sampling = scan_sampling(xp, xyz, valid)
    padded = xp.pad(xyz, ((reach, reach), (reach, reach), (0, 0)))
    return fit_padded(xp, padded, xp.pad(valid, reach), sampling, window)


def fit_padded(
    xp: Any, xyz: Float32[Any, "_ _ 3"], valid: Bool[Any, "_ _"], sampling: Sampling, window: int
) -> Float32[Any, "_ _ 3"]:
    """The same of points with half a window of further ones on each side.

    Args:
        xp: numpy, or jax.numpy.
        xyz: points, zeros where not valid.
        valid: pixels to use.
        sampling: of the scan.
        window: side of the window in pixels, odd.
    """
    reach = window // 2
    height, width = (side - 2 * reach for side in valid.shape)
    inner = slice(reach, reach + height), slice(reach, reach + width)
    planes = [xyz[..., 0], xyz[..., 1], xyz[..., 2], valid.astype(xp.float32)]
    x, y, z = (plane[inner] for plane in planes[:3])
    jump = EDGE_SLOPE * sampling.step * xp.where(sampling.pinhole, z, 1.0)
    sums = [xp.zeros_like(z)] * 10
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if not 0 < down**2 + right**2 <= reach**2:
                continue
            rows = slice(reach + down, reach + down + height)
            columns = slice(reach + right, reach + right + width)
            x_there, y_there, z_there, weight = (plane[rows, columns] for plane in planes)
            dx, dy, dz = x_there - x, y_there - y, z_there - z
            weight = xp.where(xp.abs(dz) <= jump * max(abs(down), abs(right)), weight, 0.0)
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
    (nx, ny, nz), planar = smallest_eigenvector(xp, covariance)

    away = xp.where(sampling.pinhole, nx * x + ny * y + nz * z, nz) > 0
    defined = valid[inner] & planar & (count >= FEWEST_POINTS)
    sign = xp.where(defined, xp.where(away, -1.0, 1.0), 0.0).astype(xp.float32)
    return xp.stack([nx * sign, ny * sign, nz * sign], axis=-1)


def stride_of(shape: tuple[int, ...]) -> int:
    """Of the at most 128×128 pixels by which a scan's sampling is measured."""
    return max(1, -(-max(shape) // 128))


def scan_sampling(xp: Any, xyz: Float32[Any, "H W 3"], valid: Bool[Any, "H W"]) -> Sampling:
    """`measure_sampling` of a whole scan; its points are zeros where not valid."""
    stride = stride_of(valid.shape)
    return measure_sampling(xp, xyz[::stride, ::stride], valid[::stride, ::stride], float(stride))


def measure_sampling(
    xp: Any, xyz: Float32[Any, "h w 3"], valid: Bool[Any, "h w"], stride: float | Float32[Any, ""]
) -> Sampling:
    """Decides between rays that meet in the origin and parallel ones, and measures their distance.

    A camera's x/z and y/z are linear in the pixel's row and column, whatever the depth; a height
    map's x and y are. The camera is believed where it is right to a pixel or nearer than the other:
    with nearly constant z the two are the same.

    Args:
        xp: numpy, or jax.numpy.
        xyz: every so many rows and columns of the scan; zeros where not valid.
        valid: pixels to use.
        stride: how many.
    """
    weight = valid.astype(xp.float32)
    rows = xp.arange(valid.shape[0], dtype=xp.float32) * stride
    columns = xp.arange(valid.shape[1], dtype=xp.float32) * stride
    row, column = xp.meshgrid(rows, columns, indexing="ij")

    def centre(plane: Float32[Any, "h w"]) -> Float32[Any, "h w"]:
        mean = xp.sum(plane * weight) / xp.maximum(xp.sum(weight), 1.0)
        return xp.where(valid, plane - mean, 0.0)

    row, column = centre(row), centre(column)
    rr, rc, cc = xp.sum(row * row), xp.sum(row * column), xp.sum(column * column)
    determinant = xp.maximum(rr * cc - rc * rc, 1e-6)

    def linear(plane: Float32[Any, "h w"]) -> tuple[Any, Any, Any]:
        plane = centre(plane)
        pr, pc = xp.sum(plane * row), xp.sum(plane * column)
        by_row = (pr * cc - pc * rc) / determinant
        by_column = (pc * rr - pr * rc) / determinant
        rest = plane - by_row * row - by_column * column
        return by_row, by_column, xp.sum(rest * rest)

    def model(across: Float32[Any, "h w"], along: Float32[Any, "h w"]) -> tuple[Any, Any]:
        (a, b, rest_across), (c, d, rest_along) = linear(across), linear(along)
        step = xp.sqrt(xp.abs(a * d - b * c))  # one pixel's area, as a side
        rest = xp.sqrt((rest_across + rest_along) / xp.maximum(xp.sum(weight), 1.0))
        return step, rest / xp.maximum(step, 1e-30)  # and the misfit in pixels

    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    in_front = xp.all(xp.where(valid, z > 0, True))
    depth = xp.where(valid & (z > 0), z, 1.0)
    ray_step, ray_misfit = model(x / depth, y / depth)
    flat_step, flat_misfit = model(x, y)
    pinhole = in_front & ((ray_misfit < 1.0) | (ray_misfit <= flat_misfit))
    return Sampling(pinhole, xp.where(pinhole, ray_step, flat_step))


def smallest_eigenvector(
    xp: Any, matrix: tuple[Any, ...]
) -> tuple[tuple[Any, Any, Any], Bool[Any, ...]]:
    """Unit eigenvector to the smallest eigenvalue of symmetric 3×3 matrices, in closed form.

    The eigenvalue by the cubic's trigonometric solution; the eigenvector as the largest column of
    the adjugate of A - λI, which is (λ₁-λ)(λ₂-λ) v vᵀ: three candidates, of which the largest
    cannot vanish unless λ is a double root, that is, unless the points lie on a line.

    Args:
        xp: numpy, or jax.numpy.
        matrix: the entries xx, xy, xz, yy, yz, zz, each of one shape.

    Returns:
        The vector's three components, and False where the two smaller eigenvalues coincide so
        nearly that there is no such vector.
    """
    xx, xy, xz, yy, yz, zz = matrix
    scale = 1.0 / xp.maximum(xx + yy + zz, 1e-30)  # trace 1: the unit of length cancels
    xx, xy, xz, yy, yz, zz = (entry * scale for entry in (xx, xy, xz, yy, yz, zz))
    mean = (xx + yy + zz) / 3.0
    dx, dy, dz = xx - mean, yy - mean, zz - mean
    spread = dx * dx + dy * dy + dz * dz + 2.0 * (xy * xy + xz * xz + yz * yz)
    radius = xp.sqrt(xp.maximum(spread / 6.0, 1e-20))
    det = dx * (dy * dz - yz * yz) - xy * (xy * dz - yz * xz) + xz * (xy * yz - dy * xz)
    angle = xp.arccos(xp.clip(det / (2.0 * radius**3), -1.0, 1.0)) / 3.0
    smallest = mean + 2.0 * radius * xp.cos(angle + 2.0 * np.pi / 3.0)

    xx, yy, zz = xx - smallest, yy - smallest, zz - smallest
    axx, ayy, azz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    axy, axz, ayz = xz * yz - xy * zz, xy * yz - xz * yy, xy * xz - yz * xx
    by_z = (azz >= axx) & (azz >= ayy)
    by_x = ~by_z & (axx >= ayy)
    nx = xp.where(by_z, axz, xp.where(by_x, axx, axy))
    ny = xp.where(by_z, ayz, xp.where(by_x, axy, ayy))
    nz = xp.where(by_z, azz, xp.where(by_x, axz, ayz))
    inverse = 1.0 / xp.sqrt(xp.maximum(nx * nx + ny * ny + nz * nz, 1e-30))
    return (nx * inverse, ny * inverse, nz * inverse), axx + ayy + azz > _ROUNDEST_LINE
