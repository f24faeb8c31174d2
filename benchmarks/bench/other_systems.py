"""CFM and INP-Former of the paper's Table 4, as random-weight forward passes in JAX.

For timing and FLOPs only: nothing here is trained or ever will be. Shapes and order of operations
follow the published code.

CFM (CVLAB-Unibo/crossmodal-feature-mapping): DINO ViT-B/8 on the photograph; Point-MAE on the
points (1024 centres by farthest-point sampling, 128 neighbours each, a small PointNet, 12 blocks of
384 channels); both spread over 224² pixels; an MLP each way at every pixel. Its boxes that smooth
the map are taken as they are: five of 5×5, three of 7×7.
INP-Former, two streams (luow23/INP-Former): DINOv2 ViT-B/14 with registers, 8 layers in two groups;
per stream 6 prototypes aggregated once per picture, a bottleneck MLP, 8 decoder blocks whose
attention to the prototypes is a ReLU of scaled cosines without softmax or residual.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pirn_jax.encoder import load_encoder
from pirn_jax.encoder.vit import attention
from pirn_jax.scoring.maps import upsample

SIDE, CENTRES, NEIGHBOURS, WIDTH = 224, 1024, 128, 384
POINTS = SIDE * SIDE // 2  # the part covers half of the picture
_random = np.random.default_rng(0)


def dense(inputs: int, outputs: int, *lead: int) -> dict[str, Array]:
    """A linear map, or several of them; random."""
    kernel = _random.standard_normal((*lead, inputs, outputs), np.float32) / inputs**0.5
    return {"kernel": jnp.asarray(kernel), "bias": jnp.zeros((*lead, 1, outputs))}


def apply(weights: dict[str, Array], x: Array) -> Array:
    """X W + b."""
    bias = weights["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ weights["kernel"] + bias


def norm(x: Array) -> Array:
    """LayerNorm without scale and shift."""
    return jax.nn.standardize(x, axis=-1, epsilon=1e-6)


def mlp(weights: list[dict[str, Array]], x: Array) -> Array:
    """Linear maps with GELU between them."""
    for layer in weights[:-1]:
        x = jax.nn.gelu(apply(layer, x), approximate=False)
    return apply(weights[-1], x)


# ---- CFM


def cfm() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The forward pass and its arguments: weights, a photograph, points, their pixels."""
    encoder = load_encoder("dino-vitb8", "random", SIDE, layers=(12,))
    weights = {
        "vit": encoder.parameters,
        "points": point_mae_weights(),
        "to_3d": [dense(*s) for s in ((768, 960), (960, 960), (960, 1152))],
        "to_rgb": [dense(*s) for s in ((1152, 960), (960, 960), (960, 768))],
    }
    given = jax.device_put((weights, *scan()))
    return functools.partial(_cfm, encoder.tokens), given


def scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph (1, h, w, 3), points (P, 3) and their pixels (P,)."""
    points = _random.standard_normal((POINTS, 3), np.float32)
    pixels = _random.permutation(SIDE * SIDE)[:POINTS].astype(np.int32)
    return _random.random((1, SIDE, SIDE, 3), np.float32), points, pixels


def point_mae_weights() -> dict[str, Any]:
    """Of the published size."""
    block = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH)}
    block |= {"fc1": (WIDTH, 4 * WIDTH), "fc2": (4 * WIDTH, WIDTH)}
    return {
        "small": [dense(*s) for s in ((3, 128), (128, 256), (512, 512), (512, WIDTH))],
        "place": [dense(3, 128), dense(128, WIDTH)],
        "blocks": [{name: dense(*shape) for name, shape in block.items()} for _ in range(12)],
    }


def _cfm(vit: Callable[..., Array], weights: Any, picture: Array, points: Array, pixels: Array):
    rgb = norm(vit(weights["vit"], picture)).reshape(28, 28, 768)
    rgb = jax.image.resize(rgb, (SIDE, SIDE, 768), "bilinear").reshape(-1, 768)
    solid = spread(weights["points"], points, pixels).reshape(-1, 1152)
    distance = _apart(mlp(weights["to_3d"], rgb), solid) * _apart(
        mlp(weights["to_rgb"], solid), rgb
    )
    seen = jnp.zeros(SIDE * SIDE).at[pixels].set(1.0)
    heatmap = (distance * seen).reshape(SIDE, SIDE, 1)
    for size in (5,) * 5 + (7,) * 3:
        heatmap = box(heatmap, size)
    return heatmap, heatmap.max()


def spread(weights: Any, points: Array, pixels: Array) -> Array:
    """Features of Point-MAE at every pixel (h, w, C), means over 3x3."""
    features = point_mae(weights, points)
    grid = jnp.zeros((SIDE * SIDE, features.shape[-1])).at[pixels].set(features)
    return box(grid.reshape(SIDE, SIDE, -1), 3)


def point_mae(weights: Any, points: Array) -> Array:
    """Features of every point."""
    centres = farthest(points)
    near = squared(centres, points)
    _, places = jax.lax.top_k(-near, NEIGHBOURS)
    group = points[places] - centres[:, None]
    first, second, third, fourth = weights["small"]
    inner = apply(second, jax.nn.relu(apply(first, group)))
    whole = jnp.broadcast_to(inner.max(axis=1, keepdims=True), inner.shape)
    inner = jax.nn.relu(apply(third, jnp.concatenate([whole, inner], -1)))
    tokens = apply(fourth, inner).max(axis=1)[None]
    place = mlp(weights["place"], centres)[None]
    kept = []
    for number, block in enumerate(weights["blocks"]):
        tokens = tokens + place
        qkv = apply(block["qkv"], norm(tokens)).reshape(1, CENTRES, 3, 6, WIDTH // 6)
        mixed = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        tokens = tokens + apply(block["out"], mixed.reshape(tokens.shape))
        tokens = tokens + mlp([block["fc1"], block["fc2"]], norm(tokens))
        if number in (3, 7, 11):
            kept.append(norm(tokens[0]))
    features = jnp.concatenate(kept, -1)
    closest, places = jax.lax.top_k(-near.T, 3)  # of every point
    share = 1 / (1e-8 - closest)
    share = share / share.sum(axis=1, keepdims=True)
    return (features[places] * share[..., None]).sum(axis=1)


def farthest(points: Array) -> Array:
    """Farthest-point sampling: each centre is the point farthest from those before."""

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        far, last = state
        far = jnp.minimum(far, jnp.sum((points - points[last][None]) ** 2, axis=1))
        return (far, jnp.argmax(far)), last

    start = (jnp.full(len(points), jnp.inf), jnp.argmax(points[:, 0]))
    return points[jax.lax.scan(step, start, None, length=CENTRES)[1]]


def squared(a: Array, b: Array) -> Array:
    """Squared distances of all of one to all of the other."""
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T


def _apart(a: Array, b: Array) -> Array:
    a, b = (x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12) for x in (a, b))
    return jnp.linalg.norm(a - b, axis=-1)


def box(x: Array, size: int) -> Array:
    """Means over windows; beyond the border lie zeros."""
    window = (size, size, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1), "SAME") / size**2


def cfm_flops() -> dict[str, float]:
    """GFLOPs by formula, matrix products only."""
    from pirn_jax.encoder import encoder_config

    mapped = SIDE * SIDE * (768 * 960 + 960 * 960 + 960 * 1152) * 2
    return {
        "ViT-B/8": encoder_config("dino-vitb8").flops((SIDE, SIDE)) / 1e9,
        "Point-MAE": point_mae_flops(),
        "two MLPs": 2 * mapped / 1e9,
    }


def point_mae_flops() -> float:
    """GFLOPs of its matrix products."""
    grouped = CENTRES * NEIGHBOURS
    small = grouped * (3 * 128 + 128 * 256 + 512 * 512 + 512 * WIDTH)
    block = CENTRES * 12 * WIDTH**2 + 2 * CENTRES**2 * WIDTH
    return 2 * (small + 12 * block + CENTRES * POINTS * 3) / 1e9


# ---- INP-Former

GROUPS = (3, 4, 5, 6), (7, 8, 9, 10)  # 1-based
STREAMS, PROTOTYPES, C, HEADS, DEPTH = 2, 6, 768, 12, 8


def inp_former() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The forward pass of both streams and its arguments: weights and a pair (2, h, w, 3)."""
    encoder = load_encoder("dinov2-base-reg", "random", SIDE)

    def block() -> dict[str, Any]:
        shapes = {"q": (C, C), "kv": (C, 2 * C), "out": (C, C)}
        shapes |= {"fc1": (C, 4 * C), "fc2": (4 * C, C)}
        found = {name: dense(*shape, STREAMS) for name, shape in shapes.items()}
        return found | {"heat": jnp.ones((STREAMS, HEADS, 1, 1))}

    weights = {
        "vit": encoder.parameters,
        "prototypes": jnp.asarray(
            _random.standard_normal((STREAMS, PROTOTYPES, C), np.float32) * 0.02
        ),
        "gather": block(),
        "narrow": [dense(C, 4 * C, STREAMS), dense(4 * C, C, STREAMS)],
        "blocks": [block() for _ in range(DEPTH)],
    }
    picture = _random.random((STREAMS, SIDE, SIDE, 3), np.float32)
    return functools.partial(_inp_former, encoder), jax.device_put((weights, picture))


