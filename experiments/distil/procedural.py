"""Pictures of nothing in particular, made on the device: noise, gratings, reliefs as normal maps.

Photographs teach a student what photographs look like; its second input are normal maps, and parts
are often plainer than any photograph. Five kinds in equal shares: coloured noise; gratings and
weaves; normals of random heights; normals of a photograph's brightness taken for height; plain
surfaces with lines and spots.

Dimension letters: n pictures, S side in pixels, c channels.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

KINDS = 5
_SCALES = (2, 4, 8, 16, 32, 64, 128)
_MARKS = 4


def procedural_pictures(
    key: PRNGKeyArray, photographs: Float[Array, "n S S 3"]
) -> Float[Array, "n S S 3"]:
    """As many pictures as are given, in [0, 1].

    Args:
        key: what they are made from.
        photographs: heights for one of the kinds; not shown otherwise.
    """
    count, side = photographs.shape[:2]
    bounds = [count * k // KINDS for k in range(KINDS + 1)]
    sizes = [last - first for first, last in itertools.pairwise(bounds)]
    keys = jax.random.split(key, KINDS)
    brightness = photographs[bounds[3] : bounds[4]].mean(axis=-1, keepdims=True)
    made = [
        _coloured_noise(keys[0], sizes[0], side),
        _gratings(keys[1], sizes[1], side),
        _reliefs(keys[2], sizes[2], side),
        _embossed(keys[3], brightness),
        _marked_surfaces(keys[4], sizes[4], side),
    ]
    return jnp.clip(jnp.concatenate(made), 0.0, 1.0)


def uniform(
    key: PRNGKeyArray, count: int, low: float = 0.0, high: float = 1.0, channels: int = 1
) -> Float[Array, "n 1 1 c"]:
    """A number a picture (and channel), to be spread over its pixels."""
    return jax.random.uniform(key, (count, 1, 1, channels), minval=low, maxval=high)


def coordinates(side: int) -> tuple[Float[Array, "1 S S 1"], Float[Array, "1 S S 1"]]:
    """Down and across, from -1 to 1."""
    ticks = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side * 2 - 1
    down, across = jnp.meshgrid(ticks, ticks, indexing="ij")
    return down[None, :, :, None], across[None, :, :, None]


def noise(
    key: PRNGKeyArray, count: int, side: int, channels: int = 1, steep: tuple[float, float] = (0, 2)
) -> Float[Array, "n S S c"]:
    """Sums of smooth noise over octaves, of about unit variance.

    Args:
        key: what it is made from.
        count: pictures.
        side: of each, in pixels.
        channels: of each.
        steep: range of how fast amplitudes fall with frequency: 0 not at all, 1 by half an octave.
    """
    for_slope, for_rest = jax.random.split(key)
    slope = uniform(for_slope, count, *steep)
    total, power = jnp.zeros((count, side, side, channels)), jnp.zeros((count, 1, 1, 1))
    for octave, cells in enumerate(scale for scale in _SCALES if scale <= side):
        for_rest, for_values = jax.random.split(for_rest)
        values = jax.random.normal(for_values, (count, cells, cells, channels))
        smooth = jax.image.resize(values, (count, side, side, channels), "cubic")
        amplitude = jnp.exp2(-slope * octave)
        total, power = total + amplitude * smooth, power + jnp.square(amplitude)
    return total / jnp.sqrt(power)


def normal_colours(
    key: PRNGKeyArray, heights: Float[Array, "n S S 1"], strength: Float[Array, "n 1 1 1"]
) -> Float[Array, "n S S 3"]:
    """A relief's normals as colours, (n + 1)/2; facing the sensor in three of four pictures."""
    across = jnp.roll(heights, -1, axis=2) - jnp.roll(heights, 1, axis=2)
    down = jnp.roll(heights, -1, axis=1) - jnp.roll(heights, 1, axis=1)
    facing = jnp.where(uniform(key, len(heights)) < 0.75, -1.0, 1.0)
    depth = facing * jnp.ones_like(heights)
    vectors = jnp.concatenate([across * strength, down * strength, depth], axis=-1)
    length = jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True))
    return (vectors / length + 1) / 2


