"""APR: prototypes adapt to the image at hand (paper, section 3.3 and appendix B.1).

    Γ* = the balanced plan of 1 − cos(z, p)                                     Eq. 1
    c_k = Σ_n Γ*_nk z_n / Σ_n Γ*_nk                                             context
    u = σ(W_z [p; c] + b_z)       r = σ(W_r [p; c] + b_r)                       Eq. 5, 6
    p̃ = tanh(W [r ⊙ p; c] + b)    p' = u ⊙ p + (1 − u) ⊙ p̃                      Eq. 7, 8

The cell is written out because it is another one than flax's: r acts before the linear map, not
after it. Nothing is kept from one image to the next.

Dimension letters: M modalities, B batch, N tokens, K prototypes, C channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.transport import balanced_plan, cosine_cost

# One matrix per modality, stacked; fan-in counted per matrix.
stacked_normal = nnx.initializers.variance_scaling(
    1.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=(0,)
)


def gated_update(
    prototypes: Float[Array, "M B K C"],
    context: Float[Array, "M B K C"],
    gates: Float[Array, "M C2 C2"],
    gates_bias: Float[Array, "M C2"],
    candidate: Float[Array, "M C2 C"],
    candidate_bias: Float[Array, "M C"],
) -> Float[Array, "M B K C"]:
    """GRU(p_k, c_k), Eq. 5-8; `gates` holds W_z and W_r side by side."""
    both = jnp.concatenate([prototypes, context], -1)
    opened = jnp.einsum("mbkc,mcd->mbkd", both, gates) + gates_bias[:, None, None, :]
    update, reset = jnp.split(jax.nn.sigmoid(opened), 2, axis=-1)  # Eq. 5, 6
    both = jnp.concatenate([reset * prototypes, context], -1)
    new = jnp.einsum("mbkc,mcd->mbkd", both, candidate) + candidate_bias[:, None, None, :]
    return update * prototypes + (1.0 - update) * jnp.tanh(new)  # Eq. 8, of Eq. 7


def context_weights(
    kind: str,
    cost: Float[Array, "M B N K"],
    mass: Float[Array, "B N"] | None,
    config: DecoderConfig,
) -> Float[Array, "M B N K"]:
    """How much of each token goes into each prototype's context; columns are normalised later.

    Args:
        kind: "ot": the balanced plan, Eq. 1; "topk": the tokens nearest to the prototype, as many
            as balance would give it (the paper leaves k open): Σ mass / K of the image, rounded
            down, at least 1; "global": every token alike.
        cost: (M, B, N, K).
        mass: (B, N) of tokens that count, 0 or 1; None for all.
        config: ε, iterations, solver and gradient of the plan.
    """
    n, k = cost.shape[-2:]
    if kind == "ot":
        return balanced_plan(
            cost,
            epsilon=config.epsilon,
            iterations=config.iterations,
            solver=config.solver,
            gradient=config.gradient,
            row_mass=mass,
        ).matrix
    mass = jnp.ones((cost.shape[1], n), cost.dtype) if mass is None else mass
    weight = jnp.broadcast_to(mass[:, :, None], cost.shape)
    if kind == "global":
        return weight
    counted = jnp.where(weight > 0, cost, jnp.inf)
    share = jnp.maximum(mass.sum(-1).astype(jnp.int32) // k, 1)
    # No image's share exceeds n // k: so many are sorted, each image takes the first of its own.
    # By their places, not by comparing costs again: a compiler may round those it computes twice.
    _, nearest = jax.lax.top_k(-jnp.swapaxes(counted, -1, -2), max(1, n // k))
    taken = (jnp.arange(nearest.shape[-1])[None] < share[:, None]).astype(weight.dtype)
    taken = jnp.broadcast_to(taken[None, :, None], nearest.shape)
    chosen = jnp.zeros((*cost.shape[:2], k, n), weight.dtype)
    chosen = jnp.put_along_axis(chosen, nearest, taken, -1, inplace=False)
    return weight * jnp.swapaxes(chosen, -1, -2)


def column_average(
    weights: Float[Array, "M B N K"], tokens: Float[Array, "M B N C"]
) -> Float[Array, "M B K C"]:
    """Context c_k of each prototype: the tokens' mean, weighed by its column."""
    total = jnp.maximum(weights.sum(-2), jnp.finfo(weights.dtype).tiny)
    return jnp.einsum("mbnk,mbnc->mbkc", weights, tokens) / total[..., None]


class Refinement(nnx.Module):
    """APR, one cell per modality."""

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        m = len(config.modalities)
        self.config = config
        self.gates = nnx.Param(stacked_normal(rngs.params(), (m, 2 * channels, 2 * channels)))
        bias = jnp.concatenate(
            [jnp.full((m, channels), config.update_bias), jnp.zeros((m, channels))], -1
        )
        self.gates_bias = nnx.Param(bias)
        self.candidate = nnx.Param(stacked_normal(rngs.params(), (m, 2 * channels, channels)))
        self.candidate_bias = nnx.Param(jnp.zeros((m, channels)))

    def weights(
        self,
        tokens: Float[Array, "M B N C"],
        prototypes: Float[Array, "M B K C"],
        mass: Float[Array, "B N"] | None,
    ) -> Float[Array, "M B N K"]:
        """Γ*: how much of each token goes into each prototype's context."""
        cost = cosine_cost(tokens, prototypes)
        return context_weights(self.config.context, cost, mass, self.config)

    def __call__(
        self, prototypes: Float[Array, "M B K C"], context: Float[Array, "M B K C"]
    ) -> Float[Array, "M B K C"]:
        """Prototypes refined by their context, Eq. 5-8."""
        return gated_update(
            prototypes,
            context,
            self.gates[...],
            self.gates_bias[...],
            self.candidate[...],
            self.candidate_bias[...],
        )
