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

from pirn_jax.decoder.communication import CrossAttention, GraphAttention, inject
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.decoder.reconstruction import Assignment
from pirn_jax.decoder.refinement import Refinement, column_average, stacked_normal
from pirn_jax.decoder.tokens import layer_norm
from pirn_jax.transport import Plan


class Diagnostics(NamedTuple):
    """What a layer did; stacked over layers in a `Reconstruction`.

    Attributes:
        usage: (M, B, K) share of the tokens that give this prototype their largest weight (in
            heads, the mean over heads). Column sums would say nothing: they are the constraint.
        column_error: (M, B) largest relative error of the columns of BPA's plan against N/K (in
            heads, of any head): how far its iterations are from balance.
    """

    usage: Float[Array, "*layers M B K"]
    column_error: Float[Array, "*layers M B"]


def diagnose(plan: Plan, mass: Float[Array, "B N"] | None) -> Diagnostics:
    """What a plan, (M, B, N, K) or (M, B, H, N, K), says of its layer; without gradient."""
    # Heads, where there are none, are one.
    matrix = plan.matrix if plan.matrix.ndim == 5 else plan.matrix[:, :, None]
    m, b, heads, n, _ = matrix.shape
    weight = jnp.ones((b, n), matrix.dtype) if mass is None else mass
    weight = weight / jnp.maximum(weight.sum(-1, keepdims=True), 1e-12)
    largest = matrix.max(-1, keepdims=True)
    chosen = ((matrix >= largest) & (largest > 0)).astype(weight.dtype)
    usage = jnp.einsum("mbhnk,bn->mbk", chosen, weight) / heads
    return jax.lax.stop_gradient(Diagnostics(usage, plan.column_error.reshape(m, b, -1).max(-1)))


_QUIET = 0.1  # of the weights of what is summed beside a linear start


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
        hidden = jnp.matmul(layer_norm(x).reshape(m, b * n, c), self.first[...])
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
        mass: Float[Array, "B N"] | None,
    ) -> tuple[Float[Array, "M B N C"], Float[Array, "M B K C"], Diagnostics]:
        """Rebuilt tokens, refined prototypes, and what was done; numbered as in Algorithm 1.

        Args:
            tokens: Z, the last layer's reconstruction; E in the first.
            prototypes: P of each image.
            mass: (B, N), 0 for padding and background.
        """
        if self.refine is not None:  # 7: Adaptive Prototype Refinement (APR)
            gamma = self.refine.weights(tokens, prototypes, mass)  # 8: Γ*, Eq. 1
            context = column_average(gamma, tokens)  # 9: c_k
            prototypes = self.refine(prototypes, context)  # 10: GRU(p_k, c_k), Eq. 5-8
        # 11: Balanced Prototype Assignment (BPA)
        plan = self.assign.plan(tokens, prototypes, mass)  # 12: T*, Eq. 1
        z_bpa = self.assign.rebuild(plan.matrix, prototypes)  # 13: T* P, Eq. 2
        z_rec = z_bpa
        if self.config.communicate:
            # 14: MNC stage 1, 2D and 3D prototype alignment
            aligned = prototypes if self.align is None else self.align(prototypes)  # 15: P'
            # 16: MNC stage 2, cross-modal feature injection
            purified = tokens * jax.nn.sigmoid(z_bpa)  # 17: Z'
            z_mnc = self.start(purified)
            if self.attend is not None:
                heard = self.attend(purified, aligned)  # 18: CA(Z', P'), Eq. 3
                z_mnc = inject(z_mnc, heard, self.attend.gate[...])  # 19: Eq. 4
            z_rec = z_bpa + z_mnc  # 20
        if self.feed_forward is not None:
            z_rec = self.feed_forward(z_rec)
        return z_rec, prototypes, diagnose(plan, mass)  # 21: Z ← Z_rec

    def start(self, purified: Float[Array, "M B N C"]) -> Float[Array, "M B N C"]:
        """What Z_mnc starts from: Z' (Eq. 4), Z' through the bottleneck, or nothing."""
        if self.config.mnc_residual == "none":
            return jnp.zeros_like(purified)
        return purified if self.narrow is None else self.narrow(purified)
