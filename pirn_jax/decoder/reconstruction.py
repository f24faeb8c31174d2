"""BPA: tokens rebuilt from prototypes by a balanced plan (paper, section 3.2).

    T* = the balanced plan of 1 − cos(z, p)                                     Eq. 1
    z_bpa = Σ_k T*_nk p_k                                                       Eq. 2

or, with `attention`, the same plan in heads between projections of both, as in the attention it
replaces:

    z_bpa = Σ_h T_h (p W_V,h) W_O,h + b,   T_h the plan of cos(z̄ W_Q,h, p̄ W_K,h),   ¯: LayerNorm.

Dimension letters: M modalities, B batch, N tokens, K prototypes, C channels, H heads, D = C/H.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.decoder.refinement import stacked_normal
from pirn_jax.decoder.tokens import layer_norm
from pirn_jax.transport import Plan, assign, cosine_cost


def head_count(most: int, channels: int) -> int:
    """The largest divisor of the channels that is at most `most`; 0: one for every 32 channels."""
    most = most or max(1, channels // 32)
    return max(h for h in range(1, most + 1) if channels % h == 0)


class Assignment(nnx.Module):
    """BPA of Eq. 2; with `attention`, in heads between learned projections."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        self.config = config
        self.heads = head_count(config.heads, channels) if config.attention else None
        if config.attention:
            m = len(config.modalities)
            shape = (m, channels, channels)
            self.query = nnx.Param(stacked_normal(rngs.params(), shape))
            self.key = nnx.Param(stacked_normal(rngs.params(), shape))
            self.value = nnx.Param(stacked_normal(rngs.params(), shape))
            self.output = nnx.Param(stacked_normal(rngs.params(), shape))
            self.output_bias = nnx.Param(jnp.zeros((m, channels)))

    def plan(
        self,
        tokens: Float[Array, "M B N C"],
        prototypes: Float[Array, "M B K C"],
        mass: Float[Array, "B N"] | None,
    ) -> Plan:
        """T*, (M, B, N, K) or, in heads, (M, B, H, N, K)."""
        if self.heads is None:
            cost = cosine_cost(tokens, prototypes)
        else:
            query = jnp.einsum("mbnc,mcd->mbnd", layer_norm(tokens), self.query[...])
            key = jnp.einsum("mbkc,mcd->mbkd", layer_norm(prototypes), self.key[...])
            cost = cosine_cost(query, key, heads=self.heads)
            mass = None if mass is None else mass[:, None, :]
        return assign(
            cost,
            self.config.assignment,
            epsilon=self.config.epsilon,
            iterations=self.config.iterations,
            solver=self.config.solver,
            gradient=self.config.gradient,
            row_mass=mass,
        )

    def rebuild(
        self, plan: Float[Array, "M B *heads N K"], prototypes: Float[Array, "M B K C"]
    ) -> Float[Array, "M B N C"]:
        """Z_bpa of a plan's matrix, Eq. 2."""
        if self.heads is None:
            return jnp.einsum("mbnk,mbkc->mbnc", plan, prototypes)
        m, b, k, c = prototypes.shape
        n, h = plan.shape[-2], self.heads
        value = jnp.einsum("mbkc,mcd->mbkd", layer_norm(prototypes), self.value[...])
        value = value.reshape(m, b, k, h, -1)
        # (T_h V_h) W_O,h = T_h (V_h W_O,h): the output projection runs over K rows, not N.
        output = self.output[...].reshape(m, h, -1, c)
        value = jnp.einsum("mbkhd,mhdc->mbhkc", value, output).reshape(m, b, h * k, c)
        weights = jnp.swapaxes(plan, 2, 3).reshape(m, b, n, h * k)
        rebuilt = jnp.einsum("mbnk,mbkc->mbnc", weights, value)
        return rebuilt + self.output_bias[...][:, None, None, :]
