"""INP-Former's network: the decoder may only use what the image's own tokens share.

A few prototypes gather what is common to an image's tokens x (cross-attention, once per image); a
decoder then rebuilds the tokens from these prototypes alone. With h heads and LayerNorm LN:

    P   = aggregate(learned prototypes, x)            softmax cross-attention and MLP, residual
    x_0 = MLP(x)                                       the bottleneck
    y   = relu(s_h cos(q(LN x_i), k(LN P))) v(LN P)    no softmax, and no residual: no way round P
    x_i+1 = y + MLP(LN y)

The encoder's layers are compared in two groups, with the decoder's blocks in reverse: the mean of
the earlier half of the layers with that of the later half of the blocks.

Source: Luo et al. 2025 (INP-Former, arXiv 2503.02424) and its released few-shot code.

Dimension letters: N tokens, C channels of a group, G groups, K prototypes, B images, H heads, D
channels per head.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params

GROUPS = 2
NORM_EPSILON = 1e-8


class Size(NamedTuple):
    """Of a network: K, the decoder's blocks, C and H."""

    prototypes: int
    blocks: int
    channels: int
    heads: int


def create(size: Size, key: PRNGKeyArray) -> Params:
    """Params before training; those of the decoder's blocks lead with the block."""
    c, keys = size.channels, iter(jax.random.split(key, 16))

    def linear(inputs: int, outputs: int, *lead: int) -> Params:
        drawn = jax.random.truncated_normal(next(keys), -3.0, 3.0, (*lead, inputs, outputs))
        return {"kernel": 0.01 * drawn, "bias": jnp.zeros((*lead, outputs))}

    def norm(*lead: int) -> Params:
        return {"scale": jnp.ones((*lead, c)), "bias": jnp.zeros((*lead, c))}

    def block(*lead: int) -> Params:
        return {
            "norm1": norm(*lead),
            "query": linear(c, c, *lead),
            "key_value": linear(c, 2 * c, *lead),
            "out": linear(c, c, *lead),
            "norm2": norm(*lead),
            "fc1": linear(c, 4 * c, *lead),
            "fc2": linear(4 * c, c, *lead),
        }

    return {
        "prototypes": jax.random.normal(next(keys), (size.prototypes, c)),
        "aggregation": block(),
        "bottleneck": {"fc1": linear(c, 4 * c), "fc2": linear(4 * c, c)},
        "decoder": block(size.blocks) | {"sharpness": jnp.ones((size.blocks, size.heads))},
    }


@partial(jax.jit, static_argnums=0)
def create_streams(size: Size, keys: Array) -> Params:
    """`create` for each key; every leaf leads with it."""
    return jax.vmap(partial(create, size))(keys)


def forward(
    parameters: Params, tokens: Float[Array, "B N GC"], heads: int
) -> tuple[Float[Array, "G B N C"], Float[Array, "G B N C"], Float[Array, ""]]:
    """The tokens of each group, what the decoder makes of them, and the coherence loss."""
    targets = jnp.stack(jnp.split(tokens, GROUPS, axis=-1))
    mean = targets.mean(0)
    prototypes = jnp.broadcast_to(
        parameters["prototypes"][None], (mean.shape[0], *parameters["prototypes"].shape)
    )
    prototypes = aggregate(parameters["aggregation"], prototypes, mean, heads)
    coherence = (1.0 - unit(mean) @ unit(prototypes).swapaxes(-1, -2)).min(-1).mean()
    bottleneck = parameters["bottleneck"]

    def decode(x: Array, block: Params) -> tuple[Array, Array]:
        x = rebuild(block, x, prototypes, heads)
        return x, x

    _, outputs = jax.lax.scan(decode, mlp(bottleneck, mean), parameters["decoder"])
    reverse = outputs[::-1]
    rebuilt = reverse.reshape(GROUPS, -1, *reverse.shape[1:]).mean(1)
    return targets, rebuilt, coherence


def aggregate(
    block: Params, prototypes: Float[Array, "B K C"], x: Float[Array, "B N C"], heads: int
) -> Float[Array, "B K C"]:
    """Prototypes that gather what the tokens share."""
    q, k, v = attend(block, prototypes, x, heads)
    weight = jax.nn.softmax(jnp.einsum("bkhd,bnhd->bhkn", q, k) * q.shape[-1] ** -0.5, axis=-1)
    prototypes = prototypes + linear(block["out"], merged(weight, v))
    return prototypes + mlp(block, normalised(block["norm2"], prototypes))


def rebuild(
    block: Params, x: Float[Array, "B N C"], prototypes: Float[Array, "B K C"], heads: int
) -> Float[Array, "B N C"]:
    """Tokens made of prototypes, the nearer ones weighing more."""
    q, k, v = attend(block, x, prototypes, heads)
    cosine = jnp.einsum("bnhd,bkhd->bhnk", unit(q), unit(k))
    weight = jax.nn.relu(cosine * block["sharpness"][None, :, None, None])
    y = linear(block["out"], merged(weight, v))
    return y + mlp(block, normalised(block["norm2"], y))


def attend(
    block: Params, x: Float[Array, "B X C"], y: Float[Array, "B Y C"], heads: int
) -> tuple[Float[Array, "B X H D"], Float[Array, "B Y H D"], Float[Array, "B Y H D"]]:
    """Queries of x, keys and values of y, both after one and the same LayerNorm."""
    q = linear(block["query"], normalised(block["norm1"], x))
    kv = linear(block["key_value"], normalised(block["norm1"], y))
    k, v = jnp.split(kv, 2, axis=-1)
    q, k, v = (z.reshape(*z.shape[:2], heads, -1) for z in (q, k, v))
    return q, k, v


def merged(weight: Float[Array, "B H X Y"], v: Float[Array, "B Y H D"]) -> Float[Array, "B X C"]:
    """Weighted values, the heads side by side again."""
    mixed = jnp.einsum("bhxy,byhd->bxhd", weight, v)
    return mixed.reshape(*mixed.shape[:2], -1)


def linear(layer: Params, x: Float[Array, "B X _"]) -> Float[Array, "B X _"]:
    """X W + b, as one product of matrices."""
    kernel = layer["kernel"]
    flat = x.reshape(-1, x.shape[-1]) @ kernel
    return flat.reshape(*x.shape[:2], -1) + layer["bias"][None, None]


def mlp(layers: Params, x: Float[Array, "B X C"]) -> Float[Array, "B X C"]:
    """Two layers around an exact GELU."""
    return linear(layers["fc2"], jax.nn.gelu(linear(layers["fc1"], x), approximate=False))


def normalised(layer: Params, x: Float[Array, "B X C"]) -> Float[Array, "B X C"]:
    """LayerNorm."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
    return scaled * layer["scale"][None, None] + layer["bias"][None, None]


def unit(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """Brought to length 1; its gradient is finite at 0."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-24))
