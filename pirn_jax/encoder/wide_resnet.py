"""WideResNet-50-2 as an encoder: stages 2 and 3, 3x3 means, on the grid of stage 2.

The convolutional network of BTF, PatchCore and SimpleNet. A bottleneck of stage s computes

    y = relu(conv1x1(x)),  y = relu(conv3x3(y)),  x ← relu(conv1x1(y) + shortcut(x))

each convolution followed by batch normalisation with stored statistics, which is folded into it
when the file is read. The stride of a stage is that of its first 3x3 convolution.

Tokens are those of BTF: of each stage the means over 3x3 windows that lie whole within it, averaged
(or repeated) onto the grid of one token for 8 pixels, and both side by side: 512 + 1024 channels.

Source: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), in torchvision's layout; Horwitz and Hoshen
    2023 (BTF, arXiv 2203.05550).

Dimension letters: B pictures, h w pixels, N tokens, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pirn_jax.encoder.blocks import Blocks
from pirn_jax.encoder.catalog import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig
from pirn_jax.encoder.encoder import Encoder, Images
from pirn_jax.encoder.packed import Packed, pack, unpack
from pirn_jax.encoder.source import Source, sha256_of
from pirn_jax.encoder.weights import listed, read_header
from pirn_jax.errors import ConfigError, WeightsError

NAME = "wide-resnet50-2"
BLOCKS = (3, 4, 6)  # of stages 1 to 3; the fourth is not needed
STAGES = (2, 3)  # whose outputs are the tokens
STEM = 64
_EPSILON = 1e-5  # of batch normalisation
_UNUSED = ("layer4.", "fc.")
_COUNTED = "num_batches_tracked"
_CONFIG = EncoderConfig(
    name=NAME,
    width=1536,
    depth=3,
    heads=1,
    patch=8,
    layers=STAGES,
    normalised_layers=STAGES,
    hidden=0,
    native_size=224,
)


def convolutions(
    blocks: Sequence[int] = BLOCKS, stem: int = STEM
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every convolution by its key in the file: its batch normalisation's key, and its shape."""
    found = {"conv1": ("bn1", (stem, 3, 7, 7))}
    before = stem
    for stage, count in enumerate(blocks, 1):
        out = 4 * stem * 2 ** (stage - 1)
        inner = out // 2
        for number in range(count):
            at = f"layer{stage}.{number}"
            found[f"{at}.conv1"] = (f"{at}.bn1", (inner, before, 1, 1))
            found[f"{at}.conv2"] = (f"{at}.bn2", (inner, inner, 3, 3))
            found[f"{at}.conv3"] = (f"{at}.bn3", (out, inner, 1, 1))
            if number == 0:
                found[f"{at}.downsample.0"] = (f"{at}.downsample.1", (out, before, 1, 1))
            before = out
    return found


def is_wide_resnet(keys: Mapping[str, Any]) -> bool:
    """Whether a file with these keys holds a residual network of this layout."""
    return "layer1.0.conv3.weight" in keys


