"""The model the benchmarks run: random weights, a pair of pictures in, heatmap and score out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pirn_jax.config import Config, with_settings
from pirn_jax.decoder import Params, Tokens, create_decoder, split
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.detector import PIRN, open_encoder
from pirn_jax.detector.inference import FromPictures
from pirn_jax.encoder import Encoder
from pirn_jax.methods.pirn import RECIPES, Recipe


class Pair(NamedTuple):
    """A detector ready to run.

    Attributes:
        model: the detector; its decoder has seen nothing but random tokens.
        encoder: its encoder.
        program: encoder's weights, parameters, statistics, pictures (2, B, h, w, 3), valid (B, N) →
            fused maps, maps, scores, usage.
        given: the first three of these, packed.
    """

    model: PIRN
    encoder: Encoder
    program: FromPictures
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
    dtype: Literal["float32", "bfloat16"] = "float32",
    runtime: Literal["jax", "openvino"] = "jax",
    *,
    method: str = "pirn",
    solver: str = "auto",
    image_size: int = 224,
    known: Encoder | None = None,
    change: Mapping[str, object] | None = None,
) -> Pair:
    """A pair of that encoder and recipe.

    Args:
        encoder: its name.
        recipe: of the method.
        dtype: of the encoder's products.
        runtime: of the encoder.
        method: what judges the tokens.
        solver: of transport problems.
        image_size: side of the pictures.
        known: the encoder, where another pair has loaded it.
        change: of the settings, by dotted name: {"decoder.prototypes": 50}.
    """
    config = Config(
        encoder=encoder,
        weights="random",
        method=method,
        recipe=recipe,
        dtype=dtype,
        solver=cast(Any, solver),
        runtime=runtime,
        image_size=image_size,
        geometry="grid",
    )
    parts = config.chosen_recipe.for_parts(any_angle=False, apart=True)  # as shots would decide
    config = with_settings(config, parts | (change or {}))
    model = PIRN(config, encoder=known or open_encoder(config))
    network = model.encoder
    if method == "pirn":
        tokens, width = network.grid[0] * network.grid[1], network.config.width
        model.parameters = random_decoder(decoder_of(model), tokens, width)
    else:
        model.parameters = random_arrays(model.method.abstract_params())
    given = (network.packed, *model.placed)
    return Pair(model, network, model.inference.from_pictures, given)


def random_arrays(abstract: tuple[Params, Params]) -> tuple[Params, Params]:
    """Small positive numbers of these shapes: variances may be among them."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: random.uniform(0.01, 0.05, x.shape).astype(x.dtype), abstract)


def decoder_of(model: PIRN) -> DecoderConfig:
    """The decoder a detector has."""
    settings = model.config.settings
    assert isinstance(settings, Recipe), settings
    return settings.decoder


def random_decoder(config: DecoderConfig, tokens: int, width: int) -> tuple[Params, Params]:
    """Parameters and statistics of a decoder, on the device."""
    raw = jax.random.normal(jax.random.key(0), (2, 4, tokens, width))
    _, parameters, statistics = split(create_decoder(config, all_valid(raw), jax.random.key(1)))
    return jax.tree.map(jnp.asarray, (parameters, statistics))


def all_valid(values: jax.Array) -> Tokens:
    """Tokens (M, B, N, C), every one of them of the object."""
    return Tokens(values, jnp.ones(values.shape[1:3], bool))


def decoder_config(recipe: str, **changes: Any) -> DecoderConfig:
    """The decoder of a recipe, with fields changed."""
    return replace(RECIPES[recipe].decoder, **changes)
