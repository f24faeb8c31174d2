"""The coreset: few tokens that leave no token of a bank far away.

Greedy k-centre: from the first token on, the token that is farthest from all chosen so far is
chosen next.

Differs from what is published: PatchCore's code measures distances after a random projection
    (BTF and M3DM by scikit-learn's, of a relative error of 0.9), in half precision. With few shots
    the exact ones cost less than the projection.

Source: Roth et al. 2022 (PatchCore, arXiv 2106.08265), Algorithm 1.

Dimension letters: T tokens, C channels, S of them kept.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32, Int


def coreset(tokens: Float32[np.ndarray, "T C"], share: float) -> Float32[np.ndarray, "S C"]:
    """That share of the tokens, rounded up, in the order in which they were chosen; 1: as given."""
    if share == 1:
        return tokens
    return tokens[choose(tokens, math.ceil(share * len(tokens)))]


def choose(tokens: Float[np.ndarray, "T C"], count: int) -> Int[np.ndarray, " S"]:
    """Places of the tokens chosen; the first is the first token.

    Args:
        tokens: at least one.
        count: how many to choose; all of them where there are fewer.
    """
    # About their mean, so that the expanded square loses less to rounding.
    centred = tokens - tokens.mean(0)
    squares = (centred * centred).sum(-1)
    chosen = [0]
    distances = np.full(len(tokens), np.inf, tokens.dtype)
    while len(chosen) < min(count, len(tokens)):
        last = chosen[-1]
        away = squares + squares[last] - 2.0 * (centred @ centred[last])
        distances = np.minimum(distances, away)
        distances[last] = -np.inf  # never twice, even among equal ones
        chosen.append(int(distances.argmax()))
    return np.array(chosen)
