"""Decoder: tokens → reconstruction."""

from pirn_jax.decoder.decoder import Decoder, Reconstruction, create_decoder, merge, split
from pirn_jax.decoder.layer import Diagnostics
from pirn_jax.decoder.loss import reconstruction_loss
from pirn_jax.decoder.prototypes import init_prototypes, principal_directions
from pirn_jax.decoder.tokens import Tokens

__all__ = [
    "Decoder",
    "Diagnostics",
    "Reconstruction",
    "Tokens",
    "create_decoder",
    "init_prototypes",
    "merge",
    "principal_directions",
    "reconstruction_loss",
    "split",
]
