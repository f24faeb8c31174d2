"""The frozen encoder as the rest of the house uses it: pictures in [0, 1] to patch tokens.

Dimension letters: B pictures, h w pixels, N patch tokens, C channels.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from pirn_jax.encoder import hub
from pirn_jax.encoder.blocks import Blocks, Decided, Layers, checked_blocks, checked_layers, whole
from pirn_jax.encoder.catalog import EncoderConfig, PositionRule, encoder_config
from pirn_jax.encoder.embedded import NAME as EMBEDDED
from pirn_jax.encoder.embedded import embedded_weights
from pirn_jax.encoder.openvino import compile_encoder
from pirn_jax.encoder.packed import Packed, pack, unpack
from pirn_jax.encoder.positions import position_rule as resolve_rule
from pirn_jax.encoder.positions import resize_positions
from pirn_jax.encoder.source import Source, sha256_of
from pirn_jax.encoder.vit import ViT
from pirn_jax.encoder.weights import identify, read_configuration, read_weights, seeded_weights
from pirn_jax.errors import BadInputError, ConfigError

_log = logging.getLogger("pirn_jax")
RUNTIMES = ("jax", "openvino")
Images = Array | np.ndarray  # (B, h, w, 3); checked here, with better words than a type's


class Encoder:
    """A frozen Vision Transformer with its parameters; made by `load_encoder`.

    Calling it is one jitted program per batch size: colours normalised, run to the last layer
    needed, patch tokens of the layers averaged. `tokens` is the same as a pure function, to be
    compiled into a larger program together with what follows.

    Attributes:
        config: which network it is.
        image_size: height and width of its pictures in pixels.
        grid: rows and columns of patches.
        layers, groups, normalised: see `Blocks`.
        channels: C of the tokens, those of all groups.
        dtype: of the matrix products.
        runtime: what a call runs on, "jax" or "openvino"; the other methods always run in JAX.
        features: what describes geometry: here "normals", a picture of them.
        tiles: into how many along each side a picture is cut: here 1, it is seen whole.
        parameters: the pure dict that `tokens` takes.
        packed: the same in few buffers, which it takes as well: what a compiled call is given.
        source: the file behind the parameters; its path is "" for seeded ones.
    """

    features = "normals"
    tiles = 1

    def __init__(
        self,
        config: EncoderConfig,
        parameters: dict[str, np.ndarray],
        image_size: tuple[int, int],
        blocks: Decided,
        dtype: jnp.dtype,
        source: Source,
        runtime: str = "jax",
    ):
        self.config, self.image_size = config, image_size
        self.dtype, self.source, self.runtime = dtype, source, runtime
        self.grid = grid_of(config, image_size)
        self.blocks = _blocks(parameters)
        self._graph, abstract = _skeleton(config, self.grid, self.blocks, dtype)
        self.parameters = jax.tree.map_with_path(
            # Taken out one by one, so that only one copy of a large network is held.
            lambda path, leaf: jnp.asarray(parameters.pop(_path(path)), leaf.dtype),
            abstract,
        )
        self.packed = pack(self.parameters)
        self._states = jax.jit(self._hidden_states, static_argnums=2)
        self._read: dict[Decided, Encoder] = {}  # shared by all of them
        self._set(blocks)

    def _set(self, blocks: Decided) -> None:
        self.layers, self.groups, self.normalised = blocks
        self.channels = self.groups * self.config.width
        self._run = jax.jit(self.tokens) if self.runtime == "jax" else self._on_cpu()
        self._read[blocks] = self

    def read(self, blocks: Blocks) -> Encoder:
        """The same network read otherwise; parameters are shared.

        Args:
            blocks: without layers, these stay, if they are not the network's own.

        Raises:
            ConfigError: what the network or the runtime does not have.
        """
        if blocks.layers is None and self.layers != self.config.own_layers(self.normalised):
            blocks = blocks._replace(layers=self.layers)
        decided = checked_blocks(self.config, blocks, self.runtime)
        self._check_blocks(max(decided[0]))
        if decided not in self._read:
            copy.copy(self)._set(decided)
        return self._read[decided]

    def __call__(self, images: Images) -> Float[Array, "B N C"]:
        """The mean patch tokens of `layers`, float32.

        Args:
            images: float colours in [0, 1], (B, h, w, 3), of the size the encoder was loaded for.
                Values are checked in numpy arrays only: looking into a jax array would wait for it.

        Raises:
            BadInputError: another shape or type, or colours outside [0, 1].
        """
        return self._run(self.packed, self._checked(images))

    def _on_cpu(self) -> Callable[[dict[str, Any], Images], Array]:
        run = compile_encoder(
            self.config,
            self.parameters,
            self.image_size,
            self.layers,
            self.dtype.name,
            self.normalised,
        )
        return lambda _, images: jnp.asarray(run(np.asarray(images, np.float32)))

    def tokens(self, parameters: dict[str, Any] | Packed, images: Images) -> Float[Array, "B N C"]:
        """What a call computes, as a pure function of parameters, packed or not, and pictures."""
        self._check_shape(images)
        with self._precision():
            model = nnx.merge(self._graph, unpack(parameters))
            return model.mean_of(images, self.layers, self.groups, self.normalised)

    def widths(self, modalities: Sequence[str]) -> tuple[int, ...]:
        """The channels of each modality's tokens; the rest of C, where there is one, is 0."""
        return (self.channels,) * len(modalities)

    def hidden_states(self, images: Images, layers: Sequence[int]) -> list[Float[Array, "B N C"]]:
        """Raw outputs of single blocks, patch tokens only, in the order asked for.

        Args:
            images: as in a call.
            layers: 1-based blocks; any the weights have, not only those that are averaged.

        Raises:
            BadInputError: pictures as in a call.
            ConfigError: a layer that does not exist.
        """
        wanted = checked_layers(self.config, layers)
        self._check_blocks(max(wanted))
        return self._states(self.parameters, self._checked(images), wanted)

    def _hidden_states(
        self, parameters: dict[str, Any], images: Images, layers: tuple[int, ...]
    ) -> list[Float[Array, "B N C"]]:
        with self._precision():
            outputs = nnx.merge(self._graph, parameters).outputs(images, max(layers))
            kept = {number: tokens for number, tokens in enumerate(outputs, 1) if number in layers}
        return [kept[layer] for layer in layers]

    def _precision(self) -> Any:
        # float32 means float32: left alone, GPUs would round its products to TensorFloat-32.
        exact = self.dtype == jnp.dtype("float32")
        return jax.default_matmul_precision("highest" if exact else "default")

    def flops(self, pictures: int = 2) -> int:
        """Arithmetic of a call in matrix products; by default of a pair (RGB and normals)."""
        return pictures * self.config.flops(self.image_size, max(self.layers))

    def _checked(self, images: Images) -> Images:
        if not isinstance(images, np.ndarray | jax.Array):
            raise BadInputError(
                f"expected a numpy or jax array of pictures, got a {type(images).__name__}",
                "np.asarray(pictures, np.float32)",
            )
        self._check_shape(images)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise BadInputError(
                f"expected float colours in [0, 1], got {images.dtype}", "divide bytes by 255"
            )
        if isinstance(images, np.ndarray) and images.size:
            low, high = float(images.min()), float(images.max())
            if not (low >= -0.1 and high <= 1.1):  # bicubic resizing may overshoot; NaN fails too
                raise BadInputError(
                    f"expected colours in [0, 1], got {low:.3g} to {high:.3g}",
                    "divide bytes by 255; colour statistics are normalised by the encoder",
                )
        return images

    def _check_blocks(self, last: int) -> None:
        if last > self.blocks:
            raise ConfigError(
                f"layer {last} was asked for, but these weights end after {self.blocks}",
                f"ask for layers 1 to {self.blocks}, or load the whole network",
            )

    def _check_shape(self, images: Images) -> None:
        shape, expected = images.shape, (*self.image_size, 3)
        if len(shape) != 4 or shape[1:] != expected:
            raise BadInputError(
                f"expected pictures of shape (B, {', '.join(map(str, expected))}), got {shape}",
                "resize them, or load the encoder with their image_size",
            )

    def __repr__(self) -> str:
        layers = ", ".join(map(str, self.layers))
        where = "" if self.runtime == "jax" else f", {self.runtime}"
        return (
            f"Encoder({self.config.name}, {self.image_size[0]}×{self.image_size[1]}, "
            f"layers {layers}, {self.dtype.name}{where}, {self.source.path or 'seeded weights'})"
        )


