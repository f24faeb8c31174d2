"""What counts as a measured point, and the warning of everything here that did less than asked."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


class GeometryWarning(UserWarning):
    """A result is usable, but not what was asked for: a fallback was taken, and this says which."""


def measured(xyz: Float[np.ndarray, "*batch H W 3"]) -> Bool[np.ndarray, "*batch H W"]:
    """Pixels that carry a point: all coordinates finite, and not all of them zero.

    Differs from the paper: its code base asks for three non-zero coordinates, which also drops the
        real points of the row and column through the optical axis.
    """
    return np.isfinite(xyz).all(-1) & (xyz != 0).any(-1)
