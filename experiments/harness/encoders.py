"""One encoder in memory for all detectors that look alike."""

from __future__ import annotations

from collections import OrderedDict

from pirn_jax.config import Config
from pirn_jax.detector import open_encoder
from pirn_jax.detector.encoders import features_of
from pirn_jax.encoder import Encoder

_KEPT = 4
_loaded: OrderedDict[tuple[object, ...], Encoder] = OrderedDict()


def encoder_of(config: Config) -> Encoder:
    """The encoder of a config; configs that differ elsewhere share it. The last four are kept."""
    key = (
        config.encoder,
        config.weights,
        config.require_weights,
        config.image_size,
        config.tiles,
        config.dtype,
        config.runtime,
        config.encoder_layers(),
        config.chosen_recipe.encoder,
        features_of(config),
        config.points_weights,
        config.modalities if features_of(config) != "normals" else (),
    )
    if key not in _loaded:
        _loaded[key] = open_encoder(config)
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
    return _loaded[key]
