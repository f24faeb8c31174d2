"""Tokens and their reconstruction → anomaly maps and image scores, all on the device.

Each modality's distances on the token grid are upsampled bilinearly to the size of the model's
input and smoothed with a Gaussian; the modalities are summed; the image's score is the largest
value. Upsampling and smoothing are linear and separable, so each axis folds into one
small dense matrix, made once: map = U_h D U_w^T. Every function here is pure and may be traced: the
decoder, the map and the score are one jitted call.

Source: paper, sec. 3.4 (training and inference) and sec. 4 ("upsampling and Gaussian smoothing").
The sigma it leaves open is 4 pixels at 224 (4/224 of the side at other sizes, of a tile's where the
picture was cut into such), as PatchCore and M3DM have it: docs/decisions.md, 15.
Differs from the paper: nothing by default; the mean of the largest values may be the score
(INP-Former takes the largest 1 %), and distances may be taken from the picture's own level.

Letters: M modalities, B batch, N tokens on a grid of g_h x g_w, C channels, h w model pixels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32

from pirn_jax.errors import ConfigError

SIGMA = 4 / 224  # of the Gaussian, as a share of the shorter side of what the encoder saw


class AnomalyMaps(NamedTuple):
    """What scoring makes of a batch.

    Attributes:
        fused: sum of the modalities' maps, >= 0.
        modalities: the map of each; in [0, 2] for cosine distances.
        score: image score of each picture, >= 0.
    """

    fused: Float32[Array, "B h w"]
    modalities: Float32[Array, "M B h w"]
    score: Float32[Array, " B"]


def score_distances(
    distances: Float[Array, "M B N"],
    size: tuple[int, int],
    *,
    valid: Bool[Array, "B N"] | None = None,
    grid: tuple[int, int] | None = None,
    own_level: float = 0.0,
    top: float = 0.0,
    side: int | None = None,
) -> AnomalyMaps:
    """Anomaly maps and scores of a batch from the distance of each token, whatever method's.

    Args:
        distances: of each modality's tokens, >= 0.
        size: (h, w) of the model's input.
        valid: which tokens count; the others, which are no part of the object, are held to be
            perfectly rebuilt. None: all count.
        grid: (g_h, g_w) of the tokens; a square by default.
        own_level: the share of `above_own_level` that is taken off first.
        top: the score is the mean of this share of the largest values (0.01: INP-Former's); 0 takes
            the largest value alone.
        side: as for `upsample`.

    Raises:
        ConfigError: for a grid that does not fit the tokens, or a share outside [0, 1].
    """
    m, b, n = distances.shape
    if own_level:
        counted = jnp.ones((b, n), bool) if valid is None else valid
        distances = above_own_level(distances, counted, own_level)
    if valid is not None:
        distances = jnp.where(valid[None], distances, 0.0)
    each = upsample(distances.reshape(m * b, n), size, grid, side).reshape(m, b, *size)
    fused = each.sum(0)
    return AnomalyMaps(fused, each, image_score(fused, top))


def above_own_level(
    distances: Float[Array, "M B N"], valid: Bool[Array, "B N"], share: float
) -> Float[Array, "M B N"]:
    """Distances less what the picture has everywhere, so that it is no defect of every place.

    Another light moves all tokens of a picture, a defect those that it covers. What is taken off
    each modality is a share of its lower quartile: of the ceil(n/4)-th smallest of the picture's n
    distances that count. A part that is wrong all over keeps the rest.

    Args:
        distances: of each modality's tokens, >= 0.
        valid: which tokens count.
        share: of the quartile, in [0, 1].

    Returns:
        The distances, >= 0; of tokens that do not count as well.
    """
    lowest = math.ceil(distances.shape[-1] / 4)
    counted = jnp.where(valid[None], distances, jnp.inf)
    ordered = -jax.lax.top_k(-counted, lowest)[0]
    quarter = valid.sum(-1, dtype=jnp.float32)[None, :, None] / 4
    number = jnp.arange(1, lowest + 1, dtype=jnp.float32)[None, None]
    chosen = (number >= quarter) & (number < quarter + 1)
    quartile = jnp.where(chosen, ordered, 0.0).sum(-1, keepdims=True)
    return jnp.maximum(distances - share * quartile, 0.0)


def upsample(
    distance: Float[Array, "B N"],
    size: tuple[int, int],
    grid: tuple[int, int] | None = None,
    side: int | None = None,
) -> Float32[Array, "B h w"]:
    """Token distances → smooth maps at the model's input size.

    Args:
        distance: one value per token, row by row.
        size: (h, w) of the map.
        grid: (g_h, g_w) of the tokens; a square by default.
        side: the shorter one, in pixels, of what the encoder saw at once, to which the smoothing
            is in proportion; that of the map by default, less where it is of tiles.

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
    sigma = SIGMA * (min(size) if side is None else side)
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


def image_score(maps: Float[Array, "B h w"], top: float = 0.0) -> Float32[Array, " B"]:
    """One score per map: its largest value, or the mean of its largest values.

    Args:
        maps: anomaly maps, >= 0.
        top: share of the pixels to average, rounded up to a whole pixel; 0: the largest only.

    Raises:
        ConfigError: for a share outside [0, 1].
    """
    if not 0.0 <= top <= 1.0:
        raise ConfigError(f"top must be a share in [0, 1], got {top}", "0.01 is the largest 1 %")
    flat = maps.astype(jnp.float32).reshape(maps.shape[0], -1)
    if top == 0.0:
        return flat.max(axis=1)
    largest, _ = jax.lax.top_k(flat, max(1, math.ceil(top * flat.shape[1])))
    return largest.mean(axis=1)
