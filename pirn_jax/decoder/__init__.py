"""Decoder: tokens → reconstruction."""

from pirn_jax.decoder.config import DecoderConfig, LossConfig
from pirn_jax.decoder.decoder import (
    Decoder,
    Params,
    Reconstruction,
    abstract_params,
    create_decoder,
    merge,
    split,
)
from pirn_jax.decoder.distance import DISTANCES, cosine_distance, squared_distance
from pirn_jax.decoder.layer import Diagnostics
from pirn_jax.decoder.loss import reconstruction_loss
from pirn_jax.decoder.prototypes import init_prototypes, principal_directions
from pirn_jax.decoder.tokens import Tokens, select_scans

__all__ = [
    "DISTANCES",
    "Decoder",
    "DecoderConfig",
    "Diagnostics",
    "LossConfig",
    "Params",
    "Reconstruction",
    "Tokens",
    "abstract_params",
    "cosine_distance",
    "create_decoder",
    "init_prototypes",
    "merge",
    "principal_directions",
    "reconstruction_loss",
    "select_scans",
    "split",
    "squared_distance",
]
