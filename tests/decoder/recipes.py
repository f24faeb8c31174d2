"""The two recipes the tests run, and small decoders of them."""

from dataclasses import replace

from pirn_jax.decoder import DecoderConfig
from pirn_jax.methods.pirn import RECIPES

__all__ = ["RECIPES", "small_config"]


def small_config(recipe: str = "default", **changes) -> DecoderConfig:
    """The decoder of that recipe with 4 prototypes, 3 heads and one layer, unless changed."""
    return replace(RECIPES[recipe].decoder, **{"prototypes": 4, "heads": 3, "layers": 1, **changes})
