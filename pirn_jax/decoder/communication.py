"""MNC: the modalities tell each other what is normal (paper, section 3.4).

Stage 1: the 2K prototypes are the nodes of a graph; each listens to its nearest neighbours in the
other modality and to itself, by multi-head graph attention:

    h = p W,   e_ij = LeakyReLU(a_dst·h_i + a_src·h_j),   p'_i = p_i + ELU(Σ_j softmax_j(e_ij) h_j)

Stage 2: purified tokens Z' attend to the other modality's aligned prototypes P':

    CA(Z', P') = softmax(Z' W_Q (P' W_K)ᵀ / √C) (P' W_V)                        Eq. 3
    Z_mnc = Z' + tanh(γ) · CA(Z', P')                                           Eq. 4

Dimension letters: B batch, N tokens, K prototypes, C channels, H heads; the two modalities are
axis 0, of length 2.
Differs from the paper: k = 3 neighbours, 4 heads, self edges and the residual of stage 1 are ours
(docs/decisions.md, 9), and γ starts at 0.1 (docs/decisions.md, 10).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.decoder.distance import unit_vectors
from pirn_jax.decoder.refinement import stacked_normal
from pirn_jax.errors import ConfigError

LEAK = 0.2  # of LeakyReLU, as in Veličković et al. 2018


def nearest_across(
    prototypes: Float[Array, "2 B K C"], neighbours: int
) -> Int[Array, "B K2 neighbours"]:
    """For each of the 2K nodes, the nodes of the other modality with the largest cosines."""
    k = prototypes.shape[2]
    directions = unit_vectors(prototypes)
    cosine = jnp.einsum(
        "bkc,bjc->bkj", directions[0], directions[1], precision=jax.lax.Precision.HIGHEST
    )
    nearest = largest_places(
        jnp.concatenate([cosine, jnp.swapaxes(cosine, -1, -2)], axis=1), neighbours
    )
    return nearest + jnp.where(jnp.arange(2 * k) < k, k, 0)[None, :, None]


def largest_places(values: Float[Array, "*batch K"], count: int) -> Int[Array, "*batch count"]:
    """Places of the largest values, as `jax.lax.top_k` gives them, without sorting the others.

    A few maxima, one after the other: on a GPU a general sort costs more than all of them.
    """
    each, found = jnp.arange(values.shape[-1]), []
    for _ in range(count):
        place = jnp.argmax(values, axis=-1)  # of equal values the first, as in top_k
        found.append(place)
        taken = each.reshape((1,) * place.ndim + (-1,)) == place[..., None]
        values = jnp.where(taken, -jnp.inf, values)
    return jnp.stack(found, axis=-1)


def attend_jraph(
    nodes: Float[Array, "B K2 H D"],
    logits: tuple[Float[Array, "B K2 H"], Float[Array, "B K2 H"]],
    nearest: Int[Array, "B K2 neighbours"],
) -> Float[Array, "B K2 H D"]:
    """Graph attention by jraph, edges neighbour → node and node → itself.

    Args:
        nodes: projected nodes h.
        logits: what each node contributes to an edge's logit as receiver and as sender.
        nearest: the neighbours each node listens to.
    """
    import jraph

    count, neighbours = nearest.shape[1:]
    self_edges = jnp.arange(count, dtype=nearest.dtype)
    receivers = jnp.concatenate([jnp.repeat(self_edges, neighbours), self_edges])

    # jraph carries one array per node: the logits travel as two more channels of it. To its types
    # (any tree) the arrays are not known.
    def logit(sent: Any, received: Any, edges: Any) -> Any:
        return jax.nn.leaky_relu(received[..., -2:-1] + sent[..., -1:], LEAK)

    def without_logits(nodes: Any) -> Any:
        return nodes[..., :-2]

    layer = jraph.GAT(lambda nodes: nodes, logit, without_logits)
    carried = jnp.concatenate([nodes, logits[0][..., None], logits[1][..., None]], -1)

    def attend(carried: Array, nearest: Array) -> Any:
        graph = jraph.GraphsTuple(
            nodes=carried,
            edges=None,
            receivers=receivers,
            senders=jnp.concatenate([nearest.reshape(-1), self_edges]),
            globals=None,
            n_node=jnp.array([count]),
            n_edge=jnp.array([receivers.size]),
        )
        return layer(graph).nodes

    return jax.vmap(attend)(carried, nearest)


def attend_dense(
    nodes: Float[Array, "B K2 H D"],
    logits: tuple[Float[Array, "B K2 H"], Float[Array, "B K2 H"]],
    nearest: Int[Array, "B K2 neighbours"],
) -> Float[Array, "B K2 H D"]:
    """The same as attention over all pairs of nodes, those without an edge masked."""
    count = nodes.shape[1]
    each = jnp.arange(count, dtype=nearest.dtype)
    edge = (nearest[..., None] == each.reshape(1, 1, 1, -1)).any(2) | jnp.eye(count, dtype=bool)[
        None
    ]
    logit = jax.nn.leaky_relu(logits[0][:, :, None, :] + logits[1][:, None, :, :], LEAK)
    weights = jax.nn.softmax(jnp.where(edge[..., None], logit, -jnp.inf), axis=2)
    return jnp.einsum("bijh,bjhd->bihd", weights, nodes)


class GraphAttention(nnx.Module):
    """Stage 1: prototypes of both modalities aligned."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        if channels % config.graph_heads:
            raise ConfigError(
                f"graph_heads: {config.graph_heads} does not divide {channels} channels",
                "use a divisor, such as 4",
            )
        self.config = config
        width = channels // config.graph_heads
        self.weight = nnx.Param(stacked_normal(rngs.params(), (1, channels, channels))[0])
        # First row: the receiver's part of an edge's logit; second: the sender's.
        self.edge = nnx.Param(
            0.02 * jax.random.normal(rngs.params(), (2, config.graph_heads, width))
        )

    def __call__(self, prototypes: Float[Array, "2 B K C"]) -> Float[Array, "2 B K C"]:
        """Aligned prototypes P'."""
        _, b, k, c = prototypes.shape
        nearest = nearest_across(prototypes, min(self.config.neighbours, k))
        nodes = jnp.concatenate([prototypes[0], prototypes[1]], axis=1)
        projected = (nodes @ self.weight[...]).reshape(b, 2 * k, self.config.graph_heads, -1)
        logits = jnp.einsum("bkhd,rhd->rbkh", projected, self.edge[...])
        attend = attend_jraph if self.config.graph == "jraph" else attend_dense
        heard = attend(projected, (logits[0], logits[1]), nearest).reshape(b, 2 * k, c)
        aligned = nodes + jax.nn.elu(heard)
        return jnp.stack([aligned[:, :k], aligned[:, k:]])


