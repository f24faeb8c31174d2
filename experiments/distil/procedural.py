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
_MARKS = 4
_MOST_NUMBERS = 24
"""That one kind of change draws for a picture."""


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


class Draws:
    """Uniform numbers, each a picture (and channel), to be spread over its pixels.

    All come from one draw: a program with a generator for each number takes the compiler minutes.

    Args:
        key: what they are made from.
        count: of the pictures.
    """

    def __init__(self, key: PRNGKeyArray, count: int):
        self._numbers = jax.random.uniform(key, (count, 1, 1, _MOST_NUMBERS))
        self._used = 0

    def __call__(
        self, low: float = 0.0, high: float = 1.0, channels: int = 1
    ) -> Float[Array, "n 1 1 c"]:
        """The next numbers, from low to high."""
        first, self._used = self._used, self._used + channels
        assert self._used <= _MOST_NUMBERS
        return low + (high - low) * self._numbers[..., first : self._used]


def coordinates(side: int) -> tuple[Float[Array, "1 S S 1"], Float[Array, "1 S S 1"]]:
    """Down and across, from -1 to 1."""
    ticks = (jnp.arange(side, dtype=jnp.float32) + 0.5) / side * 2 - 1
    down, across = jnp.meshgrid(ticks, ticks, indexing="ij")
    return down[None, :, :, None], across[None, :, :, None]


def noise(
    key: PRNGKeyArray, count: int, side: int, channels: int = 1, steep: tuple[float, float] = (0, 2)
) -> Float[Array, "n S S c"]:
    """Noise whose power falls with frequency, of unit variance; its edges fit each other.

    Args:
        key: what it is made from.
        count: pictures.
        side: of each, in pixels.
        channels: of each.
        steep: range of how fast it falls: amplitudes halve `steep` times from octave to octave.
    """
    for_slope, for_values = jax.random.split(key)
    slope = Draws(for_slope, count)(*steep)
    white = jax.random.normal(for_values, (count, side, side, channels))
    down, across = jnp.fft.fftfreq(side)[:, None], jnp.fft.rfftfreq(side)[None, :]
    # In turns a picture. An octave holds the square of its frequency in waves: hence the 1.
    turns = side * jnp.sqrt(jnp.square(down) + jnp.square(across))[None, :, :, None]
    amplitude = jnp.maximum(turns, 1.0) ** -(1.0 + slope) * (turns > 0).astype(jnp.float32)
    waves = jnp.fft.rfft2(white, axes=(1, 2)) * amplitude.astype(jnp.complex64)
    values = jnp.fft.irfft2(waves, s=(side, side), axes=(1, 2))
    power = jnp.square(values).mean(axis=(1, 2, 3), keepdims=True)
    return values / jnp.sqrt(power + 1e-12)


def normal_colours(
    key: PRNGKeyArray, heights: Float[Array, "n S S 1"], strength: Float[Array, "n 1 1 1"]
) -> Float[Array, "n S S 3"]:
    """A relief's normals as colours, (n + 1)/2; facing the sensor in three of four pictures."""
    across = jnp.roll(heights, -1, axis=2) - jnp.roll(heights, 1, axis=2)
    down = jnp.roll(heights, -1, axis=1) - jnp.roll(heights, 1, axis=1)
    facing = jnp.where(Draws(key, len(heights))() < 0.75, -1.0, 1.0)
    depth = facing * jnp.ones_like(heights)
    vectors = jnp.concatenate([across * strength, down * strength, depth], axis=-1)
    length = jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True))
    return (vectors / length + 1) / 2


