"""From crops to what teacher and student see: procedural pictures, colours, cuts, blur and noise.

Runs on the device as part of a compiled step. The crops of a batch are exchangeable, so fixed
slices of it stand for probabilities, and what a slice does not need is not computed.

Dimension letters: B pictures of a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray, UInt8

from distil.procedural import Draws, blurred, coordinates, outlines, procedural_pictures

PROCEDURAL = 0.1
"""Share of a batch."""
BLURRED, MIXED, CUT_OUT, NOISY = (0.02, 0.25), (0.22, 0.37), (0.30, 0.40), (0.38, 0.55)
"""Slices of a batch, as shares of it; they overlap, and none touches the procedural end."""


def augmented(key: PRNGKeyArray, crops: UInt8[Array, "B S S 3"]) -> Float[Array, "B S S 3"]:
    """A batch of training pictures in [0, 1].

    Args:
        key: of the step.
        crops: photographs and the like; the last tenth is replaced by procedural pictures.
    """
    keys = jax.random.split(key, 6)
    images = crops.astype(jnp.float32) / 255
    count, side = images.shape[:2]
    made = round(PROCEDURAL * count)
    if made:
        procedural = procedural_pictures(keys[0], images[count - made :])
        images = jnp.concatenate([images[: count - made], procedural])
    images = _recoloured(keys[1], images)

    def blur(part: Array) -> Array:
        return blurred(part, Draws(keys[2], len(part))(0.6, 2.4)[:, :, :, 0])

    def mix(part: Array) -> Array:
        return _mixed(keys[3], part, jnp.flip(part, axis=0))

    def cut_out(part: Array) -> Array:
        return part * outlines(keys[4], len(part), side)

    def add_noise(part: Array) -> Array:
        for_size, for_values = jax.random.split(keys[5])
        size = Draws(for_size, len(part))(0, 0.04)
        return part + size * jax.random.normal(for_values, part.shape)

    images = _in_slice(images, BLURRED, blur)
    images = _in_slice(images, MIXED, mix)
    images = _in_slice(images, CUT_OUT, cut_out)
    images = _in_slice(images, NOISY, add_noise)
    return jnp.clip(images, 0.0, 1.0)


def _in_slice(
    images: Float[Array, "B S S 3"], share: tuple[float, float], change: Callable[[Array], Array]
) -> Float[Array, "B S S 3"]:
    first, last = int(share[0] * len(images)), int(share[1] * len(images))
    if first == last:
        return images
    return jnp.concatenate([images[:first], change(images[first:last]), images[last:]])


def _recoloured(key: PRNGKeyArray, images: Float[Array, "B S S 3"]) -> Float[Array, "B S S 3"]:
    """Saturation, contrast, brightness and balance of most; some grey, some red for blue."""
    draw = Draws(key, len(images))
    changed = (draw() < 0.6).astype(jnp.float32)
    saturation = 1 + changed * draw(-0.5, 0.5)
    saturation = jnp.where(draw() < 0.12, 0.0, saturation)
    contrast = 1 + changed * draw(-0.4, 0.4)
    gain = 1 + changed * draw(-0.4, 0.4)
    balance = 1 + changed * draw(-0.12, 0.12, 3)
    grey = images.mean(axis=-1, keepdims=True)
    mean = grey.mean(axis=(1, 2), keepdims=True)
    images = grey + (images - grey) * saturation
    images = (mean + (images - mean) * contrast) * (gain * balance)
    return jnp.where(draw() < 0.08, jnp.flip(images, axis=-1), images)


def _mixed(
    key: PRNGKeyArray, images: Float[Array, "B S S 3"], others: Float[Array, "B S S 3"]
) -> Float[Array, "B S S 3"]:
    """A rectangle of another picture in each."""
    draw = Draws(key, len(images))
    down, across = coordinates(images.shape[1])
    x, y = draw(-1, 1), draw(-1, 1)
    wide, high = draw(0.2, 1.2), draw(0.2, 1.2)
    inside = (jnp.abs(across - x) < wide) & (jnp.abs(down - y) < high)
    return jnp.where(inside, others, images)
