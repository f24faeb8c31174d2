"""The one function that is exported: pictures of a batch → score and maps, weights inside.

Dimension letters: B scans, h w model pixels, N tokens, M modalities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jaxtyping import Bool

from pirn_jax.config import with_settings
from pirn_jax.deploy.graph import BATCH
from pirn_jax.detector import PIRN
from pirn_jax.detector.preprocessing import sees_points
from pirn_jax.errors import ConfigError
from pirn_jax.methods.pirn import Recipe

METHODS = ("mixture", "pirn", "memory", "subspace")
"""Those whose files were held to JAX."""
KINDS = {"rgb": np.uint8, "normals": np.float32}
"""Of the pictures, as a file takes them."""


class Program(NamedTuple):
    """What is exported.

    Attributes:
        run: pictures of the modalities, then valid pixels → outputs in the order of `outputs`.
        inputs: names, shapes and types of what it takes.
        outputs: names of what it gives.
        matrices: of the encoder.
    """

    run: Callable[..., tuple[Array, ...]]
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]
    matrices: tuple[np.ndarray, ...] = ()


def build_program(model: PIRN, batch: int | None) -> Program:
    """The program of a trained model.

    Args:
        model: trained.
        batch: scans a call; None: any number.

    Raises:
        ConfigError: a method, features of points or a number type that cannot be exported.
    """
    config = model.config
    if config.method not in METHODS:
        raise ConfigError(
            f"method {config.method} cannot be exported", f"train one of {', '.join(METHODS)}"
        )
    if sees_points(config):
        raise ConfigError(
            f"a model of {config.settings.geometry_features()} features cannot be exported",
            "train without recipe.features",
        )
    if config.dtype != "float32":
        raise ConfigError(
            f"the model computes in {config.dtype}, and files are in float32: their scores would "
            "not be those its threshold was set with",
            "train with --dtype float32",
        )
    count: Any = export.symbolic_shape(BATCH)[0] if batch is None else batch
    modalities, size = config.modalities, (config.view_size, config.view_size)
    inputs = {name: jax.ShapeDtypeStruct((count, *size, 3), KINDS[name]) for name in modalities} | {
        "valid": jax.ShapeDtypeStruct((count, *size), np.bool_)
    }
    run_all, grid = _exportable(model).inference.from_pictures, model.encoder.grid
    weights, learned = model.encoder.parameters, model.parameters

    def run(*given: Array) -> tuple[Array, ...]:
        *pictures, valid = given
        stacked = jnp.stack(
            [p.astype(jnp.float32) / 255 if p.dtype == jnp.uint8 else p for p in pictures]
        )
        found = run_all(weights, *learned, stacked, token_pixels(valid, grid))
        return found.score, found.fused, *found.maps

    matrices = tuple(np.asarray(leaf) for leaf in jax.tree.leaves(weights) if leaf.ndim == 2)
    outputs = ("score", "map", *(f"map_{name}" for name in modalities))
    return Program(run, inputs, outputs, matrices)


def token_pixels(valid: Bool[Array, "B h w"], grid: tuple[int, int]) -> Bool[Array, "B N"]:
    """True for each token with a valid pixel in its patch: `pirn_jax.training.token_validity`."""
    batch, height, width = valid.shape
    rows, columns = grid
    cut = valid.astype(jnp.float32).reshape(batch, rows, height // rows, columns, width // columns)
    return (cut.max((2, 4)) > 0).reshape(batch, rows * columns)


def _exportable(model: PIRN) -> PIRN:
    """The same model in the forms that are exported: no graph library, the fastest solver."""
    config = model.config
    if isinstance(config.chosen_recipe, Recipe):
        config = with_settings(replace(config, solver="auto"), {"decoder.graph": "dense"})
    if config == model.config:
        return model
    other = PIRN(config, encoder=model.encoder)
    other.parameters = model.parameters
    return other