def outlines(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 1"]:
    """Masks of uneven ellipses that fill most of the picture: 1 inside."""
    for_dents, for_draws = jax.random.split(key)
    draw = Draws(for_draws, count)
    down, across = coordinates(side)
    dents = jax.image.resize(
        jax.random.normal(for_dents, (count, 5, 5, 1)), (count, side, side, 1), "cubic"
    )
    x = (across - draw(-0.2, 0.2)) / draw(0.45, 1.1)
    y = (down - draw(-0.2, 0.2)) / draw(0.45, 1.1)
    inside = 1 - jnp.square(x) - jnp.square(y) + dents * draw(0, 0.5)
    return (inside > 0).astype(jnp.float32)


def _coloured_noise(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    for_noise, for_draws = jax.random.split(key)
    draw = Draws(for_draws, count)
    mix = draw(-0.6, 0.9, 9).reshape(count, 3, 3)
    mix = mix + 0.4 * jnp.eye(3)[None]
    colours = jnp.einsum("nhwi,nij->nhwj", noise(for_noise, count, side, 3), mix)
    return draw(0.1, 0.9, 3) + colours * draw(0.02, 0.3)


def _gratings(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    for_warp, for_grain, for_draws = jax.random.split(key, 3)
    draw = Draws(for_draws, count)
    down, across = coordinates(side)
    angle = draw(0, math.pi)
    warp = noise(for_warp, count, side) * jnp.maximum(draw(-0.1, 0.15), 0.0)
    waves = math.pi * jnp.exp2(draw(0, 6))
    along = across * jnp.cos(angle) + down * jnp.sin(angle) + warp
    beside = down * jnp.cos(angle) - across * jnp.sin(angle) + warp
    pattern = jnp.sin(waves * along)
    crossed = pattern * jnp.sin(waves * draw(0.5, 2) * beside)
    pattern = jnp.where(draw() < 0.5, pattern, crossed)
    pattern = jnp.where(draw() < 0.4, jnp.tanh(8 * pattern), pattern)
    plain = draw(0.1, 0.9, 3) + pattern * draw(-0.4, 0.4, 3)
    return plain + 0.04 * noise(for_grain, count, side, 3)


def _reliefs(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    for_heights, for_sign, for_outline, for_draws = jax.random.split(key, 4)
    draw = Draws(for_draws, count)
    heights = noise(for_heights, count, side, steep=(0.7, 2.0))
    strength = 2 * 10 ** draw(-0.6, 1.0)
    colours = normal_colours(for_sign, heights, strength)
    cut = jnp.where(draw() < 0.5, outlines(for_outline, count, side), 1.0)
    return colours * cut


def _embossed(key: PRNGKeyArray, heights: Float[Array, "n S S 1"]) -> Float[Array, "n S S 3"]:
    count, side = heights.shape[:2]
    for_sign, for_outline, for_draws = jax.random.split(key, 3)
    draw = Draws(for_draws, count)
    heights = blurred(heights, draw(0.3, 1.6)[:, :, :, 0])
    strength = 10 ** draw(0.3, 1.4)
    colours = normal_colours(for_sign, heights, strength)
    cut = jnp.where(draw() < 0.4, outlines(for_outline, count, side), 1.0)
    return colours * cut


def _marked_surfaces(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "n S S 3"]:
    for_shade, for_grain, for_marks, for_draws = jax.random.split(key, 4)
    draw = Draws(for_draws, count)
    down, across = coordinates(side)
    surface = draw(0.1, 0.9, 3)
    surface = surface + noise(for_shade, count, side, steep=(1.2, 2.5)) * draw(0, 0.12)

    def mark(key: PRNGKeyArray) -> Array:
        draw = Draws(key, count)
        angle, shift = draw(0, math.pi), draw(-1, 1)
        width = 10 ** draw(-2.2, -0.8)
        away = across * jnp.cos(angle) + down * jnp.sin(angle) - shift
        line = jnp.exp(-jnp.square(away / width))
        x, y = draw(-1, 1), draw(-1, 1)
        radius = draw(0.02, 0.35)
        spot = jnp.square(across - x) + jnp.square(down - y) < jnp.square(radius)
        shape = jnp.where(draw() < 0.5, line, spot.astype(jnp.float32))
        return shape * draw(-0.4, 0.4, 3)

    # One program for all of them: written out, they take the compiler four times as long.
    surface = surface + jax.vmap(mark)(jax.random.split(for_marks, _MARKS)).sum(axis=0)
    return surface + 0.04 * noise(for_grain, count, side, 3, steep=(0, 0.6))


def blurred(
    images: Float[Array, "n S S c"], sigma: Float[Array, "n 1 1"]
) -> Float[Array, "n S S c"]:
    """Gaussian blur, each picture by its own width in pixels; nothing from beyond the edge."""
    ticks = jnp.arange(images.shape[1], dtype=jnp.float32)
    apart = ticks[None, :, None] - ticks[None, None, :]
    weights = jax.nn.softmax(-0.5 * jnp.square(apart / sigma), axis=-1)
    images = jnp.einsum("nij,njwc->niwc", weights, images)
    return jnp.einsum("nij,nhjc->nhic", weights, images)
