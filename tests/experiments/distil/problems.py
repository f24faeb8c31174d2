"""A tiny teacher with seeded weights, and pictures of many colours."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from distil.pictures import Pictures
from distil.train import Recipe
from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.encoder import Encoder
from pirn_jax.encoder.source import Source
from pirn_jax.encoder.vit import ViT
from pirn_jax.encoder.weights import seeded_weights

SIDE = 56
RECIPE = Recipe(student="16x3x2", image_size=SIDE, batch=8, statistics_batches=2)
TEACHER = EncoderConfig(
    name="tiny-teacher",
    width=32,
    depth=4,
    heads=4,
    patch=14,
    layers=(2, 3),
    hidden=128,
    layer_scale=True,
    normalised_layers=(2, 3),
    native_size=SIDE,
)


def teacher(config: EncoderConfig = TEACHER) -> Encoder:
    grid = (SIDE // config.patch,) * 2
    dtype = jnp.dtype("float32")
    model = nnx.eval_shape(lambda: ViT(config, grid, config.depth, dtype, nnx.Rngs(0)))
    leaves = jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.split(model)[1]))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves
    }
    return Encoder(
        config,
        seeded_weights(shapes),
        (SIDE, SIDE),
        (config.layers, 1, False),
        dtype,
        Source("", ""),
    )


def some_pictures(count: int, side: int = SIDE) -> np.ndarray:
    """Smooth colours with hard edges, (count, side, side, 3) bytes."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(own).resize((side, side), Image.Resampling(i % 2 * 2)))
            for i, own in enumerate(small)
        ]
    )


def library(count: int = 20) -> Pictures:
    arrays = some_pictures(count, 2 * SIDE)
    names = tuple(f"{i:02d}.png" for i in range(count))
    return Pictures(names, tuple(arrays), tuple(i % 2 for i in range(count)), ())


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def recipe(**changes) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)
