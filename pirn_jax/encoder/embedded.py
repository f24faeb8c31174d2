"""pirn-tiny: the encoder whose weights come with the package, and where they come from.

A Vision Transformer of 192 channels, 12 blocks and 3 heads, trained to tell from a picture of
224 px what PIRN reads of DINOv2-small: the mean of its blocks 2 to 10. Its last block, normalised,
passes a linear head to the teacher's 384 channels. The head W has rank 192, so the tokens fit in
192 channels without losing a distance:

    |W h + b - (W h' + b)| = |A (h + c) - A (h' + c)|,    A = (WᵀW)^½,    c = W⁺b

The symmetric square root is the one such matrix that is unique, the same on every machine, and near
to what it is multiplied with, so that no channel holds a principal axis alone: scaling each channel
to unit variance does not blow up the weakest. c keeps that part of b that W reaches, so that
cosines are nearly the teacher's too. What was measured, on what it was trained: docs/encoders.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.source import Source, sha256_of
from pirn_jax.errors import WeightsError

NAME = "pirn-tiny"
FILE = Path(__file__).with_name("pirn_tiny.safetensors")
SHA256 = "b820a0bbc9ba60a30962088124ac6748ef7563b849ab18ef8a3e9c66a05d03c9"
PROVENANCE = (
    "pirn-tiny comes with pirn_jax (Apache-2.0); distilled from DINOv2-small (Apache-2.0) with "
    "pictures under CC0, MIT and BSD-3-Clause and renderings of public meshes; docs/encoders.md"
)


def embedded_weights(config: EncoderConfig) -> Source | None:
    """The weights of this encoder that lie in the package, or None where there are none.

    Raises:
        WeightsError: the package's file is missing or is not what was shipped.
    """
    if config.name != NAME:
        return None
    remedy = "install pirn_jax again: pip install --force-reinstall --no-deps pirn-jax"
    if not FILE.is_file():
        raise WeightsError("is missing from the package", remedy, FILE)
    digest = sha256_of(FILE)
    if digest != SHA256:
        raise WeightsError(f"is damaged: SHA-256 {digest}, expected {SHA256}", remedy, FILE)
    return Source(str(FILE), digest, about=PROVENANCE)


def folded_kernel(head: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "C C"]:
    """(WᵀW)^½: channels in which distances are those behind the head W."""
    wide = head.astype(np.float64)
    squares, axes = np.linalg.eigh(wide.T @ wide)
    return ((axes * np.sqrt(np.maximum(squares, 0.0))) @ axes.T).astype(np.float32)


def folded_bias(
    head: Float[np.ndarray, "T C"], bias: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    """(WᵀW)^½ W⁺ b: the part of the head's bias b that its matrix W reaches."""
    wide = head.astype(np.float64)
    squares, axes = np.linalg.eigh(wide.T @ wide)
    # A W⁺ b = (WᵀW)^-½ Wᵀ b
    lengths = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    return (axes @ ((axes.T @ (wide.T @ bias)) / lengths)).astype(np.float32)
