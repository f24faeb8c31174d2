"""Anomaly values → colours, the same everywhere: black is `low`, the brightest yellow `high`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8


def colour_map(
    values: Float[np.ndarray, "H W"], low: float, high: float
) -> UInt8[np.ndarray, "H W 3"]:
    """A map in matplotlib's inferno.

    Args:
        values: of the map; what is not a number is drawn black.
        low: drawn black, as is everything below it.
        high: drawn brightest, as is everything above it. Where it is not above `low`, all is black.
    """
    from matplotlib import colormaps

    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return colormaps["inferno"](np.clip(share, 0, 1), bytes=True)[..., :3].copy()
