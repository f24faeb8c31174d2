"""The encoder a detector's config asks for, and the one a saved model was trained with."""

from __future__ import annotations

from dataclasses import replace

from pirn_jax.config import Config
from pirn_jax.encoder import Encoder, load_encoder
from pirn_jax.encoder.hub import Unavailable
from pirn_jax.encoder.source import remembered
from pirn_jax.errors import WeightsError


def open_encoder(config: Config) -> Encoder:
    """The encoder a config asks for.

    Raises:
        WeightsError: weights are required, and there are none.
    """
    layers, groups, normalised = config.encoder_layers()
    preferred = config.chosen_recipe.encoder
    encoder = load_encoder(
        config.encoder,
        config.weights,
        config.image_size,
        layers,
        dtype=config.dtype,
        runtime=config.runtime,
        groups=groups,
        normalised=normalised,
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
        and (encoder.layers, encoder.groups, encoder.normalised) == config.encoder_layers()
        and encoder.dtype.name == config.dtype
        and encoder.runtime == config.runtime
    )


def find_encoder(config: Config, digest: str, lay: str) -> Encoder:
    """The encoder a saved model was trained with.

    Args:
        config: of the model, with weights that the user named, if any. Otherwise they are found by
            their hash: where this user had them, in the package, the cache, or on the hub.
        digest: SHA-256 of its weights; "" of random ones.
        lay: where the model says that they lay, for the message; nothing is read from there.

    Raises:
        WeightsError: it cannot be had, or what was found is another one.
    """
    trained = f"the model was trained with the {config.encoder} of {digest or 'random weights'}"
    trained += f", which lay at {lay!r}" if lay else ""
    remedy = "give the right file with weights=… (--weights)"
    if config.weights is None:
        known = remembered(digest)
        config = replace(config, weights="random" if not digest else known and str(known))
    try:
        encoder = open_encoder(replace(config, require_weights=False))
    except Unavailable as error:
        raise WeightsError(f"{trained}; {error.problem}", remedy) from error
    if encoder.source.sha256 != digest:
        raise WeightsError(
            f"SHA-256 {encoder.source.sha256 or 'of nothing'}, but {trained}",
            remedy,
            encoder.source.path or None,
        )
    return encoder
