"""Fast point feature histograms of an organised point cloud: how the normals around a point turn.

Of two points with normals, the source s (whose normal makes the smaller angle with the line from
one to the other) and the target t, at the distance d along the unit vector l from s to t:

    u = n_s,  v = (l × u) / |l × u|,  w = u × v
    θ = atan2(w·n_t, u·n_t),   α = v·n_t,   φ = u·l

A point's simple histograms count θ, α and φ of the pairs with its neighbours, in 11 bins each and
in per cent; its fast ones add to these the mean of its neighbours', weighed by 1 / d²:

    FPFH(p) = SPFH(p) + 100 Σ_q SPFH(q)/d² / |Σ_q SPFH(q)/d²|₁    for each of the three histograms

Source: Rusu, Blodow and Beetz 2009 (FPFH, ICRA); the weights and their normalisation as Open3D has
    them, with which this agrees where neighbours and normals are the same ones.
Differs from what BTF computes: neighbours are those of a disc of pixels within a radius, and not
    the nearest 100 in space. On a surface that faces the sensor the disc *is* these, up to one.

Dimension letters: H, W the pixels of the scan; `*batch` any leading dimensions.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

BINS = 11
"""Of each of the three histograms."""

RADIUS = 0.25
"""Metres beyond which no point is a neighbour, as BTF has it: more than most parts measure."""

REACH = 32
"""Largest squared distance to a neighbour in pixels: a disc of 101, as BTF's nearest 100."""


@functools.partial(jax.jit, static_argnames=("radius", "reach"))
def fpfh(
    xyz: Float32[Array, "*batch H W 3"],
    normals: Float32[Array, "*batch H W 3"],
    radius: float = RADIUS,
    reach: int = REACH,
) -> Float32[Array, "*batch H W 33"]:
    """Fast point feature histograms.

    Args:
        xyz: points in metres.
        normals: unit normals; zeros where there is none, and these points are no one's neighbours.
        radius: of neighbours, in metres.
        reach: squared distance of neighbours in pixels, at most.

    Returns:
        Three histograms, side by side, that sum to 200 each; zeros without a normal or neighbour.
    """
    one = functools.partial(_fpfh, radius=radius, reach=reach)
    return jnp.vectorize(one, signature="(h,w,c),(h,w,c)->(h,w,d)")(xyz, normals)


def offsets(reach: int) -> Int[np.ndarray, "K 2"]:
    """Rows and columns to the neighbours in a disc of pixels."""
    side = np.arange(-int(reach**0.5), int(reach**0.5) + 1)
    places = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    squared = (places**2).sum(-1)
    return places[(squared > 0) & (squared <= reach)]


def _fpfh(
    xyz: Float32[Array, "H W 3"], normals: Float32[Array, "H W 3"], *, radius: float, reach: int
) -> Float32[Array, "H W 33"]:
    height, width = xyz.shape[:2]
    steps = jnp.asarray(offsets(reach), jnp.int32)
    margin = int(reach**0.5)

    def pad(field: Array) -> Array:
        return jnp.pad(field, ((margin, margin), (margin, margin), (0, 0)))

    def moved(field: Array, step: Array) -> Array:
        start = (margin + step[0], margin + step[1], jnp.int32(0))
        return jax.lax.dynamic_slice(field, start, (height, width, field.shape[-1]))

    defined = jnp.any(normals != 0, axis=-1)
    far_points, far_normals = pad(xyz), pad(normals)

    def squared(step: Array) -> tuple[Array, Bool[Array, "H W"]]:
        """The squared distance to a neighbour, and whether it is one."""
        line = moved(far_points, step) - xyz
        distance = (line * line).sum(-1)
        other = jnp.any(moved(far_normals, step) != 0, axis=-1)
        near = (distance > 0) & (distance <= radius**2)
        return distance, defined & other & near

    def count(state: tuple[Array, Array], step: Array) -> tuple[tuple[Array, Array], None]:
        simple, pairs = state
        _, near = squared(step)
        there = moved(far_points, step), moved(far_normals, step)
        weight = near.astype(jnp.float32)[..., None]
        counted = [_binned(value) for value in _angles(xyz, normals, *there)]
        simple = simple + weight * jnp.concatenate(counted, -1)
        return (simple, pairs + weight), None

    none = jnp.zeros((height, width, 3 * BINS)), jnp.zeros((height, width, 1))
    (simple, pairs), _ = jax.lax.scan(count, none, steps)
    simple = 100 * simple / jnp.maximum(pairs, 1)
    far_simple = pad(simple)

    def gather(total: Array, step: Array) -> tuple[Array, None]:
        distance, near = squared(step)
        weight = jnp.where(near, 1 / jnp.where(near, distance, 1.0), 0.0)
        return total + weight[..., None] * moved(far_simple, step), None

    around, _ = jax.lax.scan(gather, jnp.zeros_like(simple), steps)
    around = around.reshape(height, width, 3, BINS)
    total = around.sum(-1, keepdims=True)
    mean = 100 * around / jnp.where(total > 0, total, 1.0)
    return simple + mean.reshape(simple.shape)


def _angles(
    here: Float[Array, "H W 3"],
    normal: Float[Array, "H W 3"],
    there: Float[Array, "H W 3"],
    other: Float[Array, "H W 3"],
) -> tuple[Array, Array, Array]:
    """θ, α and φ, each brought to 0 … 1, of points and a neighbour each."""
    line = there - here
    length = jnp.sqrt((line * line).sum(-1, keepdims=True))
    line = line / jnp.where(length > 0, length, 1.0)
    ours, theirs = (normal * line).sum(-1), (other * line).sum(-1)
    swap = jnp.abs(ours) < jnp.abs(theirs)
    source = jnp.where(swap[..., None], other, normal)
    target = jnp.where(swap[..., None], normal, other)
    line = jnp.where(swap[..., None], -line, line)
    phi = jnp.where(swap, -theirs, ours)
    across = jnp.cross(line, source)
    size = jnp.sqrt((across * across).sum(-1, keepdims=True))
    flat = size[..., 0] == 0  # the normal lies along the line: all angles count as 0
    across = across / jnp.where(size > 0, size, 1.0)
    third = jnp.cross(source, across)
    theta = jnp.arctan2((third * target).sum(-1), (source * target).sum(-1))
    alpha = (across * target).sum(-1)
    each = (theta / (2 * np.pi), alpha / 2, phi / 2)
    return tuple(0.5 + jnp.where(flat, 0.0, value) for value in each)  # type: ignore[return-value]


def _binned(value: Float[Array, "H W"]) -> Float[Array, "H W 11"]:
    place = jnp.clip(jnp.floor(BINS * value), 0, BINS - 1).astype(jnp.int32)
    return jax.nn.one_hot(place, BINS, dtype=jnp.float32)
