"""Encoder: pictures → tokens."""

from pirn_jax.encoder.blocks import Blocks
from pirn_jax.encoder.catalog import CATALOG, EncoderConfig, encoder_config
from pirn_jax.encoder.encoder import Encoder, load_encoder

__all__ = ["CATALOG", "Blocks", "Encoder", "EncoderConfig", "encoder_config", "load_encoder"]