def load_encoder(
    name: str,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] = 224,
    layers: Layers | None = None,
    position_rule: str | None = None,
    *,
    dtype: str = "float32",
    groups: int = 1,
    normalised: bool = False,
    runtime: str = "jax",
    preferred: str | None = None,
) -> Encoder:
    """Load a frozen encoder.

    Args:
        name: "dinov2-small|base|large|giant" (each also with "-reg"), "dino-vits8|vits16|vitb8|
            vitb16", "vit-tiny-16", "pirn-tiny" (comes with the package), or "auto": the network a
            given file holds; else dinov2-base where there is a GPU and dinov2-small where there is
            none, from the cache or the hub; else "pirn-tiny".
        weights: a safetensors file or a folder with `model.safetensors`; None for the local cache,
            then a download; "random" for seeded weights of the named shape.
        image_size: of the pictures in pixels, multiples of the patch: a side or (height, width).
        layers: 1-based blocks to average, or a function from the number of blocks to them; None for
            the network's own (2-10 of 12 blocks, 4-10 where they are normalised). Of pirn-tiny,
            other layers than its own are raw block outputs, as of any network.
        position_rule: how the position embedding is resized: None as the network's original does,
            "hf" as transformers, "meta" as Meta's code.
        dtype: of the matrix products, "float32" or "bfloat16"; everything between them stays in
            float32, and so does the first block. Against float32, on real weights (vit-tiny-16)
            and real pictures, bfloat16 tokens have a cosine of 0.99998 in the median and 0.9997 at
            worst.
        groups: the layers fall into so many groups of equal size; see `Blocks`.
        normalised: each block's tokens are normalised before they are averaged; see `Blocks`.
        runtime: what calls run on: "jax", or "openvino", faster on a CPU and nearly equal (see
            `openvino.py`).
        preferred: the network that "auto" looks for in the cache and the hub; None as said there.

    Raises:
        ConfigError: an unknown name, size, layer, rule, dtype or runtime.
        MissingDependencyError: runtime "openvino" without the package.
        WeightsError: weights missing, damaged, or of another network. A file may lack the blocks
            after the last of `layers` where these are given.
    """
    source = None
    if name == "auto":
        name, weights, source = _choose(weights, preferred)
    config = encoder_config(name)
    size = _checked_size(config, image_size)
    rule = resolve_rule(config, position_rule)
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}")
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    blocks = checked_blocks(config, Blocks(layers, groups, normalised), runtime)
    compute, grid = jnp.dtype(dtype), grid_of(config, size)

    if weights == "random":
        _log.warning("%s with RANDOM WEIGHTS, which know nothing; results mean little", config.name)
        parameters = _seeded(config, grid, rule, compute)
        return Encoder(config, parameters, size, blocks, compute, Source("", ""), runtime)

    if config.teacher and size != (config.native_size, config.native_size):
        _say_trained_size(config, size)
    if weights is None:
        source = (
            source
            or embedded_weights(config)
            or hub.cached_weights(config)
            or hub.download_weights(config)
        )
        path = Path(source.path)
    else:
        path = _file_of(weights)
    config = read_configuration(path, config)
    least = config.depth if layers is None else max(blocks[0])
    parameters = read_weights(path, config, grid, rule, least)
    source = source or Source(str(path), sha256_of(path))
    return Encoder(config, parameters, size, blocks, compute, source, runtime)


