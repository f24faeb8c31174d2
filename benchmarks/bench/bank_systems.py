"""M3DM and BTF, which compare with stored tokens, as random-weight forward passes in JAX.

For timing and FLOPs only, as `other_systems.py`; shapes and order of operations follow the
published code. Banks are those of five shots, a tenth of their tokens.

M3DM (nomewang/M3DM): DINO ViT-B/8 on the photograph, 28² tokens; Point-MAE on the points, 56²; both
through an MLP each and side by side at 56² the fused tokens; the nearest of every token in three
banks, a weighed sum of the distances.
BTF (eliahuhorwitz/3D-ADS): stages 2 and 3 of WideResNet-50-2 and point histograms side by side at
28²; the nearest in one bank. The histograms are those of `pirn_jax.geometry`, where the published
ones are Open3D's, in C++ on the processor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bench.other_systems import (
    SIDE,
    WIDTH,
    apply,
    dense,
    norm,
    point_mae_flops,
    point_mae_weights,
    scan,
    spread,
    squared,
)
from pirn_jax.encoder import encoder_config, load_encoder
from pirn_jax.encoder.points import Fpfh
from pirn_jax.encoder.wide_resnet import load_wide_resnet
from pirn_jax.geometry.fpfh import BINS
from pirn_jax.scoring.maps import upsample

SHOTS, SHARE = 5, 10  # a tenth is kept
RGB, XYZ = 768, 3 * WIDTH
COARSE, FINE = 28, 56
NEIGHBOURS = 3  # of the nearest stored token, by which an image's score is weighed
LAMBDAS = {"rgb": 0.1, "xyz": 1.0, "fused": 1.0}
_random = np.random.default_rng(1)


def bank(side: int, channels: int) -> Array:
    """A coreset of five shots' tokens."""
    return jnp.asarray(_random.standard_normal((SHOTS * side**2 // SHARE, channels), np.float32))


def look_up(stored: Array, tokens: Array) -> tuple[Array, Array]:
    """Each token's distance to its nearest, and the score of the image."""
    apart = squared(tokens, stored)
    away = jnp.sqrt(jnp.maximum(apart.min(1), 0.0))
    oddest = away.argmax()
    nearest = stored[apart[oddest].argmin()]
    _, places = jax.lax.top_k(-squared(nearest[None], stored)[0], NEIGHBOURS)
    near = jnp.linalg.norm(tokens[oddest][None] - stored[places], axis=-1)
    scale = tokens.shape[-1] ** 0.5
    weight = 1 - jnp.exp(away[oddest] / scale) / jnp.exp(near / scale).sum()
    return away, weight * away[oddest]


# ---- M3DM


def m3dm() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The forward pass and its arguments: weights, a photograph, points, their pixels."""
    encoder = load_encoder("dino-vitb8", "random", SIDE, layers=(12,))
    weights = {
        "vit": encoder.parameters,
        "points": point_mae_weights(),
        "rgb": [dense(RGB, 4 * RGB), dense(4 * RGB, RGB)],
        "xyz": [dense(XYZ, 4 * XYZ), dense(4 * XYZ, XYZ)],
        "banks": {
            "rgb": bank(COARSE, RGB),
            "xyz": bank(FINE, XYZ),
            "fused": bank(FINE, RGB + XYZ),
        },
    }
    return functools.partial(_m3dm, encoder.tokens), jax.device_put((weights, *scan()))


def _m3dm(vit: Callable[..., Array], weights: Any, picture: Array, points: Array, pixels: Array):
    rgb = norm(vit(weights["vit"], picture)).reshape(COARSE, COARSE, RGB)
    cell = SIDE // FINE
    grid = spread(weights["points"], points, pixels)
    xyz = grid.reshape(FINE, cell, FINE, cell, XYZ).mean((1, 3)).reshape(-1, XYZ)
    repeated = rgb.repeat(FINE // COARSE, 0).repeat(FINE // COARSE, 1).reshape(-1, RGB)
    halves = [_fuse(weights["xyz"], xyz), _fuse(weights["rgb"], repeated)]
    tokens = {"rgb": rgb.reshape(-1, RGB), "xyz": xyz, "fused": jnp.concatenate(halves, -1)}
    heatmap, score = jnp.zeros((1, SIDE, SIDE)), jnp.zeros(())
    for name, factor in LAMBDAS.items():
        away, own = look_up(weights["banks"][name], tokens[name])
        heatmap += factor * upsample(away[None], (SIDE, SIDE))
        score += factor * own
    return heatmap, score


def _fuse(layers: Any, x: Array) -> Array:
    return apply(layers[1], jax.nn.gelu(apply(layers[0], norm(x)), approximate=False))


def m3dm_flops() -> dict[str, float]:
    """GFLOPs by formula, matrix products only."""
    fine, coarse = FINE**2, COARSE**2
    stored = SHOTS * fine // SHARE
    search = fine * stored * (XYZ + RGB + XYZ) + coarse * (SHOTS * coarse // SHARE) * RGB
    return {
        "ViT-B/8": encoder_config("dino-vitb8").flops((SIDE, SIDE)) / 1e9,
        "Point-MAE": point_mae_flops(),
        "fusion": 2 * fine * 8 * (RGB**2 + XYZ**2) / 1e9,
        "banks": 2 * search / 1e9,
    }


# ---- BTF


def btf() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The forward pass and its arguments: weights, a photograph, an organised cloud."""
    network = load_wide_resnet("random", SIDE)
    weights = {"network": network.parameters, "bank": bank(COARSE, network.channels + 3 * BINS)}
    picture = _random.random((1, SIDE, SIDE, 3), np.float32)
    side = np.linspace(-0.05, 0.05, SIDE, dtype=np.float32)
    across, down = np.meshgrid(side, side)
    height = 0.4 + 0.01 * np.sin(60 * across) + 0.0001 * _random.standard_normal(across.shape)
    cloud = np.stack([across, down, height], -1)[None].astype(np.float32)
    return functools.partial(_btf, network.tokens), jax.device_put((weights, picture, cloud))


def _btf(network: Callable[..., Array], weights: Any, picture: Array, cloud: Array):
    described = Fpfh()({}, cloud, (COARSE, COARSE))[0]
    tokens = jnp.concatenate([network(weights["network"], picture)[0], described], -1)
    away, score = look_up(weights["bank"], tokens)
    return upsample(away[None], (SIDE, SIDE)), score


def btf_flops() -> dict[str, float]:
    """GFLOPs by formula: convolutions and matrix products, not the histograms."""
    network = load_wide_resnet("random", SIDE)
    tokens = COARSE**2
    search = tokens * (SHOTS * tokens // SHARE) * (network.channels + 3 * BINS)
    return {"WideResNet-50-2": network.flops(1) / 1e9, "bank": 2 * search / 1e9}
