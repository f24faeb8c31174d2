"""Shape-Guided's network: a patch of points becomes a code, and a code a signed distance anywhere.

    c     = encode(patch)                                   PointNet: the same for every order
    f(q)  = field(c, q)                                     the signed distance of a place q
    q'    = q - f(q) ∇f(q) / |∇f(q)|                        where q is pulled to
    loss  = mean over q of |p - q'|,  p the patch's nearest point to q

with places q around the patch's points p, at p + N(0, (σ h)²), h = 1/2 for 62.5 % of them, else 1.
No distance is ever given: a field that pulls every place onto the surface is a signed distance.

|         | published                                       | here                                |
|---------|-------------------------------------------------|-------------------------------------|
| encoder | 3 → 64 → 128 → 1024, BatchNorm, the largest of  | 3 → 64 → 128 → 256 …                |
|         | each channel → 512 → 128                        | → 128 → 128                         |
| field   | code and place → 512 each, eight layers of 512, | 128, and four layers; plain; and    |
|         | weights normalised                              | the place's depth z is added        |
| σ       | distance of each point to the 51st of its 500   | of the patch's centre to the tenth  |
|         | nearest                                         | part of its points                  |
| unit    | each patch its extent, in training alone        | one for all patches, always         |

Why z: it is the signed distance of a plane that faces the sensor, as surfaces of a scan mostly do,
and what is learned is how others differ. From z on 300 steps place a flat surface to 0.003 of a
patch's radius, where without it they leave 0.02 (median of good parts; flange, generated).

Source: Chu et al. 2023 (Shape-Guided, ICML) and its released code; the loss is that of Ma et al.
2021 (Neural-Pull, arXiv 2011.13495).

Dimension letters: B patches, K points of one, Q places, D channels of a code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params
from pirn_jax.methods.layers import (
    Moments,
    batch_norm,
    create_linear,
    create_norm,
    linear,
    moments_of,
)

POINT = (3, 64, 128, 256)  # channels of a point, layer after layer
CODE = 128  # D
WIDTH = 128  # channels inside the field
LAYERS = 4  # of the field; the first takes code and place
NEAR = 0.625  # of the places are half as far from the surface
SMALLEST = 1e-9  # below a root, which has no gradient at 0


def create(key: PRNGKeyArray) -> Params:
    """Encoder and field."""
    keys = iter(jax.random.split(key, len(POINT) + LAYERS + 6))
    points = {
        f"{name}{k}": create_linear(next(keys), *sizes)
        if name == "point"
        else create_norm(sizes[1])
        for k, sizes in enumerate(pairwise(POINT))
        for name in ("point", "norm")
    }
    inner = {f"layer{k}": create_linear(next(keys), WIDTH, WIDTH) for k in range(1, LAYERS)}
    return {
        "encoder": points
        | {
            "all1": create_linear(next(keys), POINT[-1], CODE),
            "all2": create_linear(next(keys), CODE, CODE),
        },
        "field": inner
        | {
            "code": create_linear(next(keys), CODE, WIDTH),
            "place": create_linear(next(keys), 3, WIDTH),
            "layer0": create_linear(next(keys), 2 * WIDTH, WIDTH),
            "leave": create_linear(next(keys), WIDTH, 1),
        },
    }


def encode(
    encoder: Params, patches: Float[Array, "B K 3"], known: Params | None = None
) -> tuple[Float[Array, "B D"], Params]:
    """Codes of patches, and the moments that were normalised by.

    Args:
        encoder: parameters.
        patches: about their mean, in the unit that all share.
        known: moments to normalise by; None: the batch's own.
    """
    x, used = patches, {}
    for k in range(len(POINT) - 1):
        x = linear(encoder[f"point{k}"], x)
        name = f"norm{k}"
        moments = moments_of(x) if known is None else Moments(**known[name])
        used[name] = moments._asdict()
        x = jax.nn.relu(batch_norm(encoder[name], x, moments))
    whole = x.max(1)
    return linear(encoder["all2"], jax.nn.relu(linear(encoder["all1"], whole))), used


def distance(
    field: Params, codes: Float[Array, "B D"], places: Float[Array, "B Q 3"]
) -> Float[Array, "B Q"]:
    """The signed distance of places to the surface of their patch's code."""
    of_code = jax.nn.relu(linear(field["code"], codes))
    of_place = jax.nn.relu(linear(field["place"], places))
    # The product of both side by side is the sum of each one's: a code's is made once.
    kernel, bias = field["layer0"]["kernel"], field["layer0"]["bias"]
    first = linear({"kernel": kernel[:WIDTH], "bias": bias}, of_code)
    second = linear({"kernel": kernel[WIDTH:], "bias": jnp.zeros_like(bias)}, of_place)
    x = jax.nn.relu(first[:, None] + second)
    for k in range(1, LAYERS):
        x = jax.nn.relu(linear(field[f"layer{k}"], x))
    return places[..., 2] + linear(field["leave"], x)[..., 0]


def pull(
    field: Params, codes: Float[Array, "B D"], places: Float[Array, "B Q 3"]
) -> Float[Array, "B Q 3"]:
    """Where the field moves places: along its gradient, by what it says."""
    away, back = jax.vjp(lambda q: distance(field, codes, q), places)
    (gradient,) = back(jnp.ones_like(away))  # of each place, as no other enters its distance
    return places - away[..., None] * gradient / length(gradient)[..., None]


def length(x: Float[Array, "*batch C"]) -> Float[Array, "*batch"]:
    """Of vectors, with a gradient also where they are 0."""
    return jnp.sqrt((x * x).sum(-1) + SMALLEST)


def nearest_of(
    patches: Float[Array, "B K 3"], places: Float[Array, "B Q 3"]
) -> Float[Array, "B Q 3"]:
    """The point of its patch that is nearest to each place."""

    def one(points: Float[Array, "K 3"], some: Float[Array, "Q 3"]) -> Float[Array, "Q 3"]:
        away = ((some[:, None] - points[None]) ** 2).sum(-1)
        return points[away.argmin(-1)]

    return jax.vmap(one)(patches, places)


class PullLoss(NamedTuple):
    """How far from the patch places are pulled to, with its optimizer."""

    learning_rate: float
    steps: int

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The mean distance; `batch` holds patches whose points are sorted by their distance."""
        del statistics
        patches = batch["patches"]
        for_noise, for_half = jax.random.split(key)
        spread = length(patches[:, patches.shape[1] // 10] - patches[:, 0])
        half = jnp.where(jax.random.uniform(for_half, patches.shape[:2]) < NEAR, 0.5, 1.0)
        noise = jax.random.normal(for_noise, patches.shape)
        places = patches + noise * (half * spread[:, None])[..., None]
        codes, _ = encode(parameters["encoder"], patches)
        moved = pull(parameters["field"], codes, places)
        return length(nearest_of(patches, places) - moved).mean()

    def optimizer(self) -> optax.GradientTransformation:
        """Adam, its rate falling to 0 along half a cosine."""
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
