"""The encoder a detector's config asks for, and the one a saved model was trained with."""

from __future__ import annotations

from dataclasses import replace

from pirn_jax.config import Config
from pirn_jax.encoder import Encoder, in_tiles, load_encoder
from pirn_jax.encoder.hub import Unavailable
from pirn_jax.encoder.point_mae import NAME, load_point_mae
from pirn_jax.encoder.points import EncoderWithPoints, Fpfh, PointFeatures, Points
from pirn_jax.encoder.source import remembered
from pirn_jax.encoder.wide_resnet import NAME as WIDE_RESNET
from pirn_jax.encoder.wide_resnet import load_wide_resnet
from pirn_jax.errors import ConfigError, WeightsError


def open_encoder(config: Config) -> Encoder:
    """The encoder a config asks for.

    Raises:
        WeightsError: weights are required, and there are none.
    """
    encoder = _pictures(config)
    fallen_back = config.encoder == "auto" and config.weights is None and encoder.source.about
    if config.require_weights and (fallen_back or not encoder.source.path):
        raise WeightsError(
            "no weights of DINOv2 could be had, and --require-weights was given",
            "give a file with --weights, or connect to a network once",
        )
    return with_points(in_tiles(encoder, config.tiles), config)


def with_points(encoder: Encoder, config: Config) -> Encoder:
    """An encoder of pictures, with what else describes the geometry to a detector.

    Raises:
        ConfigError: Point-MAE, and no weights named.
        WeightsError: they cannot be read.
    """
    features = features_of(config)
    if features == "normals":
        return encoder
    points: PointFeatures = Fpfh()
    if features == "points":
        (height, width), (rows, columns) = encoder.image_size, encoder.grid
        points = Points((height // rows, width // columns))
    elif features != "fpfh":
        mode = "eval" if features == NAME else "as_published"
        points = load_point_mae(config.points_weights, mode)
    return EncoderWithPoints(encoder, points, config.modalities)


def _pictures(config: Config) -> Encoder:
    """The encoder of pictures, whatever describes the geometry."""
    if config.encoder == WIDE_RESNET:
        if (config.dtype, config.runtime) != ("float32", "jax"):
            raise ConfigError(f"{WIDE_RESNET} runs in float32 by jax only")
        return load_wide_resnet(config.weights, config.image_size)
    layers, groups, normalised = config.encoder_layers()
    preferred = config.chosen_recipe.encoder
    return load_encoder(
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


def features_of(config: Config) -> str:
    """What describes the geometry to a detector; "normals" also where it sees no geometry."""
    if "normals" not in config.modalities:
        return "normals"
    return config.settings.geometry_features()


def describes_as(encoder: Encoder, config: Config) -> bool:
    """Whether the encoder describes the geometry as a config says, for just its modalities."""
    apart = isinstance(encoder, EncoderWithPoints) and encoder.modalities != config.modalities
    return encoder.features == features_of(config) and not apart


def points_digest(encoder: Encoder) -> str:
    """SHA-256 of the weights of an encoder's features of points; "" where these have none."""
    return encoder.points.source.sha256 if isinstance(encoder, EncoderWithPoints) else ""


def is_encoder_of(encoder: Encoder, config: Config, digest: str, points: str = "") -> bool:
    """Whether a saved model was trained with it.

    Args:
        encoder: at hand.
        config: of the model.
        digest: SHA-256 of the model's encoder's weights.
        points: and of its features of points.
    """
    return (
        describes_as(encoder, config)
        and points_digest(encoder) == points
        and encoder.config.name == config.encoder
        and encoder.source.sha256 == digest
        and encoder.tiles == config.tiles
        and encoder.image_size == (config.view_size, config.view_size)
        and encoder.read(config.encoder_layers()) is encoder
        and encoder.dtype.name == config.dtype
        and encoder.runtime == config.runtime
    )


def find_encoder(config: Config, digest: str, lay: str, points: str = "") -> Encoder:
    """The encoder a saved model was trained with.

    Args:
        config: of the model, with weights that the user named, if any. Otherwise they are found by
            their hash: where this user had them, in the package, the cache, or on the hub.
        digest: SHA-256 of its weights; "" of random ones.
        lay: where the model says that they lay, for the message; nothing is read from there.
        points: SHA-256 of the weights of its features of points; "" of none, or of random ones.

    Raises:
        WeightsError: it cannot be had, or what was found is another one.
    """
    trained = f"the model was trained with the {config.encoder} of {digest or 'random weights'}"
    trained += f", which lay at {lay!r}" if lay else ""
    remedy = "give the right file with weights=… (--weights)"
    if config.weights is None:
        known = remembered(digest)
        config = replace(config, weights="random" if not digest else known and str(known))
    if config.points_weights is None and features_of(config).startswith(NAME):
        config = replace(config, points_weights=_points_weights(points))
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
    if points_digest(encoder) != points:
        raise WeightsError(
            f"Point-MAE of SHA-256 {points_digest(encoder) or 'of nothing'}, but the model was "
            f"trained with that of {points or 'random weights'}",
            "give the right file with points_weights=…",
        )
    return encoder


def _points_weights(digest: str) -> str:
    """Where this user last had the weights of that SHA-256.

    Raises:
        WeightsError: nowhere.
    """
    known = remembered(digest)
    if digest and known is None:
        raise WeightsError(
            f"the model was trained with Point-MAE of SHA-256 {digest}, which is no longer where "
            "it was",
            "give the file with points_weights=…",
        )
    return str(known) if known else "random"
