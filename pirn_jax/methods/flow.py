"""Layers of normalising flows: what CFlow and AST make theirs of.

A flow is a chain of maps z = f(x) whose inverse and Jacobian determinant are cheap, so that

    log p(x) = log N(z; 0, I) + log |det ∂z/∂x|

An affine coupling changes some channels by a scale and a shift that a net reads from the others,
which pass unchanged: its log-determinant is the sum of the log-scales. These are softly clamped, so
that no exponential explodes. Between couplings channels are permuted, or turned by a rotation.

Positions are told to the nets by sines and cosines. With P channels, for j = 0 … P/4 - 1:

    ω_j = 10000^(-4j/P)      column x: sin ω_j x, cos ω_j x in channels 2j, 2j + 1
                             row y: sin ω_j y, cos ω_j y in channels P/2 + 2j, P/2 + 2j + 1

Source: Dinh et al. 2017 (Real-NVP, arXiv 1605.08803); Kingma and Dhariwal 2018 (Glow, arXiv
1807.03039); Ardizzone et al. 2019 (arXiv 1907.02392: clamping); Vaswani et al. 2017 (positions).

Dimension letters: C channels, P channels of a position, N tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

Clamp = Callable[[Array], Array]
"""From what a net says to a log-scale."""


def clamp_tanh(s: Array, most: float) -> Array:
    """Log-scales in ±most."""
    return most * jnp.tanh(s)


def clamp_arctan(s: Array, most: float) -> Array:
    """Log-scales in ±most, s itself (times 0.636) near 0."""
    return most * 0.636 * jnp.arctan(s / most)


def affine(
    x: Float[Array, "*batch C"], told: Float[Array, "*batch CC"], clamp: Clamp
) -> tuple[Float[Array, "*batch C"], Float[Array, "*batch"]]:
    """Scaled and shifted, x exp(clamp(s)) + t, and its log-determinant.

    Args:
        x: the channels that change.
        told: by a net from the others: s, and behind it t.
        clamp: of s.
    """
    s, t = jnp.split(told, 2, axis=-1)
    log_scale = clamp(s)
    return x * jnp.exp(log_scale) + t, log_scale.sum(-1)


def standard_normal(
    z: Float[Array, "*batch C"], log_determinant: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Log-likelihood per channel of what became z."""
    channels = z.shape[-1]
    squared = (z * z).sum(-1)
    return (log_determinant - 0.5 * squared) / channels - 0.5 * float(np.log(2 * np.pi))


def rotations(seed: int, count: int, channels: int) -> Float32[np.ndarray, "count C C"]:
    """Random orthogonal matrices, all directions being as likely."""
    drawn = np.random.default_rng(seed).standard_normal((count, channels, channels))
    q, r = np.linalg.qr(drawn)
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))
    return (q * signs[:, None]).astype(np.float32)


def permutation(number: int, channels: int) -> Int[np.ndarray, " C"]:
    """Where each channel comes from in the permutation of that number."""
    return np.random.default_rng(number).permutation(channels)


@functools.lru_cache(maxsize=8)
def positions(grid: tuple[int, int], channels: int) -> Float32[np.ndarray, "N P"]:
    """Of each token of the grid, row by row; channels are a multiple of 4."""
    rows, columns = grid
    frequency = 10000.0 ** (-4.0 * np.arange(channels // 4) / channels)

    def waves(count: int) -> np.ndarray:
        angle = np.arange(count)[:, None] * frequency
        return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(count, -1)

    across = np.broadcast_to(waves(columns)[None], (rows, columns, channels // 2))
    down = np.broadcast_to(waves(rows)[:, None], (rows, columns, channels // 2))
    return np.concatenate([across, down], -1).reshape(-1, channels).astype(np.float32)
