"""The model the benchmarks run: random weights, a pair of pictures in, heatmap and score out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pirn_jax.config import Config
from pirn_jax.decoder import Tokens, create_decoder, split
from pirn_jax.detector import PIRN
from pirn_jax.encoder import Encoder
from pirn_jax.judging import open_encoder, programs
from pirn_jax.recipes import find_recipe


class Pair(NamedTuple):
    """A detector ready to run.

    Attributes:
        model: the detector; its decoder has seen nothing but random tokens.
        encoder: its encoder.
        program: encoder's weights, parameters, statistics, pictures (2, B, h, w, 3), valid (B, N) →
            fused maps, maps, scores, usage.
        given: the first three of these.
    """

    model: PIRN
    encoder: Encoder
    program: Callable[..., Any]
    given: tuple[Any, Any, Any]

    def pictures(self, batch: int = 1) -> np.ndarray:
        """Random colours, (2, B, h, w, 3)."""
        shape = (2, batch, *self.encoder.image_size, 3)
        return np.random.default_rng(0).random(shape, np.float32)

    def valid(self, batch: int = 1) -> np.ndarray:
        """All tokens count, (B, N)."""
        return np.ones((batch, self.encoder.grid[0] * self.encoder.grid[1]), bool)

    def on_device(self, batch: int = 1) -> Callable[[], Any]:
        """A synchronised call whose pictures are on the device, and whose results stay there."""
        pictures, valid = jax.device_put((self.pictures(batch), self.valid(batch)))
        return lambda: jax.block_until_ready(self.program(*self.given, pictures, valid))

    def from_host(self, batch: int = 1) -> Callable[[], Any]:
        """The same from numpy arrays to numpy arrays."""
        pictures, valid = self.pictures(batch), self.valid(batch)
        return lambda: jax.device_get(self.program(*self.given, pictures, valid))


def build(
    encoder: str = "dinov2-base",
    recipe: str = "default",
    dtype: str = "float32",
    runtime: str = "jax",
    *,
    image_size: int = 224,
    known: Encoder | None = None,
    change: tuple[str, ...] = (),
) -> Pair:
    """A pair of that encoder and recipe.

    Args:
        encoder: its name.
        recipe: of the decoder.
        dtype: of the encoder's products.
        runtime: of the encoder.
        image_size: side of the pictures.
        known: the encoder, where another pair has loaded it.
        change: fields of the recipe, name=value.
    """
    config = Config(
        encoder=encoder,
        weights="random",
        recipe=recipe,
        dtype=dtype,
        runtime=runtime,
        image_size=image_size,
        change=change,
    )
    model = PIRN(config, encoder=known or open_encoder(config))
    network, decoder = model.encoder, config.resolved_recipe().decoder
    tokens, width = network.grid[0] * network.grid[1], network.config.width
    parameters, statistics = random_decoder(decoder, tokens, width)
    model._parameters, model._statistics = parameters, statistics
    program, _ = programs(network, model._method(), config.modalities, config.top_share)
    given = (network.parameters, parameters, statistics)
    return Pair(model, network, program, given)


def random_decoder(config: Any, tokens: int, width: int) -> tuple[Any, Any]:
    """Parameters and statistics of a decoder, on the device."""
    raw = jax.random.normal(jax.random.key(0), (2, 4, tokens, width))
    _, parameters, statistics = split(
        create_decoder(config, Tokens(raw[0], raw[1]), jax.random.key(1))
    )
    return jax.tree.map(jnp.asarray, (parameters, statistics))


def decoder_config(recipe: str, **changes: Any) -> Any:
    """The decoder of a recipe, with fields changed."""
    return find_recipe(recipe, **changes).decoder
