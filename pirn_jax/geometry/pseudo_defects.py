"""Pseudo-defects: patches spoiled in the views of a good part, to learn what defects do to tokens.

One to three patches of random place, shape and size lie on the part, which is to fill the picture:
their size is in proportion to this. In the photograph each is pasted, stained, painted over,
covered with grain, or blurred; in the picture of normals it is dented or raised, roughened, or
pasted. What is pasted comes from elsewhere on the part, or, half of the time in photographs, from
anywhere in the picture turned by 180 degrees: often from the black around the part, which is what a
hole or missing material shows. Points, where they stand for the picture of normals, are dented or
raised. What is no part stays as it is.

Source: Li et al. 2021 (CutPaste, arXiv 2104.04015) for pasting; Zavrtanik et al. 2021 (DRAEM, arXiv
2108.07610) for grain that is blended in.

Letters: h, w the pixels of the views.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from pirn_jax.geometry.vectors import picture_of, vectors_of
from pirn_jax.geometry.views import Views

_MOST = 3  # patches
_LONGEST, _SHORTEST = 0.12, 0.02  # half of a patch's length, as a share of the picture's side
_SLIMMEST = 0.2  # a patch's width by its length
_DEEPEST, _SHALLOWEST = 0.05, 0.005  # of a dent in points, as a share of the part's extent


def spoil(views: Views, random: np.random.Generator) -> Views:
    """The views with pseudo-defects, the same patches in all of their pictures.

    Args:
        views: of a good part.
        random: places, shapes and kinds are drawn from it.
    """
    if not views.valid.any():
        return views
    rgb, normals, points = views.rgb, views.normals, views.points
    for _ in range(random.integers(1, _MOST + 1)):
        depth = _patch(views.valid, random)
        away = _elsewhere(views.valid, depth, random)
        if rgb is not None:
            rgb = _spoiled_photograph(rgb, views.valid, depth, away, random)
        if normals is not None:
            normals = _spoiled_normals(normals, depth, away, random)
        if points is not None:
            points = _dented(points, depth, random)
    return views._replace(rgb=rgb, normals=normals, points=points)


def _patch(
    valid: Bool[np.ndarray, "h w"], random: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """How deep each pixel lies in a patch about a pixel of the part: 0 outside, 1 at its middle."""
    row, column = _some_pixel(valid, random)
    length = min(valid.shape) * _log_uniform(_SHORTEST, _LONGEST, random)
    width = max(1.0, length * _log_uniform(_SLIMMEST, 1.0, random))
    turn = random.uniform(0, np.pi)
    down, right = np.mgrid[: valid.shape[0], : valid.shape[1]]
    down, right = down - row, right - column
    along = (np.cos(turn) * right + np.sin(turn) * down) / length
    across = (np.cos(turn) * down - np.sin(turn) * right) / width
    around, rim = np.arctan2(across, along), 1.0
    for waves in (2, 3, 5):
        phase = random.uniform(0, 2 * np.pi)
        rim = rim + random.uniform(0, 0.5 / waves) * np.cos(waves * around + phase)
    depth = np.clip(1 - np.hypot(along, across) / rim, 0, 1)
    return np.where(valid, depth, 0).astype(np.float32)


def _elsewhere(
    valid: Bool[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"], random: np.random.Generator
) -> tuple[int, int]:
    """By how many rows and columns to roll a picture for another place of the part to lie there."""
    here = np.unravel_index(int(depth.argmax()), depth.shape)
    there = _some_pixel(valid, random)
    return int(here[0]) - there[0], int(here[1]) - there[1]


def _spoiled_photograph(
    rgb: Float32[np.ndarray, "h w 3"],
    valid: Bool[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    away: tuple[int, int],
    random: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    kind, cover = random.integers(5), random.uniform(0.3, 1.0)
    if kind == 0:  # pasted
        other, cover = np.roll(rgb, away, (0, 1)), 1.0
        if random.random() < 0.5:
            other = other[::-1, ::-1]
    elif kind == 1:  # stained
        other, cover = rgb * random.uniform(0.5, 1.5, 3) + random.uniform(-0.2, 0.2), 1.0
    elif kind == 2:  # painted over
        other = np.broadcast_to(random.uniform(0, 1, 3), rgb.shape)
    elif kind == 3:  # covered with grain
        mean, spread = rgb[valid].mean(0), rgb[valid].std(0)
        grain = _grain(rgb.shape, 2.0, random)
        other = mean + random.uniform(-0.2, 0.2) + random.uniform(0.5, 2) * spread * grain
    else:  # blurred
        width = random.uniform(1, 4)
        other, cover = ndimage.gaussian_filter(rgb, (width, width, 0)), 1.0
    share = cover * np.minimum(1, 4 * depth)[..., None]  # softer at the rim
    return (rgb + share * (np.clip(other, 0, 1) - rgb)).astype(np.float32)


def _spoiled_normals(
    normals: Float32[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    away: tuple[int, int],
    random: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    vectors, defined = vectors_of(normals)
    kind = random.integers(4)
    if kind <= 1:
        changed = _leaning(vectors, depth, random)
    elif kind == 2:  # roughened
        changed = vectors + random.uniform(0.2, 0.8) * _grain(vectors.shape, 1.5, random)
    else:  # pasted
        changed = np.roll(vectors, away, (0, 1))
    changed = np.where((depth > 0)[..., None], changed, vectors).astype(np.float32)
    return np.where((depth > 0)[..., None], picture_of(changed, defined), normals)


def _leaning(
    vectors: Float32[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    random: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """Vectors of a surface dented or raised by `_bump`, so steep as drawn; of any length."""
    down, right = np.gradient(_bump(depth))
    slope = np.stack([right, down], -1)
    steepest = random.uniform(0.3, 1.5) * random.choice([-1, 1])
    changed = vectors.copy()
    changed[..., :2] += steepest * slope / max(float(np.abs(slope).max()), 1e-6)
    return changed


def _dented(
    points: Float32[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    random: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """Points moved along the optical axis, by as much as `_bump` says."""
    measured = (points != 0).any(-1)
    if not measured.any():
        return points
    extent = float(np.ptp(points[measured][:, :2], axis=0).max())
    height = extent * _log_uniform(_SHALLOWEST, _DEEPEST, random) * random.choice([-1, 1])
    moved = points.copy()
    moved[..., 2] += np.where(measured, height * _bump(depth), 0)
    return moved


def _bump(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A smooth hill over a patch: 0 and level at its rim, 1 and level at its middle."""
    return depth * depth * (3 - 2 * depth)


def _grain(
    shape: tuple[int, ...], coarsest: float, random: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Noise of unit variance, as coarse as drawn, finer one way than the other."""
    rows, columns = np.exp(random.uniform(0, coarsest, 2))
    smooth = ndimage.gaussian_filter(random.standard_normal(shape), (rows, columns, 0))
    return (smooth / max(float(smooth.std()), 1e-6)).astype(np.float32)


def _some_pixel(valid: Bool[np.ndarray, "h w"], random: np.random.Generator) -> tuple[int, int]:
    places = np.argwhere(valid)
    row, column = places[random.integers(len(places))]
    return int(row), int(column)


def _log_uniform(low: float, high: float, random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))