class CrossAttention(nnx.Module):
    """Stage 2: tokens attend to the other modality's aligned prototypes."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        shape = (2, channels, channels)
        self.query = nnx.Param(stacked_normal(rngs.params(), shape))
        self.key = nnx.Param(stacked_normal(rngs.params(), shape))
        self.value = nnx.Param(stacked_normal(rngs.params(), shape))
        self.gate = nnx.Param(jnp.full((2,), config.gate))

    def __call__(
        self, purified: Float[Array, "2 B N C"], aligned: Float[Array, "2 B K C"]
    ) -> Float[Array, "2 B N C"]:
        """CA(Z', P' of the other modality), Eq. 3."""
        other = aligned[::-1]
        key = jnp.einsum("mbkc,mcd->mbkd", other, self.key[...])
        # (Z' W_Q) Kᵀ = Z' (W_Q Kᵀ): K rows are projected in place of N, 1/25 of the work.
        key = jnp.einsum("mbkd,mcd->mbkc", key, self.query[...])
        value = jnp.einsum("mbkc,mcd->mbkd", other, self.value[...])
        logits = jnp.einsum("mbnc,mbkc->mbnk", purified, key) / math.sqrt(purified.shape[-1])
        return jnp.einsum("mbnk,mbkc->mbnc", jax.nn.softmax(logits, axis=-1), value)


def inject(
    start: Float[Array, "2 B N C"], heard: Float[Array, "2 B N C"], gate: Float[Array, " 2"]
) -> Float[Array, "2 B N C"]:
    """Eq. 4: Z_mnc = Z' + tanh(γ) · CA.

    Args:
        start: Z', or what the config's `mnc_residual` puts in its place.
        heard: CA, Eq. 3.
        gate: γ of each modality.
    """
    return start + jnp.tanh(gate)[:, None, None, None] * heard
