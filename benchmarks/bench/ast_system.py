"""AST, whose student and teacher look at EfficientNet-B5's features, as a forward pass in JAX.

For timing and FLOPs only, with random weights, as `other_systems.py`; shapes and order of
operations follow the published code (marco-rudolph/AST): a photograph of 768² through the first 36
blocks of EfficientNet-B5, 24² places of 304 channels; 64 depths of each place beside them; the flow
and the student of `pirn_jax.methods.ast_network`, the latter with the published 1024 channels.

Source of EfficientNet's shapes: Tan and Le 2019 (arXiv 1905.11946), width 1.6 and depth 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pirn_jax.methods.ast_network import INNER, SIDES, create_student, create_teacher, study, teach
from pirn_jax.methods.flow import positions

SIDE, DEPTH_SIDE, CELL = 768, 192, 8
STEM = 48
STAGES = (  # blocks, side of the kernel, stride of the first, times as many channels inside, out
    (3, 3, 1, 1, 24),
    (5, 3, 2, 6, 40),
    (5, 5, 2, 6, 64),
    (7, 3, 2, 6, 128),
    (7, 5, 1, 6, 176),
    (9, 5, 2, 6, 304),
)
WIDTH, POSITION = 1024, 32
_random = np.random.default_rng(2)


class Block(NamedTuple):
    """An inverted bottleneck: channels in, inside and out, kernel, stride, side of its input."""

    before: int
    inner: int
    after: int
    kernel: int
    stride: int
    side: int

    @property
    def squeezed(self) -> int:
        """Channels that the channels' weights are made from."""
        return max(1, self.before // 4)


def blocks() -> list[Block]:
    """The first 36 of EfficientNet-B5."""
    found, before, side = [], STEM, SIDE // 2
    for count, kernel, first, times, after in STAGES:
        for number in range(count):
            stride = first if number == 0 else 1
            found.append(Block(before, times * before, after, kernel, stride, side))
            before, side = after, side // stride
    return found


def ast() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The forward pass and its arguments: weights, a photograph, depths."""
    channels = STAGES[-1][-1] + CELL**2
    grid = DEPTH_SIDE // CELL
    keys = jax.random.split(jax.random.key(0))
    student = create_student(channels, POSITION, WIDTH, keys[1])
    seen = jax.ShapeDtypeStruct((1, grid, grid, channels), jnp.float32)
    place = jax.ShapeDtypeStruct((grid, grid, POSITION), jnp.float32)
    moments = jax.eval_shape(study, student, seen, place)[1]
    weights = {
        "stem": _kernel(3, 3, STEM),
        "blocks": [_weights(block) for block in blocks()],
        "teacher": create_teacher(channels, POSITION, keys[0]),
        "student": student,
        "moments": jax.tree.map(lambda x: jnp.ones(x.shape), moments),
    }
    picture = _random.random((1, SIDE, SIDE, 3), np.float32)
    depth = _random.random((1, DEPTH_SIDE, DEPTH_SIDE), np.float32)
    return _ast, jax.device_put((weights, picture, depth))


def _kernel(side: int, inputs: int, outputs: int) -> Array:
    drawn = _random.standard_normal((side, side, inputs, outputs), np.float32)
    return jnp.asarray(drawn / (side**2 * inputs) ** 0.5)


def _weights(block: Block) -> dict[str, Array]:
    found = {
        "depthwise": _kernel(block.kernel, 1, block.inner),
        "squeeze": _kernel(1, block.inner, block.squeezed),
        "excite": _kernel(1, block.squeezed, block.inner),
        "project": _kernel(1, block.inner, block.after),
    }
    if block.inner != block.before:
        found["expand"] = _kernel(1, block.before, block.inner)
    return found


def _convolve(kernel: Array, x: Array, stride: int = 1) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def _ast(weights: Any, picture: Array, depth: Array) -> tuple[Array, Array]:
    x = jax.nn.silu(_convolve(weights["stem"], picture, 2))
    for block, own in zip(blocks(), weights["blocks"], strict=True):
        inner = jax.nn.silu(_convolve(own["expand"], x)) if "expand" in own else x
        inner = jax.nn.silu(_convolve(own["depthwise"], inner, block.stride))
        squeezed = jax.nn.silu(_convolve(own["squeeze"], inner.mean((1, 2), keepdims=True)))
        inner = inner * jax.nn.sigmoid(_convolve(own["excite"], squeezed))
        made = _convolve(own["project"], inner)
        x = x + made if made.shape == x.shape else made
    grid = DEPTH_SIDE // CELL
    cells = depth.reshape(1, grid, CELL, grid, CELL).swapaxes(2, 3).reshape(1, grid, grid, -1)
    x = jnp.concatenate([x, cells], -1)
    place = jnp.asarray(positions((grid, grid), POSITION)).reshape(grid, grid, POSITION)
    taught, _ = teach(weights["teacher"], x, place)
    studied, _ = study(weights["student"], x, place, weights["moments"])
    odd = ((taught - studied) ** 2).mean(-1)
    heatmap = jax.image.resize(odd, (1, DEPTH_SIDE, DEPTH_SIDE), "bicubic")
    return heatmap, heatmap.max()


def ast_flops() -> dict[str, float]:
    """GFLOPs by formula, convolutions only."""
    network = (SIDE // 2) ** 2 * 27 * STEM
    for block in blocks():
        before, after = block.side**2, (block.side // block.stride) ** 2
        if block.inner != block.before:
            network += before * block.before * block.inner
        network += after * block.inner * (block.kernel**2 + block.after)
        network += 2 * block.inner * block.squeezed
    channels, places = STAGES[-1][-1] + CELL**2, (DEPTH_SIDE // CELL) ** 2
    half = channels // 2
    flow = sum(2 * side**2 * INNER * (half + POSITION + 2 * half) for side in SIDES)
    student = 9 * WIDTH * (channels + POSITION + 8 * WIDTH + channels)
    return {
        "EfficientNet-B5": 2 * network / 1e9,
        "teacher": 2 * places * flow / 1e9,
        "student": 2 * places * student / 1e9,
    }