def read_wide_resnet(
    path: Path, blocks: Sequence[int] = BLOCKS, stem: int = STEM
) -> dict[str, dict[str, np.ndarray]]:
    """Convolutions with their normalisation folded in, by their keys: kernels and biases.

    Args:
        path: safetensors, in torchvision's and timm's names.
        blocks: of each stage.
        stem: channels of the first convolution.

    Raises:
        WeightsError: the file is missing, no safetensors, another network's, or holds values that
            are not finite. Everything wrong is listed at once.
    """
    known = convolutions(blocks, stem)
    wanted: dict[str, tuple[int, ...]] = {}
    for key, (norm, shape) in known.items():
        wanted[f"{key}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            wanted[f"{norm}.{part}"] = shape[:1]
    with read_header(path) as (file, header, _):
        unused = [k for k in header if k.startswith(_UNUSED) or k.endswith(_COUNTED)]
        problems = {
            "missing": sorted(wanted.keys() - header.keys()),
            "unexpected": sorted(header.keys() - wanted.keys() - set(unused)),
            "mismatched": [
                f"{key} is {header[key]}, expected {shape}"
                for key, shape in sorted(wanted.items())
                if header.get(key, shape) != shape
            ],
        }
        said = [f"{what}: {listed(items)}" for what, items in problems.items() if items]
        if said:
            raise WeightsError(
                f"does not hold {NAME} with torchvision's or timm's names\n  " + "\n  ".join(said),
                "give the file that belongs to this encoder",
                path,
            )
        tensors = {key: np.asarray(file.get_tensor(key), np.float32) for key in wanted}
    broken = [key for key, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise WeightsError(
            f"holds NaN or infinite values in {listed(broken)}", "download it again", path
        )
    parameters = {}
    for key, (norm, _) in known.items():
        scale, bias, mean, variance = (
            tensors[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + np.float32(_EPSILON))
        kernel = tensors[f"{key}.weight"].transpose(2, 3, 1, 0) * factor
        parameters[key] = {"kernel": kernel, "bias": bias - mean * factor}
    return parameters


def seeded_wide_resnet() -> dict[str, dict[str, np.ndarray]]:
    """Random convolutions that are the same everywhere."""
    stream = np.random.RandomState(0)
    parameters = {}
    for key, (_, shape) in convolutions().items():
        spread = np.sqrt(2 / np.prod(shape[1:]))
        kernel = spread * stream.standard_normal(shape).transpose(2, 3, 1, 0)
        parameters[key] = {
            "kernel": kernel.astype(np.float32),
            "bias": np.zeros(shape[0], np.float32),
        }
    return parameters


def stages(
    parameters: Mapping[str, Mapping[str, Array]], colours: Float[Array, "B h w 3"]
) -> list[Float[Array, "B _ _ _"]]:
    """What each stage puts out.

    Args:
        parameters: as `read_wide_resnet` gives them; they say how many stages and blocks there are.
        colours: normalised.
    """
    x = jax.nn.relu(_convolve(parameters["conv1"], colours, 2))
    window, stride, margin = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, stride, margin)
    found, stage = [], 1
    while f"layer{stage}.0.conv1" in parameters:
        number = 0
        while (first := f"layer{stage}.{number}.conv1") in parameters:
            at = first.removesuffix("conv1")
            step = 2 if stage > 1 and number == 0 else 1
            y = jax.nn.relu(_convolve(parameters[first], x, 1))
            y = jax.nn.relu(_convolve(parameters[f"{at}conv2"], y, step))
            y = _convolve(parameters[f"{at}conv3"], y, 1)
            short = parameters.get(f"{at}downsample.0")
            x = jax.nn.relu(y + (x if short is None else _convolve(short, x, step)))
            number += 1
        found.append(x)
        stage += 1
    return found


def _convolve(
    layer: Mapping[str, Array], x: Float[Array, "B h w C"], stride: int
) -> Float[Array, "B _ _ D"]:
    kernel = layer["kernel"]
    margin = kernel.shape[0] // 2
    product = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((margin, margin), (margin, margin)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return product + layer["bias"][None, None, None]


@functools.lru_cache(maxsize=16)
def pooling(size: int, out: int) -> np.ndarray:
    """The matrix (out, size) of means of 3, then of PyTorch's adaptive average pooling."""
    inner = size - 2
    if inner < 1:
        raise ConfigError(
            f"{NAME} needs 3x3 places after its third stage, and there are {size}x{size}",
            "use pictures of 48 pixels or more",
        )
    threes = np.zeros((inner, size))
    for place in range(inner):
        threes[place, place : place + 3] = 1 / 3
    adaptive = np.zeros((out, inner))
    for place in range(out):
        start, stop = place * inner // out, -(-(place + 1) * inner // out)
        adaptive[place, start:stop] = 1 / (stop - start)
    return (adaptive @ threes).astype(np.float32)


def operations(
    known: Mapping[str, tuple[str, tuple[int, ...]]], image_size: tuple[int, int]
) -> int:
    """Arithmetic of a picture's convolutions, 2 for each multiply-add."""
    total = 0
    for key, (_, shape) in known.items():
        stage = int(key[5]) if key.startswith("layer") else 0
        # A stage halves the picture in the second convolution of its first block.
        before = stage > 1 and key == f"layer{stage}.0.conv1"
        smaller = 2 if stage == 0 else 2 ** (stage + 1 - before)
        total += 2 * int(np.prod(shape)) * (image_size[0] // smaller) * (image_size[1] // smaller)
    return total


class WideResNet(Encoder):
    """WideResNet-50-2; made by `load_wide_resnet`.

    Its attributes are those of every encoder; `layers` are the stages.
    """

    def __init__(
        self,
        parameters: Mapping[str, Mapping[str, np.ndarray]],
        image_size: tuple[int, int],
        source: Source,
    ):
        self.config = replace(_CONFIG, width=_width(parameters))
        self.image_size = image_size
        self.layers, self.groups, self.normalised = STAGES, 1, False
        self.channels, self.blocks = self.config.width, len(BLOCKS)
        self.dtype, self.source, self.runtime = jnp.dtype("float32"), source, "jax"
        self.grid = (image_size[0] // self.config.patch, image_size[1] // self.config.patch)
        self.parameters = jax.tree.map(jnp.asarray, dict(parameters))
        self.packed = pack(self.parameters)
        self._run = jax.jit(self.tokens)

    def read(self, blocks: Blocks) -> Encoder:
        """Itself: its stages are read in one way; they are never normalised.

        Raises:
            ConfigError: groups of stages, or other stages, were asked for.
        """
        layers = tuple(blocks.layers) if isinstance(blocks.layers, Sequence) else blocks.layers
        if blocks.groups != 1 or layers not in (None, STAGES):
            raise ConfigError(
                f"{NAME} has no blocks to choose from", "use a Vision Transformer for this method"
            )
        return self

    def tokens(self, parameters: dict[str, Any] | Packed, images: Images) -> Float[Array, "B N C"]:
        """What a call computes, as a pure function of parameters and pictures."""
        self._check_shape(images)
        mean, deviation = jnp.asarray(IMAGENET_MEAN), jnp.asarray(IMAGENET_STD)
        colours = (jnp.asarray(images) - mean[None, None, None]) / deviation[None, None, None]
        outputs = stages(unpack(parameters), colours.astype(jnp.float32))
        pooled = [self._pooled(outputs[stage - 1]) for stage in STAGES]
        return jnp.concatenate(pooled, axis=-1)

    def flops(self, pictures: int = 2) -> int:
        """Arithmetic of a call in convolutions; by default of a pair (RGB and normals)."""
        return pictures * operations(convolutions(), self.image_size)

    def _pooled(self, x: Float[Array, "B _ _ C"]) -> Float[Array, "B N C"]:
        down, across = (pooling(x.shape[axis + 1], self.grid[axis]) for axis in (0, 1))
        precise = jax.lax.Precision.HIGHEST
        found = jnp.einsum("rh,bhwc,kw->brkc", down, x, across, precision=precise)
        return found.reshape(len(x), -1, x.shape[-1])


def _width(parameters: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    return sum(parameters[f"layer{stage}.0.conv3"]["bias"].shape[0] for stage in STAGES)


def load_wide_resnet(weights: str | Path | None, image_size: int = 224) -> WideResNet:
    """WideResNet-50-2 with parameters from a file.

    Args:
        weights: safetensors in torchvision's or timm's names (a .pth file of either becomes one by
            `python -m pirn_jax.encoder.convert`), or "random": seeded ones.
        image_size: of the pictures in pixels, a multiple of 16.

    Raises:
        ConfigError: no weights named, or another size.
        WeightsError: the file is missing, damaged, or another network's.
    """
    if image_size < 48 or image_size % 16:
        raise ConfigError(
            f"image_size must be a multiple of 16 pixels from 48 on for {NAME}, got {image_size}"
        )
    size = (image_size, image_size)
    if weights == "random":
        return WideResNet(seeded_wide_resnet(), size, Source("", ""))
    if weights is None:
        raise ConfigError(f"{NAME} is not looked for on the hub", "give its file: --weights FILE")
    path = Path(weights)
    return WideResNet(read_wide_resnet(path), size, Source(str(path), sha256_of(path)))
