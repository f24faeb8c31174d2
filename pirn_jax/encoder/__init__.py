"""Encoder: pictures → tokens."""

from pirn_jax.encoder.blocks import Blocks
from pirn_jax.encoder.catalog import CATALOG, EncoderConfig, encoder_config
from pirn_jax.encoder.encoder import Encoder, load_encoder
from pirn_jax.encoder.tiles import in_tiles, tile_side, tiled_side

__all__ = [
    "CATALOG",
    "Blocks",
    "Encoder",
    "EncoderConfig",
    "encoder_config",
    "in_tiles",
    "load_encoder",
    "tile_side",
    "tiled_side",
]
