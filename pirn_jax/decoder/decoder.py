"""The prototype decoder: tokens → what they would be if the part were good (paper, section 3).

Both modalities are stacked on a leading axis, parameters too, so that a layer is one computation
for both, every transport problem of a stage in one loop. Nothing passes from one image of a batch
to another, and nothing is kept: batch and order change a score by rounding alone.

    decoder = create_decoder(config, shots, jax.random.key(0))
    graph, parameters, statistics = split(decoder)          # plain dicts of arrays
    reconstruction = jax.jit(lambda p, t: merge(graph, p, statistics)(t))(parameters, tokens)

Shapes of parameters and statistics depend on the configuration alone, so that models of several
categories or seeds stack and train under one `jax.vmap`; `abstract_params` tells them without
computing anything.

Dimension letters: M modalities, B batch, N tokens, K prototypes, C channels, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.decoder.layer import Diagnostics, Layer, bottleneck_rank
from pirn_jax.decoder.prototypes import init_prototypes, principal_directions
from pirn_jax.decoder.tokens import Statistic, Tokens, apply_scale, fit_scale
from pirn_jax.errors import BadInputError

Params = dict[str, Any]
"""A tree of arrays, or of their shapes: dictionaries in dictionaries, by the modules' names."""


class Reconstruction(NamedTuple):
    """Rebuilt tokens and what to compare them with.

    Attributes:
        values: (M, B, N, C) rebuilt tokens.
        target: (M, B, N, C) the input tokens at the decoder's scale: what `values` should equal.
        prototypes: (M, B, K, C), as refined for each image by the last layer.
        diagnostics: of every layer, stacked on a leading axis L.
    """

    values: Float[Array, "M B N C"]
    target: Float[Array, "M B N C"]
    prototypes: Float[Array, "M B K C"]
    diagnostics: Diagnostics


class Decoder(nnx.Module):
    """L layers over one codebook per modality.

    Args:
        config: see DecoderConfig.
        channels: C of the tokens.
        rngs: for the weights and prototypes N(0, 1). `create_decoder` takes statistics and
            prototypes from the shots as the config asks.
    """

    def __init__(self, config: DecoderConfig, channels: int, rngs: nnx.Rngs):
        m = len(config.modalities)
        self.config = config
        self.prototypes = nnx.Param(
            jax.random.normal(rngs.params(), (m, config.prototypes, channels))
        )
        # As a compiled function, which is traced once however many layers there are.
        draw = jax.jit(lambda key: Layer(config, channels, nnx.Rngs(key)))
        self.layers = nnx.List([draw(rngs.params()) for _ in range(config.layers)])
        nothing = fit_scale(config.token_scale, jnp.zeros((m, 1, 1, channels)))
        self.statistics = nnx.Dict({name: Statistic(value) for name, value in nothing.items()})

    def __call__(
        self, tokens: Tokens, corrupt: Callable[[Array], Array] | None = None
    ) -> Reconstruction:
        """Rebuild the tokens of each image.

        Args:
            tokens: of the config's modalities, in its order. Those that are not valid take no part
                in any prototype's context or balance.
            corrupt: what becomes of the tokens, (M, B, N, C) at the decoder's scale, before they
                are rebuilt; the target stays whole. Training hides part of them so. None: nothing.

        Raises:
            BadInputError: other modalities than the config's.
        """
        values, mass = _values_and_mass(tokens, self.config)
        statistics = {name: value[...] for name, value in self.statistics.items()}
        target = apply_scale(self.config.token_scale, statistics, values, mass)
        learned = self.prototypes[...]
        m, k, c = learned.shape
        prototypes = jnp.broadcast_to(learned[:, None], (m, target.shape[1], k, c))
        current, done = target if corrupt is None else corrupt(target), []
        for layer in self.layers:  # Algorithm 1, line 6
            current, prototypes, diagnostics = layer(current, prototypes, mass)
            done.append(diagnostics)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *done)
        return Reconstruction(current, target, prototypes, stacked)


def create_decoder(config: DecoderConfig, shots: Tokens, key: PRNGKeyArray) -> Decoder:
    """A decoder ready to train: weights by `key`, statistics and prototypes from the shots.

    Args:
        config: see DecoderConfig.
        shots: tokens of the training scans; those that are not valid do not count.
        key: random key; traced keys and shots work, so `jax.vmap` makes many decoders at once.

    Raises:
        BadInputError: other modalities than the config's.
    """
    tokens, mass = _values_and_mass(shots, config)
    for_weights, for_prototypes = jax.random.split(key)
    decoder = Decoder(config, tokens.shape[-1], nnx.Rngs(for_weights))
    statistics = fit_scale(config.token_scale, tokens, mass)
    for name, value in statistics.items():
        decoder.statistics[name].set_value(value)
    scaled = apply_scale(config.token_scale, statistics, tokens, mass)
    m, b, n, c = scaled.shape
    scaled = scaled.reshape(m, b * n, c)
    flat = None if mass is None else mass.reshape(b * n)
    if config.prototype_init == "kmeans++":
        keys = jax.random.split(for_prototypes, m)
        drawn = jax.vmap(init_prototypes, (0, 0, None, None))(keys, scaled, config.prototypes, flat)
        decoder.prototypes.set_value(drawn)
    if config.bottleneck_init == "principal":
        rank = bottleneck_rank(c)
        directions, shares = jax.vmap(principal_directions, (0, None, None))(scaled, rank, flat)
        # Only the first shrinks: what it has rebuilt, the others keep.
        for layer in decoder.layers:
            layer.start_linear(directions, shares)
            shares = jnp.ones_like(shares)
    return decoder


def split(decoder: Decoder) -> tuple[nnx.GraphDef, Params, Params]:
    """The decoder as a static graph, trainable parameters and statistics, both plain dicts."""
    graph, parameters, statistics = nnx.split(decoder, nnx.Param, Statistic)
    return graph, nnx.to_pure_dict(parameters), nnx.to_pure_dict(statistics)


def merge(graph: nnx.GraphDef, parameters: Params, statistics: Params) -> Decoder:
    """`split` undone; inside `jax.jit` it costs tracing time only."""
    return nnx.merge(graph, parameters, statistics)


def abstract_params(config: DecoderConfig, channels: int) -> tuple[nnx.GraphDef, Params, Params]:
    """What `split` gives of any decoder of that config, as shapes; nothing is computed.

    With arrays of those shapes `merge` makes the decoder.
    """
    return split(nnx.eval_shape(lambda: Decoder(config, channels, nnx.Rngs(0))))


def _values_and_mass(
    tokens: Tokens, config: DecoderConfig
) -> tuple[Float[Array, "M B N C"], Float[Array, "B N"] | None]:
    values, names = jnp.asarray(tokens.values), config.modalities
    if values.ndim != 4 or len(values) != len(names):
        raise BadInputError(
            f"expected tokens (modalities, images, tokens, channels) of {' and '.join(names)}, "
            f"{len(names)} in front; got shape {values.shape}",
            "give the modalities the decoder was built for, or build it for those there are",
        )
    mass = None if tokens.valid is None else jnp.asarray(tokens.valid).astype(values.dtype)
    return values, mass