def grid_of(config: EncoderConfig, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a picture."""
    return image_size[0] // config.patch, image_size[1] // config.patch


def _file_of(weights: str | Path) -> Path:
    path = Path(weights)
    return path / "model.safetensors" if path.is_dir() else path


def _choose(
    weights: str | Path | None, preferred: str | None
) -> tuple[str, str | Path | None, Source | None]:
    """What "auto" means here: the name, with the weights given or the source found for it."""
    if weights not in (None, "random"):
        return identify(_file_of(weights)), weights, None
    names = ["dinov2-small", "dinov2-base"]
    if preferred is not None:
        names = [preferred]
    elif jax.default_backend() == "gpu":
        names.reverse()
    if weights == "random":
        return names[0], weights, None
    for name in names:
        if source := hub.cached_weights(encoder_config(name)):
            return name, None, source
    try:
        return names[0], None, hub.download_weights(encoder_config(names[0]))
    except hub.Unavailable as error:
        _log.warning(
            "%s; the encoder is %s, which comes with pirn_jax; for DINOv2 give its file "
            "(--weights) or a network once: docs/encoders.md",
            error.problem,
            EMBEDDED,
        )
        return EMBEDDED, None, None


@functools.cache  # once for each size
def _say_trained_size(config: EncoderConfig, size: tuple[int, int]) -> None:
    _log.warning(
        "%s was trained on pictures of %d px; at %d × %d px its position embedding is resized: "
        "what that costs, docs/encoders.md says",
        config.name,
        config.native_size,
        *size,
    )


def _seeded(
    config: EncoderConfig, grid: tuple[int, int], rule: PositionRule, dtype: jnp.dtype
) -> dict[str, np.ndarray]:
    """Seeded weights: one network at every picture size, its positions resized as real ones are."""
    native = grid_of(config, (config.native_size, config.native_size))
    _, abstract = _skeleton(config, native, config.depth, dtype)
    leaves = jax.tree.leaves_with_path(abstract)
    parameters = seeded_weights({_path(path): leaf.shape for path, leaf in leaves})
    stored = parameters["positions"].reshape(*native, config.width)
    parameters["positions"] = resize_positions(stored, grid, rule).reshape(-1, config.width)
    return parameters


def _checked_size(config: EncoderConfig, image_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    size = tuple(whole(side, "image_size") for side in sides)
    if len(size) != 2 or any(side < config.patch or side % config.patch for side in size):
        near = [max(1, round(side / config.patch)) * config.patch for side in size]
        raise ConfigError(
            f"image_size must be a multiple of {config.name}'s patch of {config.patch} pixels, "
            f"got {image_size}",
            f"nearest: {' × '.join(map(str, near))}",
        )
    return size[0], size[1]


def _skeleton(
    config: EncoderConfig, grid: tuple[int, int], blocks: int, dtype: jnp.dtype
) -> tuple[Any, dict[str, Any]]:
    """The module's graph and its parameters as shapes, without memory for them."""
    model = nnx.eval_shape(lambda: ViT(config, grid, blocks, dtype, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def _path(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)


def _blocks(parameters: dict[str, np.ndarray]) -> int:
    return 1 + max(int(path.split(".")[1]) for path in parameters if path.startswith("blocks."))
