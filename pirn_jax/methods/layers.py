"""Layers that the trained methods share: linear maps and batch normalisation.

Products of matrices are in full float32: left alone, GPUs would round them to TensorFloat-32.

Dimension letters: T rows, I inputs, O outputs, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params

NORM_EPSILON = 1e-5


def create_linear(key: PRNGKeyArray, inputs: int, outputs: int) -> Params:
    """Kernel and bias, each uniform in ±1/√inputs: what PyTorch starts its linear maps with."""
    bound = inputs**-0.5
    for_kernel, for_bias = jax.random.split(key)
    return {
        "kernel": jax.random.uniform(for_kernel, (inputs, outputs), minval=-bound, maxval=bound),
        "bias": jax.random.uniform(for_bias, (outputs,), minval=-bound, maxval=bound),
    }


def linear(layer: Params, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
    """X W + b, as one product of matrices."""
    kernel = layer["kernel"]
    flat = product(x.reshape(-1, x.shape[-1]), kernel) + layer["bias"][None]
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def product(
    x: Float[Array, "T I"], kernel: Float[Array | np.ndarray, "I O"]
) -> Float[Array, "T O"]:
    """X W."""
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)


class Moments(NamedTuple):
    """Mean and variance of each channel, over everything else."""

    mean: Float[Array, " C"]
    variance: Float[Array, " C"]


def moments_of(x: Float[Array, "*batch C"]) -> Moments:
    """Those of a batch."""
    flat = x.reshape(-1, x.shape[-1])
    return Moments(flat.mean(0), flat.var(0))


def batch_norm(layer: Params, x: Float[Array, "*batch C"], known: Moments) -> Array:
    """Normalised by these moments, then scaled and shifted as learned.

    In training they are the batch's. In judging they are those of the shots under the trained
    network, measured once, where published code follows them with a running mean: of five shots
    both are nearly the same batch.
    """
    factor = layer["scale"] * jax.lax.rsqrt(known.variance + NORM_EPSILON)
    flat = (x.reshape(-1, x.shape[-1]) - known.mean[None]) * factor[None] + layer["bias"][None]
    return flat.reshape(x.shape)


def create_norm(channels: int) -> Params:
    """Scale 1, shift 0."""
    return {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}
