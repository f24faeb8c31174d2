"""Pictures → maps and score in one compiled program; with another runtime for the encoder, in two.

Dimension letters: M modalities, B images, h w model pixels, N tokens, C channels, K prototypes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32

from pirn_jax.decoder import Params, Tokens
from pirn_jax.detector.result import Inferred
from pirn_jax.encoder import Encoder, tile_side
from pirn_jax.encoder.packed import Packed, unpack
from pirn_jax.methods.method import Method
from pirn_jax.scoring import score_distances

_log = logging.getLogger("pirn_jax")


class Outputs(NamedTuple):
    """What the device makes of a batch.

    Attributes:
        fused: anomaly maps.
        maps: of each modality.
        score: image scores.
        usage: share of the tokens that each prototype answers for; None where there are none.
        tokens: mean over each scan's valid tokens.
    """

    fused: Float32[Array, "B h w"]
    maps: Float32[Array, "M B h w"]
    score: Float32[Array, " B"]
    usage: Float[Array, "M B K"] | None
    tokens: Float32[Array, "M B C"]


@runtime_checkable
class FromPictures(Protocol):
    """Encoder, method and scoring."""

    def __call__(
        self,
        weights: Params | Packed,
        parameters: Params | Packed,
        statistics: Params | Packed,
        pictures: Float[Array | np.ndarray, "M B h w 3"],
        valid: Bool[Array | np.ndarray, "B N"],
    ) -> Outputs:
        """What the device makes of pictures; `weights` are the encoder's."""
        ...


@runtime_checkable
class FromTokens(Protocol):
    """Method and scoring."""

    def __call__(
        self, parameters: Params | Packed, statistics: Params | Packed, tokens: Tokens
    ) -> Outputs:
        """What the device makes of tokens."""
        ...


class Inference(NamedTuple):
    """The compiled programs of a method with an encoder; their parameters may be packed."""

    from_pictures: FromPictures
    from_tokens: FromTokens


def mean_tokens(tokens: Tokens) -> Float32[Array, "M B C"]:
    """The mean over each scan's valid tokens."""
    values = tokens.values.astype(jnp.float32)
    if tokens.valid is None:
        return values.mean(axis=2)
    counted = tokens.valid[None, :, :, None]
    total = jnp.where(counted, values, 0.0).sum(axis=2)
    return total / jnp.maximum(counted.sum(axis=2, dtype=jnp.float32), 1.0)


@functools.lru_cache(maxsize=4)
def build_inference(encoder: Encoder, method: Method, top: float, own_level: float) -> Inference:
    """The programs, compiled once for all models of a method when they are first called.

    Args:
        encoder: for pictures of its size.
        method: gives tokens distances.
        top: share of a map's largest values whose mean is the image score; 0: the largest.
        own_level: share of a picture's own level that is taken off its distances.
    """
    _log.info("compiling encoder, method and scoring into one program; the next run finds it kept")

    def from_tokens(
        parameters: Params | Packed, statistics: Params | Packed, tokens: Tokens
    ) -> Outputs:
        distance, usage = method.distances(unpack(parameters), unpack(statistics), tokens)
        maps = score_distances(
            distance,
            encoder.image_size,
            valid=None if tokens.valid is None else jnp.asarray(tokens.valid),
            grid=encoder.grid,
            own_level=own_level,
            top=top,
            side=tile_side(min(encoder.image_size), encoder.tiles),
        )
        return Outputs(maps.fused, maps.modalities, maps.score, usage, mean_tokens(tokens))

    def from_pictures(
        weights: Params | Packed,
        parameters: Params | Packed,
        statistics: Params | Packed,
        pictures: Float[Array, "M B h w 3"],
        valid: Bool[Array, "B N"],
    ) -> Outputs:
        stacked = pictures.reshape(-1, *pictures.shape[2:])
        values = encoder.tokens(weights, stacked)
        values = values.reshape(*pictures.shape[:2], *values.shape[1:])
        return from_tokens(parameters, statistics, Tokens(values, valid))

    compiled = jax.jit(from_tokens)
    if encoder.runtime == "jax":
        return Inference(jax.jit(from_pictures), compiled)

    def in_two(
        weights: Params | Packed,
        parameters: Params | Packed,
        statistics: Params | Packed,
        pictures: Float[Array | np.ndarray, "M B h w 3"],
        valid: Bool[Array | np.ndarray, "B N"],
    ) -> Outputs:
        del weights  # the other runtime has its own
        values = encoder(pictures.reshape(-1, *pictures.shape[2:]))
        values = values.reshape(*pictures.shape[:2], *values.shape[1:])
        return compiled(parameters, statistics, Tokens(values, valid))

    return Inference(in_two, compiled)


def each_scan(found: Outputs, count: int) -> Iterator[Inferred]:
    """The first so many scans of what a program returned."""
    fused, maps, score, usage, tokens = jax.device_get(found)
    for place in range(count):
        shares = None if usage is None else usage[:, place]
        yield Inferred(float(score[place]), fused[place], maps[:, place], shares, tokens[:, place])
