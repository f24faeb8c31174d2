"""M3DM's fusion: each patch's two descriptions, drawn to each other and away from all others.

    fuse(x) = MLP(LayerNorm(x))  of each modality, side by side: the fused token
    loss    = 2 · mean_i -log softmax_j(q_i · k_j)_i,   q, k = unit(head(fuse(x)))

with q of the photograph and k of the geometry, over the patches of one image (patch-wise InfoNCE,
temperature 1). The heads are of use in training only.

|            | published                                       | here                              |
|------------|-------------------------------------------------|-----------------------------------|
| training   | once, on all parts of all categories: 3 epochs  | on the shots: `steps`, the first  |
|            | (750 steps in the paper), the first to warm up  | third to warm up                  |
| batch      | 16 images, gradients of 16 batches added up     | up to 16 images                   |
| optimiser  | AdamW 0.003, β 0.9 and 0.95, half a cosine to 0 | the same                          |
| left out   | patches of which any channel is 0               | those that do not show the part   |

Source: Wang et al. 2023 (M3DM, arXiv 2303.00601), section 3.3, and its released code.

Dimension letters: S images, N patches, C channels, T steps, B images of a step.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from pirn_jax.decoder import Params
from pirn_jax.methods.layers import create_linear, linear, product

HEAD = 256  # channels in which patches are compared in training
RATIO = 4  # of the MLPs' inner channels to their outer
LARGEST_BATCH = 16
EPSILON = 1e-5  # of LayerNorm
RATE, MOMENT1, MOMENT2, DECAY, SMALLEST = 3e-3, 0.9, 0.95, 1e-2, 1e-8  # of AdamW


def create(seed: int, channels: tuple[int, int]) -> Params:
    """Networks for a photograph's and a geometry's tokens, as PyTorch starts linear maps."""
    keys = iter(jax.random.split(jax.random.key(seed), 6))

    def network(width: int) -> Params:
        return {
            "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
            "fc1": create_linear(next(keys), width, RATIO * width),
            "fc2": create_linear(next(keys), RATIO * width, width),
            "head": create_linear(next(keys), width, HEAD),
        }

    return {"rgb": network(channels[0]), "geometry": network(channels[1])}


def fuse(parameters: Params, x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """One modality's half of the fused tokens."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    norm = parameters["norm"]
    x = (x - mean) * jax.lax.rsqrt(variance + EPSILON)
    x = x * _row(norm["scale"], x) + _row(norm["bias"], x)
    inner = jax.nn.gelu(linear(parameters["fc1"], x), approximate=False)
    return linear(parameters["fc2"], inner)


def contrast(
    parameters: Params,
    rgb: Float[Array, "N C"],
    geometry: Float[Array, "N D"],
    valid: Bool[Array, " N"],
) -> Array:
    """The loss of one image; patches that are not valid are in neither role.

    Args:
        parameters: of both networks.
        rgb: tokens of the photograph.
        geometry: tokens of the geometry.
        valid: which patches show the part; without any the loss is 0.
    """

    def compared(name: str, tokens: Array) -> Array:
        x = linear(parameters[name]["head"], fuse(parameters[name], tokens))
        length = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.maximum(length, 1e-12)

    logits = product(compared("rgb", rgb), compared("geometry", geometry).T)
    logits = jnp.where(valid[None, :], logits, -1e30)
    own = -jnp.diagonal(jax.nn.log_softmax(logits, axis=-1))
    count = valid.sum(dtype=jnp.float32)
    return 2.0 * jnp.where(valid, own, 0.0).sum() / jnp.maximum(count, 1.0)


def train(
    seed: int,
    rgb: Float[np.ndarray, "S N C"],
    geometry: Float[np.ndarray, "S N D"],
    valid: Bool[np.ndarray, "S N"],
    count: int,
    steps: int,
) -> tuple[Params, Float[np.ndarray, " T"]]:
    """Both networks, without their heads, and the loss before each step.

    Args:
        seed: of the first parameters and the batches.
        rgb: tokens of the shots' photographs.
        geometry: tokens of their geometry.
        valid: which show the part.
        count: images there are; those after them are padding, in which nothing is valid.
        steps: T.
    """
    size = min(len(rgb), LARGEST_BATCH)
    own = min(count, size)  # the rest of a batch is padding, and counts for nothing
    random = np.random.default_rng(seed)
    orders = [random.permutation(count) for _ in range(-(-steps * own // count))]
    batches = np.full((steps, size), len(rgb) - 1)
    batches[:, :own] = np.concatenate(orders)[: steps * own].reshape(steps, own)
    start = create(seed, (rgb.shape[-1], geometry.shape[-1]))
    given = (rgb, geometry, valid, batches.astype(np.int32), rates(steps))
    parameters, losses = _run(start, *map(jnp.asarray, given))
    for network in parameters.values():
        del network["head"]
    return jax.tree.map(np.asarray, parameters), np.asarray(losses)


@jax.jit
def _run(
    parameters: Params,
    rgb: Float[Array, "S N C"],
    geometry: Float[Array, "S N D"],
    valid: Bool[Array, "S N"],
    batches: Int[Array, "T B"],
    rate: Float[Array, " T"],
) -> tuple[Params, Float[Array, " T"]]:
    def loss(parameters: Params, places: Array) -> Array:
        each = jax.vmap(functools.partial(contrast, parameters))
        count = jnp.any(valid[places], axis=-1).sum(dtype=jnp.float32)
        found = each(rgb[places], geometry[places], valid[places])
        return found.sum() / jnp.maximum(count, 1.0)

    def update(
        state: tuple[Params, Params, Params], chosen: tuple[Array, Array, Array]
    ) -> tuple[tuple[Params, Params, Params], Array]:
        (parameters, mean, square), (places, rate, step) = state, chosen
        value, gradient = jax.value_and_grad(loss)(parameters, places)
        mean = jax.tree.map(lambda m, g: MOMENT1 * m + (1 - MOMENT1) * g, mean, gradient)
        square = jax.tree.map(lambda s, g: MOMENT2 * s + (1 - MOMENT2) * g * g, square, gradient)
        first, second = 1 - MOMENT1**step, 1 - MOMENT2**step

        def moved(p: Array, m: Array, s: Array) -> Array:  # AdamW
            return p - rate * (m / first / (jnp.sqrt(s / second) + SMALLEST) + DECAY * p)

        return (jax.tree.map(moved, parameters, mean, square), mean, square), value

    none = jax.tree.map(jnp.zeros_like, parameters)
    steps = jnp.arange(1, len(batches) + 1, dtype=jnp.float32)
    (parameters, _, _), losses = jax.lax.scan(
        update, (parameters, none, none), (batches, rate, steps)
    )
    return parameters, losses


def rates(steps: int) -> Float[np.ndarray, " T"]:
    """The learning rate of each step: from 0 up in a line for a third, then half a cosine down."""
    warm = max(1, steps // 3)
    step = np.arange(steps)
    fall = 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm)))
    return (RATE * np.where(step < warm, step / warm, fall)).astype(np.float32)


def _row(vector: Array | np.ndarray, x: Array) -> Array | np.ndarray:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))
