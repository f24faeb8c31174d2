"""Models of every method that can be exported, small and trained in seconds."""

import functools

from pirn_jax import PIRN, Config
from pirn_jax.config import with_settings
from pirn_jax.scans import open_dataset


@functools.cache
def trained(
    method: str, recipe: str = "default", modalities=("rgb", "normals"), tiles: int = 1
) -> PIRN:
    data = open_dataset("synthetic", None, "flange")
    config = Config(
        encoder="pirn-tiny",
        image_size=56,
        method=method,
        recipe=recipe,
        geometry="grid",
        modalities=modalities,
        tiles=tiles,
    )
    if method == "pirn":
        config = with_settings(config, {"epochs": 1})
    model = PIRN(config, encoder=trained("mixture").encoder if method != "mixture" else None)
    model.fit(data.train[:2]).set_threshold([0.01, 0.02])
    model.origin = {"data": "generated", "reading": {"unit": "m"}}
    return model
