"""Training losses: how far the rebuilt tokens are from their targets.

INP-Former's soft mining, which the paper names, is not a per-token loss. Its value is one minus the
cosine of the whole flattened map of an image; the mining scales the gradient of each location by
(d / mean d)^3, d the distance there, the mean taken over batch and places. `per_token` uses the
same weights on the distances themselves; `mean` uses none.

Dimension letters: M modalities, B batch, N tokens, C channels.
Source: Luo et al. 2025 (INP-Former), its released loss; paper, "Training and Inference".
Differs from INP-Former: its mean is taken on each device by itself; with `axis_name` ours is taken
over all of them, so that the number of devices changes nothing but rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Shaped

from pirn_jax.decoder.config import LossConfig
from pirn_jax.decoder.decoder import Reconstruction
from pirn_jax.decoder.distance import DISTANCES, cosine_distance


def reconstruction_loss(
    reconstruction: Reconstruction,
    config: LossConfig,
    weight: Shaped[Array | np.ndarray, "B N"] | None = None,
    axis_name: str | None = None,
    distance: str = "cosine",
) -> Float[Array, ""]:
    """Sum over modalities of their loss; see `stream_loss`."""
    losses = [
        stream_loss(target, rebuilt, config, weight, axis_name, distance)
        for target, rebuilt in zip(reconstruction.target, reconstruction.values, strict=True)
    ]
    return sum(losses[1:], start=losses[0])


def stream_loss(
    target: Float[Array, "B N C"],
    rebuilt: Float[Array, "B N C"],
    config: LossConfig,
    weight: Shaped[Array | np.ndarray, "B N"] | None = None,
    axis_name: str | None = None,
    distance: str = "cosine",
) -> Float[Array, ""]:
    """The loss of one modality; no gradient goes to the target.

    Args:
        target: tokens to reach.
        rebuilt: tokens of the decoder.
        config: form and exponent.
        weight: (B, N), 0 for tokens, or whole padded images, that do not count. None: all do.
        axis_name: of a mapped axis of devices. The mean distance is then that of all devices, and
            the mean over devices of the returned losses, and of their gradients, is the loss, and
            the gradient, of the whole batch, however unevenly it was split.
        distance: of a token to its target, see DecoderConfig; form flattened has cosines only.
    """
    target = jax.lax.stop_gradient(target)
    token = jnp.ones(target.shape[:2], target.dtype) if weight is None else jnp.asarray(weight)
    token = token.astype(target.dtype)
    each = DISTANCES[distance](target, rebuilt)
    held = jax.lax.stop_gradient(each)

    def mean_total(x: Array) -> Array:
        """The total, per device."""
        total = x.sum()
        return total if axis_name is None else jax.lax.pmean(total, axis_name)

    mean = mean_total(token * held) / jnp.maximum(mean_total(token), 1e-12)
    # A distance may be rounded below 0; a mean of 0 leaves nothing to weigh.
    factor = (jnp.maximum(held, 0.0) / jnp.maximum(mean, 1e-12)) ** config.exponent
    if config.form != "flattened":
        weighed = each if config.form == "mean" else factor * each
        return (token * weighed).sum() / jnp.maximum(mean_total(token), 1e-12)
    constant = jax.lax.stop_gradient(rebuilt)
    scaled = constant + factor[..., None] * (rebuilt - constant)  # value of rebuilt, mined gradient
    image = (token.sum(-1) > 0).astype(target.dtype)
    root = jnp.sqrt(token)[..., None]
    whole = cosine_distance(
        (root * target).reshape(target.shape[0], -1), (root * scaled).reshape(target.shape[0], -1)
    )
    return (image * whole).sum() / jnp.maximum(mean_total(image), 1e-12)