def _inp_former(encoder: Any, weights: Any, pictures: Array) -> tuple[Array, Array]:
    wanted = GROUPS[0] + GROUPS[1]
    states = encoder._hidden_states(weights["vit"], pictures, wanted)
    stream = {name: value for name, value in weights.items() if name != "vit"}
    distances = jax.vmap(_stream)(stream, jnp.stack(states, 1))  # (streams, tokens)
    maps = upsample(distances, (SIDE, SIDE)).sum(axis=0)
    return maps, jax.lax.top_k(maps.reshape(-1), SIDE * SIDE // 100)[0].mean()


def _stream(weights: Any, states: Array) -> Array:
    """Distances (N,) of one stream from its states (8, N, C)."""
    tokens = states.mean(axis=0)
    prototypes = _cross(weights["gather"], weights["prototypes"], tokens, gather=True)
    x = mlp(weights["narrow"], tokens)
    outputs = []
    for block in weights["blocks"]:
        x = _cross(block, x, prototypes, gather=False)
        outputs.append(x)
    outputs = outputs[::-1]
    pairs = ((states[:4], outputs[:4]), (states[4:], outputs[4:]))
    return sum(
        1 - _cosine(target.mean(axis=0), sum(made) / len(made)) for target, made in pairs
    ) / len(pairs)


def _cosine(a: Array, b: Array) -> Array:
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / (lengths + 1e-8)


def _cross(weights: Any, x: Array, given: Array, *, gather: bool) -> Array:
    """Softmax attention with a residual (gather), or the guided one without either."""

    def cut(y: Array) -> Array:
        return y.reshape(len(y), HEADS, -1).swapaxes(0, 1)

    query = cut(apply(weights["q"], norm(x)))
    key, value = (cut(y) for y in jnp.split(apply(weights["kv"], norm(given)), 2, axis=-1))
    if gather:
        mixing = jax.nn.softmax(query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5, axis=-1)
    else:
        query, key = (y / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-8) for y in (query, key))
        mixing = jax.nn.relu(query @ key.swapaxes(1, 2) * weights["heat"])
    mixed = apply(weights["out"], (mixing @ value).swapaxes(0, 1).reshape(len(x), -1))
    x = x + mixed if gather else mixed
    return x + mlp([weights["fc1"], weights["fc2"]], norm(x))


def inp_former_flops() -> dict[str, float]:
    """GFLOPs by formula, matrix products only."""
    from pirn_jax.encoder import encoder_config

    tokens = (SIDE // 14) ** 2
    block = tokens * 10 * C * C + PROTOTYPES * 2 * C * C + 2 * tokens * PROTOTYPES * C
    gather = PROTOTYPES * 10 * C * C + tokens * 2 * C * C + 2 * tokens * PROTOTYPES * C
    decoder = STREAMS * (DEPTH * block + gather + tokens * 8 * C * C)
    return {
        "encoder": STREAMS * encoder_config("dinov2-base-reg").flops((SIDE, SIDE), 10) / 1e9,
        "decoder": 2 * decoder / 1e9,
    }
