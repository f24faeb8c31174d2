"""One decoder layer: APR, BPA, MNC, and their sum (paper, Algorithm 1, lines 7-21).

Dimension letters: M modalities, B batch, N tokens, K prototypes, C channels, R rank.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder.communication import CrossAttention, GraphAttention
from pirn_jax.decoder.reconstruction import Assignment
from pirn_jax.decoder.refinement import Refinement, stacked_normal
from pirn_jax.decoder.tokens import normalised
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.transport import Plan


class Diagnostics(NamedTuple):
    """What a layer did; stacked over layers in a `Reconstruction`.

    Attributes:
        usage: (M, B, K) share of the tokens that give this prototype their largest weight (in
            heads, the mean over heads). Column sums would say nothing: they are the constraint.
        effective_prototypes: (M, B) mean over tokens of exp(entropy of their weights): 1 to K.
        row_error: (M, B) largest relative error of the plan's rows.
        column_error: (M, B) largest relative error of its columns against N/K.
        gates: (M,) tanh γ; zeros where there is no cross-attention.
        residual_share: (M, B) share of Z', as it is added, in the lengths of the three summands
            Z_bpa, Z', g·CA, mean over tokens.
        residual_distance: (M, B, N) 1 − cos(E, Z'), Z' as it is added: the anomaly map of the path
            that could copy an anomaly through, alone; 1 where the path is closed.
    """

    usage: Float[Array, "*layers M B K"]
    effective_prototypes: Float[Array, "*layers M B"]
    row_error: Float[Array, "*layers M B"]
    column_error: Float[Array, "*layers M B"]
    gates: Float[Array, "*layers M"]
    residual_share: Float[Array, "*layers M B"]
    residual_distance: Float[Array, "*layers M B N"]


def lengths(x: Float[Array, "*batch C"]) -> Float[Array, "*batch"]:
    """|x| along the last axis."""
    return jnp.sqrt((x * x).sum(-1))


def cosine_distance(
    a: Float[Array, "*batch C"], b: Float[Array, "*batch C"]
) -> Float[Array, "*batch"]:
    """1 − cos along the last axis, in [0, 2]; 1 where either is zero.

    The smallest length told from 0 is 1e-8, as in PyTorch's cosine similarity.
    """
    product = (a * a).sum(-1) * (b * b).sum(-1)
    there = ~(product <= 1e-32)  # so that what is not a number stays so
    return 1.0 - jnp.where(
        there, (a * b).sum(-1) * jax.lax.rsqrt(jnp.where(there, product, 1.0)), 0.0
    )


def squared_distance(
    a: Float[Array, "*batch C"], b: Float[Array, "*batch C"]
) -> Float[Array, "*batch"]:
    """Mean over channels of (a − b)²."""
    difference = a - b
    return (difference * difference).mean(-1)


_QUIET = 0.1  # of the weights of what is summed beside a linear start

DISTANCES = {"cosine": cosine_distance, "squared": squared_distance}


def bottleneck_rank(channels: int) -> int:
    """R = C/2."""
    return max(1, channels // 2)


class Bottleneck(nnx.Module):
    """x A B with A, B of rank R, one per modality."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        m, rank = len(config.modalities), bottleneck_rank(channels)
        self.down = nnx.Param(stacked_normal(rngs.params(), (m, channels, rank)))
        # Small, so that the prototypes come first.
        self.up = nnx.Param(0.1 * stacked_normal(rngs.params(), (m, rank, channels)))

    def keep(self, directions: Float[Array, "M C R"], shares: Float[Array, "M R"]) -> None:
        """Become the map that keeps a share of each of these orthonormal directions of 2 x."""
        each = jnp.sqrt(shares)[:, None, :]
        self.down.set_value(directions * each)
        self.up.set_value(2.0 * jnp.swapaxes(directions * each, -1, -2))

    def __call__(self, x: Float[Array, "M B N C"]) -> Float[Array, "M B N C"]:
        """The map on every token."""
        narrow = jnp.einsum("mbnc,mcr->mbnr", x, self.down[...])
        return jnp.einsum("mbnr,mrc->mbnc", narrow, self.up[...])


class FeedForward(nnx.Module):
    """x + W_2 GELU(W_1 LayerNorm(x) + b_1) + b_2, one per modality."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        m, hidden = len(config.modalities), config.mlp_ratio * channels
        self.first = nnx.Param(stacked_normal(rngs.params(), (m, channels, hidden)))
        self.first_bias = nnx.Param(jnp.zeros((m, hidden)))
        self.second = nnx.Param(stacked_normal(rngs.params(), (m, hidden, channels)))
        self.second_bias = nnx.Param(jnp.zeros((m, channels)))

    def __call__(self, x: Float[Array, "M B N C"]) -> Float[Array, "M B N C"]:
        """The block on every token."""
        m, b, n, c = x.shape
        hidden = jnp.matmul(normalised(x).reshape(m, b * n, c), self.first[...])
        hidden = jax.nn.gelu(hidden + self.first_bias[...][:, None, :], approximate=False)
        out = jnp.matmul(hidden, self.second[...]) + self.second_bias[...][:, None, :]
        return x + out.reshape(x.shape)


class Layer(nnx.Module):
    """APR → BPA → MNC → sum; what is switched off in the config has no parameters."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        self.config = config
        talks = config.communicate and len(config.modalities) == 2
        self.refine = Refinement(config, channels, rngs) if config.context != "none" else None
        self.assign = Assignment(config, channels, rngs)
        self.align = GraphAttention(config, channels, rngs) if talks else None
        self.attend = CrossAttention(config, channels, rngs) if talks else None
        narrow = config.communicate and config.mnc_residual == "bottleneck"
        self.narrow = Bottleneck(config, channels, rngs) if narrow else None
        self.feed_forward = FeedForward(config, channels, rngs) if config.mlp_ratio else None

    def start_linear(self, directions: Float[Array, "M C R"], shares: Float[Array, "M R"]) -> None:
        """Start as the linear map that keeps a share of each of these orthonormal directions.

        Z' carries it: Z' = Z ⊙ σ(Z_bpa) is Z / 2 while Z_bpa is small, so what else is summed
        starts small.
        """
        if self.narrow is None:
            return
        self.narrow.keep(directions, shares)
        if self.assign.heads is not None:
            self.assign.output.set_value(_QUIET * self.assign.output[...])
        if self.feed_forward is not None:
            self.feed_forward.second.set_value(_QUIET * self.feed_forward.second[...])

    def __call__(
        self,
        tokens: Float[Array, "M B N C"],
        prototypes: Float[Array, "M B K C"],
        target: Float[Array, "M B N C"],
        mass: Float[Array, "B N"] | None,
    ) -> tuple[Float[Array, "M B N C"], Float[Array, "M B K C"], Diagnostics]:
        """Rebuilt tokens, refined prototypes, and what was done.

        Args:
            tokens: Z, the last layer's reconstruction; E in the first.
            prototypes: P of each image.
            target: E, for the diagnostics.
            mass: (B, N), 0 for padding and background.
        """
        if self.refine is not None:
            prototypes = self.refine(tokens, prototypes, mass)
        rebuilt, plan = self.assign(tokens, prototypes, mass)
        purified = heard = jnp.zeros((1, 1, 1, tokens.shape[-1]), tokens.dtype)
        gates = jnp.zeros(tokens.shape[:1], tokens.dtype)
        result = rebuilt
        if self.config.communicate:
            queries = tokens * jax.nn.sigmoid(rebuilt)
            if self.attend is not None and self.align is not None:
                heard = self.attend(queries, self.align(prototypes))
                gates = self.attend.gates()
                result = result + heard
            if self.config.mnc_residual != "none":
                purified = queries if self.narrow is None else self.narrow(queries)
                result = result + purified
        if self.feed_forward is not None:
            result = self.feed_forward(result)
        return (
            result,
            prototypes,
            self._diagnose(plan, target, mass, gates, rebuilt, purified, heard),
        )

    def _diagnose(
        self,
        plan: Plan,
        target: Array,
        mass: Array | None,
        gates: Array,
        rebuilt: Array,
        purified: Array,
        heard: Array,
    ) -> Diagnostics:
        m, b, n, _ = target.shape
        weight = jnp.ones((b, n), target.dtype) if mass is None else mass
        weight = weight / jnp.maximum(weight.sum(-1, keepdims=True), 1e-12)
        # Heads, where there are none, are one.
        matrix = plan.matrix.reshape(m, b, -1, n, plan.matrix.shape[-1])
        largest = matrix.max(-1, keepdims=True)
        chosen = ((matrix >= largest) & (largest > 0)).astype(weight.dtype)
        usage = jnp.einsum("mbhnk,bn->mbk", chosen, weight) / matrix.shape[2]
        shares = matrix / jnp.maximum(matrix.sum(-1, keepdims=True), 1e-12)
        entropy = -(shares * jnp.log(jnp.maximum(shares, 1e-30))).sum(-1)
        effective = jnp.einsum("mbhn,bn->mb", jnp.exp(entropy), weight) / matrix.shape[2]
        through = jnp.broadcast_to(lengths(purified), (m, b, n))
        total = lengths(rebuilt) + through + lengths(heard)
        share = jnp.einsum("mbn,bn->mb", through / jnp.maximum(total, 1e-12), weight)
        return jax.lax.stop_gradient(
            Diagnostics(
                usage,
                effective,
                plan.row_error.reshape(m, b, -1).max(-1),
                plan.column_error.reshape(m, b, -1).max(-1),
                gates,
                share,
                cosine_distance(target, jnp.broadcast_to(purified, target.shape)),
            )
        )
