"""How near a student is to its teacher on pictures that it never learned from.

    centred cosine = mean cos(s - μ, t - μ)        R² = 1 - Σ|s - t|² / Σ|t - t̄|²

with μ the teacher's mean over training pictures, and t̄ that of the pictures looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Int

from distil.program import Comparison


class Figures(TypedDict):
    """Of one set of pictures; cosine_in_picture compares tokens less their picture's mean."""

    pictures: int
    cosine: float
    cosine_in_picture: float
    r2: float


def figures(
    found: Comparison, tokens: int, sources: Int[np.ndarray, " m"], names: Sequence[str]
) -> dict[str, Figures]:
    """Of all pictures, and of each source where there are several.

    Args:
        found: a number a picture.
        tokens: of a picture.
        sources: of each picture, an index into `names`.
        names: of the sources.
    """
    sets = {"all": np.ones(len(sources), bool)}
    if len(names) > 1:
        sets |= {name: sources == i for i, name in enumerate(names)}
    return {name: _figures(found, tokens, chosen) for name, chosen in sets.items() if chosen.any()}


def _figures(found: Comparison, tokens: int, chosen: np.ndarray) -> Figures:
    own = Comparison(*(np.asarray(value, np.float64)[chosen] for value in found))
    count = len(own.cosine)
    mean = own.tokens.sum(axis=0) / (count * tokens)
    spread = own.squares.sum() - count * tokens * np.square(mean).sum()
    return Figures(
        pictures=count,
        cosine=float(own.cosine.mean()),
        cosine_in_picture=float(own.cosine_in_picture.mean()),
        r2=float(1 - own.error.sum() / spread),
    )


def said(results: dict[str, Figures]) -> str:
    """One line."""
    return "; ".join(
        f"{name} ({f['pictures']}): cosine {f['cosine']:.4f}, within a picture "
        f"{f['cosine_in_picture']:.4f}, R² {f['r2']:.4f}"
        for name, f in results.items()
    )
