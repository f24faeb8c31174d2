"""Distances of tokens → anomaly maps and image scores, all on the device.

For each modality the distance of E and Z on the token grid (`pirn_jax.decoder.distance`, or a
method's own) is upsampled bilinearly to the size of the model's input and smoothed with a Gaussian;
the modalities are summed; the image's score is the largest value. Upsampling and smoothing are
linear and separable, so each axis folds into one small dense matrix, made once: map = U_h D U_w^T.
Every function here is pure and may be traced: the decoder, the map and the score are one jitted
call.

Source: paper sec. 3.4 (training and inference). The paper names no smoothing; DECISIONS 15: sigma
is 4 pixels at 224 (4/224 of the side at other sizes), as PatchCore and M3DM smooth.
Differs from the paper: nothing by default. Options: weights in the sum, a masked background, and
the mean of the largest values as score (INP-Former takes the largest 1 %).

Letters: B batch, N tokens on a grid of g_h x g_w, h w model pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32

from pirn_jax.errors import ConfigError

SIGMA = 4 / 224  # of the Gaussian, as a share of the picture's shorter side


class AnomalyMaps(NamedTuple):
    """What scoring makes of a batch.

    Attributes:
        fused: weighted sum of the modalities' maps, >= 0; 0 on a masked background.
        modalities: the map of each modality, unweighted; in [0, 2] for cosine distances.
        score: image score of each picture, >= 0.
    """

    fused: Float32[Array, "B h w"]
    modalities: dict[str, Float32[Array, "B h w"]]
    score: Float32[Array, " B"]


def score_distances(
    distances: Mapping[str, Float[Array, "B N"]],
    size: tuple[int, int],
    *,
    grid: tuple[int, int] | None = None,
    weights: Mapping[str, float] | None = None,
    valid: Bool[Array, "B h w"] | None = None,
    top: float = 0.0,
) -> AnomalyMaps:
    """Anomaly maps and scores from the distance of each token, whatever method it is of.

    Args:
        distances: of each modality, by name, >= 0.
        size: (h, w) of the model's input.
        grid: (g_h, g_w) of the tokens; a square by default.
        weights: of each modality in the sum; 1 each by default.
        valid: pixels of the part; the background elsewhere is 0 in the fused map and no part of
            the score. Everything counts by default, as in the paper.
        top: the score is the mean of this share of the largest values (0.01: INP-Former's); 0 takes
            the largest value alone.

    Raises:
        ConfigError: for weights that do not fit, a grid that does not fit the tokens, or a share
            outside [0, 1].
    """
    if weights is not None and (set(weights) != set(distances) or min(weights.values()) < 0):
        raise ConfigError(
            f"weights must give each of {sorted(distances)} a number >= 0, got {dict(weights)}"
        )
    modalities = {name: upsample(values, size, grid) for name, values in distances.items()}
    fused = sum(
        ((1.0 if weights is None else weights[name]) * m for name, m in modalities.items()),
        start=jnp.zeros((), jnp.float32),
    )
    if valid is not None:
        fused = jnp.where(valid, fused, 0.0)
    return AnomalyMaps(fused, modalities, image_score(fused, valid, top))


def upsample(
    distance: Float[Array, "B N"], size: tuple[int, int], grid: tuple[int, int] | None = None
) -> Float32[Array, "B h w"]:
    """Token distances → smooth maps at the model's input size.

    Args:
        distance: one value per token, row by row.
        size: (h, w) of the map.
        grid: (g_h, g_w) of the tokens; a square by default.

    Raises:
        ConfigError: for a grid that does not hold the tokens.
    """
    batch, tokens = distance.shape
    rows, columns = (math.isqrt(tokens),) * 2 if grid is None else grid
    if rows * columns != tokens:
        raise ConfigError(
            f"{tokens} tokens do not fill a grid of {rows} x {columns}",
            "pass grid=(rows, columns) for pictures that are not square",
        )
    sigma = SIGMA * min(size)
    down = jnp.asarray(smooth_upsampling(rows, size[0], sigma))
    across = jnp.asarray(smooth_upsampling(columns, size[1], sigma))
    field = distance.astype(jnp.float32).reshape(batch, rows, columns)
    # TF32 on a GPU would leave three digits; this is 0.1 % of the work of one encoder block.
    return jnp.einsum("hr,brc,wc->bhw", down, field, across, precision=jax.lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=32)
def smooth_upsampling(tokens: int, pixels: int, sigma: float) -> Float32[np.ndarray, "p t"]:
    """The matrix that upsamples one axis and smooths it; rows sum to 1.

    Upsampling is bilinear with half-pixel centres (PyTorch's `align_corners=False`); the Gaussian
    reaches 4 sigma and reflects at the border about the edge of the last pixel (d c b a | a b c d:
    scipy's "reflect", numpy's "symmetric"), so that a constant stays constant.
    """
    centre = np.clip((np.arange(pixels) + 0.5) * (tokens / pixels) - 0.5, 0, tokens - 1)
    low = np.minimum(centre.astype(int), tokens - 1)
    high = np.minimum(low + 1, tokens - 1)
    bilinear = np.zeros((pixels, tokens))
    np.add.at(bilinear, (np.arange(pixels), low), 1 - (centre - low))
    np.add.at(bilinear, (np.arange(pixels), high), centre - low)

    radius = int(4 * sigma + 0.5)
    reach = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    source = (np.arange(pixels)[:, None] + reach) % (2 * pixels)
    source = np.where(source < pixels, source, 2 * pixels - 1 - source)
    gaussian = np.zeros((pixels, pixels))
    np.add.at(gaussian, (np.arange(pixels)[:, None], source), kernel / kernel.sum())
    return (gaussian @ bilinear).astype(np.float32)


def image_score(
    maps: Float[Array, "B h w"], valid: Bool[Array, "B h w"] | None = None, top: float = 0.0
) -> Float32[Array, " B"]:
    """One score per map: its largest value, or the mean of its largest values.

    Args:
        maps: anomaly maps, >= 0.
        valid: pixels that count; a map without any scores 0.
        top: share of the valid pixels to average, rounded up to a whole pixel; 0: the largest only.

    Raises:
        ConfigError: for a share outside [0, 1].
    """
    if not 0.0 <= top <= 1.0:
        raise ConfigError(f"top must be a share in [0, 1], got {top}", "0.01 is the largest 1 %")
    flat = maps.astype(jnp.float32).reshape(maps.shape[0], -1)
    if valid is not None:
        flat = jnp.where(valid.reshape(flat.shape), flat, 0.0)
    if top == 0.0:
        return flat.max(axis=1)
    most = max(1, math.ceil(top * flat.shape[1]))
    largest, _ = jax.lax.top_k(flat, most)
    if valid is None:
        return largest.mean(axis=1)
    count = valid.reshape(flat.shape).sum(axis=1, dtype=jnp.int32)
    kept = jnp.clip(jnp.ceil(top * count.astype(jnp.float32)), 1, most).astype(jnp.int32)
    counted = jnp.arange(most)[None, :] < kept[:, None]
    return jnp.where(counted, largest, 0.0).sum(axis=1) / kept.astype(jnp.float32)
