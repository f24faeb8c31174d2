"""The student: this project's own ViT, a LayerNorm, and a linear head to the teacher's channels.

    p = Head(LayerNorm(ViT(image)))

It begins as a slice of its teacher: channels, heads and hidden units evenly spaced, blocks evenly
spaced up to the last one the teacher's feature is made of. A product over fewer inputs is scaled
by the root of how many fewer, so that its size stays. The head begins near zero.

Dimension letters: B pictures, h w pixels, N patch tokens, C channels of the teacher.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.encoder import Encoder
from pirn_jax.encoder.vit import Projection, ViT
from pirn_jax.errors import ConfigError

EPSILON = 1e-6
HEAD_DEVIATION = 0.05
Parameters: TypeAlias = dict[str, Array]
"""By path, such as "vit.blocks.0.attention.qkv.kernel", in float32."""


class Shape(NamedTuple):
    """Width, blocks and heads, as in "192x12x3"."""

    width: int
    depth: int
    heads: int


def parse_shape(text: str) -> Shape:
    """A shape from its text.

    Raises:
        ConfigError: it is not three whole numbers, the first divisible by the last.
    """
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    shape = Shape(*map(int, found.groups())) if found else None
    if shape is None or min(shape) < 1 or shape.width % shape.heads:
        raise ConfigError(
            f"expected a student as WIDTHxBLOCKSxHEADS, the width divisible by the heads; "
            f"got {text!r}",
            "for instance 192x12x3",
        )
    return shape


def student_config(shape: Shape, teacher: EncoderConfig, side: int) -> EncoderConfig:
    """The network of a student of pictures `side` pixels wide."""
    return EncoderConfig(
        name="student",
        width=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        patch=teacher.patch,
        layers=(shape.depth,),
        normalised_layers=(shape.depth,),
        hidden=4 * shape.width,
        layer_scale=True,
        position_rule="meta",
        native_size=side,
        epsilon=EPSILON,
        mean=teacher.mean,
        std=teacher.std,
    )


class Student(nnx.Module):
    """The network whose prediction is learned.

    Args:
        config: from `student_config`.
        channels: C of the teacher's tokens.
        dtype: of the matrix products within the ViT.
        rngs: asked for by LayerNorm, and unused.
    """

    def __init__(self, config: EncoderConfig, channels: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        side = config.native_size // config.patch
        self.vit = ViT(config, (side, side), config.depth, dtype, rngs)
        self.norm = nnx.LayerNorm(
            config.width, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs
        )
        self.head = Projection(config.width, channels, jnp.dtype("float32"))

    def __call__(self, images: Float[Array, "B h w 3"]) -> Float[Array, "B N C"]:
        """The teacher's tokens of these pictures, standardised per channel."""
        return self.head(self.norm(self.vit.mean_of(images, self.vit.config.layers)))


class Network:
    """A student's computation, as a pure function of float32 parameters by path.

    Args:
        config, channels, dtype: as of `Student`.
    """

    def __init__(self, config: EncoderConfig, channels: int, dtype: str):
        self.config, self.channels = config, channels
        self._exact = dtype == "float32"
        model = nnx.eval_shape(lambda: Student(config, channels, jnp.dtype(dtype), nnx.Rngs(0)))
        self._graph, state = nnx.split(model)
        tree = nnx.to_pure_dict(state)
        self._tree = jax.tree.structure(tree)
        self._kinds = {path: (leaf.shape, leaf.dtype) for path, leaf in _by_path(tree).items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, by path."""
        return {path: shape for path, (shape, _) in self._kinds.items()}

    def predict(
        self, parameters: Parameters, images: Float[Array, "B h w 3"]
    ) -> Float[Array, "B N C"]:
        """The standardised tokens of pictures in [0, 1]."""
        # Parameters are learned in float32 and rounded where they are multiplied.
        leaves = [parameters[path].astype(dtype) for path, (_, dtype) in self._kinds.items()]
        with jax.default_matmul_precision("highest" if self._exact else "default"):
            return nnx.merge(self._graph, jax.tree.unflatten(self._tree, leaves))(images)


def slice_teacher(network: Network, teacher: Encoder, seed: int) -> dict[str, np.ndarray]:
    """A student's first parameters, taken out of its teacher.

    Raises:
        ConfigError: a teacher of gated blocks, or with heads of another width than the student's.
    """
    config, source = network.config, teacher.config
    channels_per_head = config.width // config.heads
    if source.mlp != "gelu" or source.width // source.heads != channels_per_head:
        raise ConfigError(
            f"a student with heads of {channels_per_head} channels cannot be cut out of "
            f"{source.name}, whose heads have {source.width // source.heads} (MLP: {source.mlp})",
            f"give it a width of {source.width // source.heads} times its heads"
            if source.mlp == "gelu"
            else "take another teacher",
        )
    if config.width > source.width:
        raise ConfigError(
            f"a student {config.width} wide cannot be cut out of {source.name}, {source.width} wide"
        )
    leaves = _by_path(teacher.parameters)
    given = {path: np.asarray(leaf, np.float32) for path, leaf in leaves.items()}
    last = max(teacher.layers)
    blocks = _even(config.depth, last)
    width = _even(config.width, source.width)
    heads = _even(config.heads, source.heads)[:, None] * channels_per_head
    mixed = (heads + np.arange(channels_per_head)[None]).reshape(-1)
    qkv = (np.arange(3)[:, None] * source.width + mixed[None]).reshape(-1)
    hidden = _even(config.hidden, source.hidden)
    # By the end of a path: which inputs of a kernel, and which outputs.
    cuts: dict[str, tuple[np.ndarray | None, np.ndarray]] = {
        "patches": (None, width),
        "attention.qkv": (width, qkv),
        "attention.out": (mixed, width),
        "mlp.fc1": (width, hidden),
        "mlp.fc2": (hidden, width),
    }
    rng = np.random.default_rng([seed, 3])
    taken = {}
    for path, shape in network.shapes.items():
        taken[path] = _first_value(path, shape, given, blocks, width, cuts, rng)
    return taken


def _first_value(
    path: str,
    shape: tuple[int, ...],
    given: Mapping[str, np.ndarray],
    blocks: Int[np.ndarray, " n"],
    width: Int[np.ndarray, " m"],
    cuts: Mapping[str, tuple[np.ndarray | None, np.ndarray]],
    rng: np.random.Generator,
) -> np.ndarray:
    """One parameter of a student before its first step."""
    if path == "head.kernel":
        return (HEAD_DEVIATION * rng.standard_normal(shape)).astype(np.float32)
    if not path.startswith("vit."):
        return np.full(shape, 1.0 if path == "norm.scale" else 0.0, np.float32)
    path = path.removeprefix("vit.")
    path = re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{blocks[int(found[1])]}", path)
    if path not in given:  # a teacher without layer scales
        return np.ones(shape, np.float32)
    value = given[path]
    owner, kind = path.rpartition(".")[::2]
    inputs, outputs = next((cut for end, cut in cuts.items() if owner.endswith(end)), (None, width))
    value = value[: shape[0]] if path == "prefix" else value  # the class token, no registers
    value = value[..., outputs]
    if kind == "kernel" and inputs is not None:
        value = value[inputs] * np.sqrt(len(value) / len(inputs)).astype(np.float32)
    return np.ascontiguousarray(value)


def _even(count: int, of: int) -> Int[np.ndarray, " count"]:
    """So many indices, evenly spaced from the first to the last."""
    return np.linspace(0, of - 1, count).round().astype(int)


def _by_path(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a tree of dictionaries by their paths."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