def outlines(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 1"]:
    """Masks of uneven ellipses that fill most of the picture: 1 inside."""
    keys = jax.random.split(key, 6)
    down, across = coordinates(side)
    dents = jax.image.resize(
        jax.random.normal(keys[0], (count, 5, 5, 1)), (count, side, side, 1), "cubic"
    )
    x = (across - uniform(keys[1], count, -0.2, 0.2)) / uniform(keys[2], count, 0.45, 1.1)
    y = (down - uniform(keys[3], count, -0.2, 0.2)) / uniform(keys[4], count, 0.45, 1.1)
    inside = 1 - jnp.square(x) - jnp.square(y) + dents * uniform(keys[5], count, 0, 0.5)
    return (inside > 0).astype(jnp.float32)


def _coloured_noise(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    keys = jax.random.split(key, 4)
    mix = jax.random.uniform(keys[0], (count, 3, 3), minval=-0.6, maxval=0.9)
    mix = mix + 0.4 * jnp.eye(3)[None]
    colours = jnp.einsum("nhwi,nij->nhwj", noise(keys[1], count, side, 3), mix)
    return uniform(keys[2], count, 0.1, 0.9, 3) + colours * uniform(keys[3], count, 0.02, 0.3)


def _gratings(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    keys = jax.random.split(key, 10)
    down, across = coordinates(side)
    angle = uniform(keys[0], count, 0, math.pi)
    warp = noise(keys[1], count, side) * jnp.maximum(uniform(keys[2], count, -0.1, 0.15), 0.0)
    waves = math.pi * jnp.exp2(uniform(keys[3], count, 0, 6))
    along = across * jnp.cos(angle) + down * jnp.sin(angle) + warp
    beside = down * jnp.cos(angle) - across * jnp.sin(angle) + warp
    pattern = jnp.sin(waves * along)
    crossed = pattern * jnp.sin(waves * uniform(keys[4], count, 0.5, 2) * beside)
    pattern = jnp.where(uniform(keys[5], count) < 0.5, pattern, crossed)
    pattern = jnp.where(uniform(keys[6], count) < 0.4, jnp.tanh(8 * pattern), pattern)
    plain = uniform(keys[7], count, 0.1, 0.9, 3) + pattern * uniform(keys[8], count, -0.4, 0.4, 3)
    return plain + 0.04 * noise(keys[9], count, side, 3)


def _reliefs(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    keys = jax.random.split(key, 5)
    heights = noise(keys[0], count, side, steep=(0.7, 2.0))
    strength = 2 * 10 ** uniform(keys[1], count, -0.6, 1.0)
    colours = normal_colours(keys[2], heights, strength)
    cut = jnp.where(uniform(keys[3], count) < 0.5, outlines(keys[4], count, side), 1.0)
    return colours * cut


def _embossed(key: PRNGKeyArray, heights: Float[Array, "n S S 1"]) -> Float[Array, "n S S 3"]:
    count, side = heights.shape[:2]
    keys = jax.random.split(key, 5)
    heights = blurred(heights, uniform(keys[0], count, 0.3, 1.6)[:, :, :, 0])
    strength = 10 ** uniform(keys[1], count, 0.3, 1.4)
    colours = normal_colours(keys[2], heights, strength)
    cut = jnp.where(uniform(keys[3], count) < 0.4, outlines(keys[4], count, side), 1.0)
    return colours * cut


def _marked_surfaces(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    keys = jax.random.split(key, 4 + _MARKS)
    down, across = coordinates(side)
    surface = uniform(keys[0], count, 0.1, 0.9, 3)
    surface = surface + noise(keys[1], count, side, steep=(1.2, 2.5)) * uniform(
        keys[2], count, 0, 0.12
    )
    for for_mark in keys[4:]:
        own = jax.random.split(for_mark, 8)
        angle, shift = uniform(own[0], count, 0, math.pi), uniform(own[1], count, -1, 1)
        width = 10 ** uniform(own[2], count, -2.2, -0.8)
        away = across * jnp.cos(angle) + down * jnp.sin(angle) - shift
        line = jnp.exp(-jnp.square(away / width))
        x, y = uniform(own[3], count, -1, 1), uniform(own[4], count, -1, 1)
        radius = uniform(own[5], count, 0.02, 0.35)
        spot = jnp.square(across - x) + jnp.square(down - y) < jnp.square(radius)
        mark = jnp.where(uniform(own[6], count) < 0.5, line, spot.astype(jnp.float32))
        surface = surface + mark * uniform(own[7], count, -0.4, 0.4, 3)
    return surface + 0.04 * noise(keys[3], count, side, 3, steep=(0, 0.6))


def blurred(
    images: Float[Array, "n S S c"], sigma: Float[Array, "n 1 1"]
) -> Float[Array, "n S S c"]:
    """Gaussian blur, each picture by its own width in pixels; nothing from beyond the edge."""
    ticks = jnp.arange(images.shape[1], dtype=jnp.float32)
    apart = ticks[None, :, None] - ticks[None, None, :]
    weights = jax.nn.softmax(-0.5 * jnp.square(apart / sigma), axis=-1)
    images = jnp.einsum("nij,njwc->niwc", weights, images)
    return jnp.einsum("nij,nhjc->nhic", weights, images)
