"""The encoder a detector's config asks for, and the one a saved model was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pirn_jax.config import Config
from pirn_jax.encoder import Encoder, load_encoder
from pirn_jax.errors import WeightsError


def open_encoder(config: Config) -> Encoder:
    """The encoder a config asks for.

    Raises:
        WeightsError: weights are required, and there are none.
    """
    layers, groups = config.encoder_layers()
    preferred = config.chosen_recipe.encoder
    encoder = load_encoder(
        config.encoder,
        config.weights,
        config.image_size,
        layers,
        dtype=config.dtype,
        runtime=config.runtime,
        groups=groups,
        preferred=None if preferred == "auto" else preferred,
    )
    fallen_back = config.encoder == "auto" and config.weights is None and encoder.source.about
    if config.require_weights and (fallen_back or not encoder.source.path):
        raise WeightsError(
            "no weights of DINOv2 could be had, and --require-weights was given",
            "give a file with --weights, or connect to a network once",
        )
    return encoder


def is_encoder_of(encoder: Encoder, config: Config, digest: str) -> bool:
    """Whether a saved model of that config, its weights of that SHA-256, was trained with it."""
    return (
        encoder.config.name == config.encoder
        and encoder.source.sha256 == digest
        and encoder.image_size == (config.image_size, config.image_size)
        and (encoder.layers, encoder.groups) == config.encoder_layers()
        and encoder.dtype.name == config.dtype
        and encoder.runtime == config.runtime
    )


def find_encoder(config: Config, digest: str, named: bool) -> Encoder:
    """The encoder a saved model was trained with, where it lay or from the cache or hub.

    Args:
        config: of the model.
        digest: SHA-256 of its weights; "" of random ones.
        named: the weights' file was named by the user, and is not to be replaced.

    Raises:
        WeightsError: what was found is another one.
    """
    if not named and config.weights != "random" and not Path(str(config.weights)).exists():
        config = replace(config, weights=None)
    encoder = open_encoder(replace(config, require_weights=False))
    if encoder.source.sha256 != digest:
        raise WeightsError(
            f"SHA-256 {encoder.source.sha256 or 'of nothing'}, but the model was trained with the "
            f"{config.encoder} of {digest or 'random weights'}",
            "give the right file with weights=… (--weights)",
            encoder.source.path or None,
        )
    return encoder
