"""AST's two networks: a flow over grids of tokens, and a student that is no flow.

The teacher is a chain of couplings, each on permuted channels, with convolutions that also see the
position; each half of the channels is changed in turn by what is read from the other:

    y₁ = x₁ exp(c(s₂)) + t₂,  s₂, t₂ = net₂(x₂, position)
    y₂ = x₂ exp(c(s₁)) + t₁,  s₁, t₁ = net₁(y₁, position)        c(s) = 1.9 · 0.636 arctan(s / 1.9)

Its Jacobian is triangular per token, so that the log-determinant is a map like the tokens.

Source: Rudolph et al. 2023 (AST, arXiv 2210.07829) and its released code.

Dimension letters: B images, H W grid, C channels, P channels of a position, D inner channels, k
side of a convolution.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params
from pirn_jax.methods.flow import affine, clamp_arctan, permutation
from pirn_jax.methods.layers import (
    Moments,
    batch_norm,
    create_linear,
    create_norm,
    linear,
    moments_of,
)

SIDES = (3, 3, 3, 5)  # of the convolutions of each coupling
INNER = 64  # channels of a coupling's nets
MOST = 1.9  # bounds a log-scale
RESIDUAL_BLOCKS = 4
SLOPE = 0.01  # of LeakyReLU below 0


def create_teacher(channels: int, position: int, key: PRNGKeyArray) -> Params:
    """Couplings by number; each at first the identity, but for the permutation."""
    first = channels - channels // 2
    halves = {"second": (channels - first, first), "first": (first, channels - first)}

    def net(key: PRNGKeyArray, inputs: int, changed: int, side: int) -> Params:
        one, two = jax.random.split(key)
        area = side * side
        return {
            "conv1": create_linear(one, area * (inputs + position), INNER),
            "conv2": create_linear(two, area * INNER, 2 * changed),
            "gain": jnp.zeros(()),
        }

    keys = jax.random.split(key, (len(SIDES), 2))
    return {
        f"coupling{k}": {
            f"from_{name}": net(keys[k, n], *sizes, side)
            for n, (name, sizes) in enumerate(halves.items())
        }
        for k, side in enumerate(SIDES)
    }


def teach(
    parameters: Params, x: Float[Array, "B H W C"], position: Float[Array | np.ndarray, "H W P"]
) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W"]]:
    """What the flow makes of tokens, and each token's part of the log-determinant."""
    first = x.shape[-1] - x.shape[-1] // 2
    log_determinant = jnp.zeros(x.shape[:-1], x.dtype)
    clamp = partial(clamp_arctan, most=MOST)

    def read(net: Params, half: Array, side: int) -> Array:
        hidden = convolve(net["conv1"], with_position(half, position), side, "edge")
        return net["gain"] * convolve(net["conv2"], jax.nn.relu(hidden), side, "edge")

    for k, side in enumerate(SIDES):
        nets = parameters[f"coupling{k}"]
        x = x[..., permutation(k, x.shape[-1])]
        one, two = x[..., :first], x[..., first:]
        one, by_second = affine(one, read(nets["from_second"], two, side), clamp)
        two, by_first = affine(two, read(nets["from_first"], one, side), clamp)
        x = jnp.concatenate([one, two], -1)
        log_determinant = log_determinant + by_second + by_first
    return x, log_determinant


def create_student(channels: int, position: int, width: int, key: PRNGKeyArray) -> Params:
    """Convolutions in and out, and blocks of two between them."""
    keys = iter(jax.random.split(key, 2 + 2 * RESIDUAL_BLOCKS))
    blocks = {
        f"block{k}": {
            f"{name}{n}": create_linear(next(keys), 9 * width, width)
            if name == "conv"
            else create_norm(width)
            for n in (1, 2)
            for name in ("conv", "norm")
        }
        for k in range(RESIDUAL_BLOCKS)
    }
    return {
        "enter": create_linear(next(keys), 9 * (channels + position), width),
        "leave": create_linear(next(keys), 9 * width, channels),
        **blocks,
    }


def study(
    parameters: Params,
    x: Float[Array, "B H W C"],
    position: Float[Array | np.ndarray, "H W P"],
    known: Params | None = None,
) -> tuple[Float[Array, "B H W C"], Params]:
    """What the student takes the flow's output for, and the moments that it normalised by.

    Args:
        parameters: of the student.
        x: tokens.
        position: of each.
        known: moments to normalise by; None: the batch's own.
    """
    used: Params = {}

    def half(block: str, n: int, x: Array) -> Array:
        own = parameters[block]
        x = convolve(own[f"conv{n}"], x, 3, "constant")
        name = f"{block}_norm{n}"
        moments = moments_of(x) if known is None else Moments(**known[name])
        used[name] = moments._asdict()
        return jax.nn.leaky_relu(batch_norm(own[f"norm{n}"], x, moments), SLOPE)

    entered = convolve(parameters["enter"], with_position(x, position), 3, "constant")
    x = jax.nn.leaky_relu(entered, SLOPE)
    for k in range(RESIDUAL_BLOCKS):
        x = x + half(f"block{k}", 2, half(f"block{k}", 1, x))
    return convolve(parameters["leave"], x, 3, "constant"), used


def with_position(
    x: Float[Array, "B H W C"], position: Float[Array | np.ndarray, "H W P"]
) -> Float[Array, "B H W CP"]:
    """Tokens, and behind their channels those of the position."""
    everywhere = jnp.broadcast_to(jnp.asarray(position)[None], (len(x), *position.shape))
    return jnp.concatenate([x, everywhere.astype(x.dtype)], -1)


def convolve(
    layer: Params, x: Float[Array, "B H W C"], side: int, border: Literal["edge", "constant"]
) -> Float[Array, "B H W D"]:
    """A convolution as one product of matrices, which on a CPU is also fast backwards.

    Args:
        layer: kernel (k k C, D), rows of the window first, and bias.
        x: grids.
        side: k, odd.
        border: what lies beyond the grid: its edge again, or zeros.
    """
    reach, (_, height, width, _) = side // 2, x.shape
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode=border)
    windows = [
        padded[:, down : down + height, across : across + width]
        for down in range(side)
        for across in range(side)
    ]
    return linear(layer, jnp.concatenate(windows, -1))
