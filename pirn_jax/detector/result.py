"""What the device makes of a scan, beside the scan itself.

Dimension letters: M modalities, h w model pixels, K prototypes, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from pirn_jax.geometry.views import Views
from pirn_jax.scans.scan import Scan


class Inferred(NamedTuple):
    """What the device made of one scan.

    Attributes:
        score: image score.
        fused: anomaly map at the model's size.
        maps: of each modality, the same.
        usage: share of the tokens that each prototype of the last layer answers for; None for a
            method without prototypes.
        tokens: mean of the part's tokens; None where they are not at hand.
    """

    score: float
    fused: Float32[np.ndarray, "h w"]
    maps: Float32[np.ndarray, "M h w"]
    usage: Float[np.ndarray, "M K"] | None
    tokens: Float32[np.ndarray, "M C"] | None = None


class ScanResult(NamedTuple):
    """A scan, its views, and what came of them."""

    scan: Scan
    views: Views
    inferred: Inferred
