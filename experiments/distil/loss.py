"""How far a student's tokens are from the teacher's: a value, a direction, and a geometry term.

With t the teacher's token, μ and σ per channel over many pictures, and p the student's prediction
of z = (t - μ)/σ:

    L = smooth-L1(p, z) + w_c · (1 - cos(p σ, t - μ)) + w_r · mean((R(p σ) - R(t - μ))²)

R(x) is the matrix of cosines between the tokens of one picture, their mean over the picture taken
out first: which patches look alike, whatever the picture as a whole looks like. Anomaly detection
compares tokens by distance and by direction and within a part, so all three are asked for.

Source: smooth-L1 on standardised features and token relations as in feature and relational
distillation (arXiv 1904.05068); weights by our own first run.
Dimension letters: B pictures, N tokens of a picture, C channels of the teacher.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BEND = 0.5
"""Where smooth-L1 turns from a parabola to a line, in standard deviations."""
_TINY = 1e-4
"""Shortest length a token is divided by: constant pictures have none once their mean is out."""


class Statistics(NamedTuple):
    """Mean and standard deviation of the teacher's tokens, per channel."""

    mean: Float[Array | np.ndarray, " C"]
    deviation: Float[Array | np.ndarray, " C"]


class Losses(NamedTuple):
    """The loss and its three terms, without their weights."""

    total: Float[Array, ""]
    point: Float[Array, ""]
    direction: Float[Array, ""]
    relation: Float[Array, ""]


def distillation_loss(
    predicted: Float[Array, "B N C"],
    teacher: Float[Array, "B N C"],
    statistics: Statistics,
    *,
    direction_weight: float = 1.0,
    relation_weight: float = 4.0,
) -> Losses:
    """The loss of a batch, each term a mean over it.

    Args:
        predicted: standardised, as the student gives it.
        teacher: raw tokens.
        statistics: of the teacher.
        direction_weight: w_c.
        relation_weight: w_r.
    """
    mean = jnp.asarray(statistics.mean)[None, None]
    deviation = jnp.asarray(statistics.deviation)[None, None]
    wanted = teacher - mean
    point = jnp.mean(_smooth_l1(predicted - wanted / deviation))
    given = predicted * deviation
    direction = 1.0 - jnp.mean(jnp.sum(_unit(given) * _unit(wanted), axis=-1))
    relation = jnp.mean(jnp.square(_relations(given) - _relations(wanted)))
    total = point + direction_weight * direction + relation_weight * relation
    return Losses(total, point, direction, relation)


def _smooth_l1(x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
    size = jnp.abs(x)
    return jnp.where(size < BEND, 0.5 / BEND * jnp.square(x), size - 0.5 * BEND)


def _unit(x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
    # The square is bounded, not the length: a root has no gradient at zero.
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, _TINY**2))


def _relations(tokens: Float[Array, "B N C"]) -> Float[Array, "B N N"]:
    centred = _unit(tokens - jnp.mean(tokens, axis=1, keepdims=True))
    return jnp.einsum("bic,bjc->bij", centred, centred)
