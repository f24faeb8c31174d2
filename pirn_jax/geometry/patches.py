"""Patches of a cloud: points far from one another, and the nearest points of each.

Centres are found by furthest point sampling: the first point, then always the one that is farthest
from all before, so that nothing is left to chance.

Dimension letters: P points, G centres, K points of a patch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Patches(NamedTuple):
    """Patches of one scan, or, with an axis in front, of many.

    Attributes:
        points: about each patch's mean, in metres; the nearest to its centre first.
        places: which points they are, row by row.
    """

    points: Float[Array, "*B G K 3"]
    places: Int[Array, "*B G K"]


def cut_patches(points: Float[Array, "h w 3"], count: int, size: int, reach: int) -> Patches:
    """Patches of an organised cloud.

    Args:
        points: zeros where none was measured.
        count: G, of which some come twice where there are fewer points.
        size: K.
        reach: as for `nearest_pixels`.
    """
    flat = points.reshape(-1, 3)
    centres = furthest_points(flat, jnp.any(flat != 0, axis=-1), count)
    places = nearest_pixels(points, centres, size, reach)
    patches = flat[places]
    return Patches(patches - patches.mean(1, keepdims=True), places)


def furthest_points(
    points: Float[Array, "P 3"], valid: Bool[Array, " P"], count: int
) -> Int[Array, " G"]:
    """Places of centres; where there are fewer points than asked for, some come twice."""
    start = jnp.argmax(valid).astype(jnp.int32)

    def step(place: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, nearest = state
        away = ((points - points[chosen[place - 1]][None]) ** 2).sum(-1)
        nearest = jnp.minimum(nearest, jnp.where(valid, away, -1.0))
        return chosen.at[place].set(nearest.argmax().astype(jnp.int32)), nearest

    chosen = jnp.zeros(count, jnp.int32).at[0].set(start)
    nearest = jnp.full(len(points), jnp.inf)
    return jax.lax.fori_loop(1, count, step, (chosen, nearest))[0]


def nearest_points(
    points: Float[Array, "P 3"],
    valid: Bool[Array, " P"],
    centres: Float[Array, "G 3"],
    neighbours: int,
) -> Int[Array, "G K"]:
    """Places of the nearest points of each centre, the nearest first."""
    count = min(neighbours, len(points))

    def one(centre: Float[Array, " 3"]) -> Int[Array, " K"]:
        away = ((points - centre[None]) ** 2).sum(-1)
        near, places = jax.lax.top_k(-jnp.where(valid, away, jnp.inf), count)
        # Where there are fewer points than K, the nearest one stands in.
        places = jnp.where(jnp.isfinite(near), places, places[0])
        return jnp.pad(places, (0, neighbours - count), mode="edge")

    return jax.lax.map(one, centres, batch_size=min(16, len(centres)))


def nearest_pixels(
    points: Float[Array, "h w 3"], centres: Int[Array, " G"], neighbours: int, reach: int
) -> Int[Array, "G K"]:
    """`nearest_points` of an organised cloud, where only near pixels are looked at.

    Args:
        points: zeros where none was measured.
        centres: places of points, row by row.
        neighbours: K.
        reach: rows and columns on each side of a centre in which its neighbours are looked for.
    """
    side, (rows, columns) = 2 * reach + 1, points.shape[:2]
    padded = jnp.pad(points, ((reach, reach), (reach, reach), (0, 0)))
    offset = jnp.arange(side, dtype=jnp.int32) - reach
    inside = (offset[:, None] * columns + offset[None]).reshape(-1)

    def one(place: Int[Array, ""]) -> Int[Array, " K"]:
        start = (place // columns, place % columns, jnp.int32(0))
        window = jax.lax.dynamic_slice(padded, start, (side, side, 3)).reshape(-1, 3)
        centre = points.reshape(rows * columns, 3)[place]
        away = ((window - centre[None]) ** 2).sum(-1)
        away = jnp.where(jnp.any(window != 0, axis=-1), away, jnp.inf)
        near, places = jax.lax.top_k(-away, neighbours)
        # Where there are fewer points than K, the centre stands in.
        return jnp.where(jnp.isfinite(near), place + inside[places], place)

    return jax.vmap(one)(centres)
