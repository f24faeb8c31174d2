"""The file of Point-MAE's weights to parameters: every key used once or named as of no use.

The published checkpoint holds the whole pre-training: `MAE_encoder.` is the part that is used, in a
dictionary `base_model` with `module.` before every key, which the converter takes off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pirn_jax.encoder.weights import listed, read_header, seeded_weights
from pirn_jax.errors import WeightsError

PREFIX = "MAE_encoder."
_UNUSED = ("mask_token", "decoder_pos_embed.", "MAE_decoder.", "increase_dim.")
_COUNTED = "num_batches_tracked"  # by PyTorch's batch normalisation
_LAYERS = {
    "point1": "encoder.first_conv.0",
    "statistics1": "encoder.first_conv.1",
    "point2": "encoder.first_conv.3",
    "joint1": "encoder.second_conv.0",
    "statistics2": "encoder.second_conv.1",
    "joint2": "encoder.second_conv.3",
    "position1": "pos_embed.0",
    "position2": "pos_embed.2",
    "norm": "norm",
}
_OF_BLOCK = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_FIELDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def key_of(path: str) -> str | None:
    """The key in the file of a parameter by its dotted path; None: the network has no such one."""
    layer, _, last = path.rpartition(".")
    if layer.startswith("blocks."):
        _, number, part = layer.split(".", 2)
        if part == "attention.qkv" and last == "bias":
            return None
        layer = f"blocks.blocks.{number}.{_OF_BLOCK[part]}"
    else:
        layer = _LAYERS[layer]
    return f"{PREFIX}{layer}.{_FIELDS[last]}"


def is_point_mae(keys: Iterable[str]) -> bool:
    """Whether a file with these keys is Point-MAE's."""
    return key_of("point1.kernel") in set(keys)


def read_point_mae(path: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from a safetensors file.

    Args:
        path: what the converter wrote.
        abstract: the parameters as shapes.

    Raises:
        WeightsError: the file is missing, no safetensors, another network's, or holds values that
            are not finite. Everything wrong is listed at once.
    """
    wanted = {_dotted(where): leaf.shape for where, leaf in jax.tree.leaves_with_path(abstract)}
    found: dict[str, np.ndarray] = {}
    with read_header(path) as (file, header, integers):
        keys = {target: key_of(target) for target in wanted}
        problems = _problems(wanted, keys, header, integers)
        if problems:
            raise WeightsError(
                "does not hold Point-MAE\n  " + "\n  ".join(problems),
                "convert the published pretrain.pth: python -m pirn_jax.encoder.convert",
                path,
            )
        for target, key in keys.items():
            if key is None:
                found[target] = np.zeros(wanted[target], np.float32)
                continue
            value = np.asarray(file.get_tensor(key), np.float32)
            found[target] = np.ascontiguousarray(
                value.reshape(len(value), -1).T if target.endswith(".kernel") else value
            )
    broken = [keys[name] or name for name, value in found.items() if not np.isfinite(value).all()]
    if broken:
        raise WeightsError(
            f"holds NaN or infinite values in {listed(broken)}", "download it again", path
        )
    return _nested(abstract, found)


def seeded_point_mae(abstract: Mapping[str, Any]) -> dict[str, Any]:
    """Random parameters that are the same everywhere."""
    shapes = {_dotted(where): leaf.shape for where, leaf in jax.tree.leaves_with_path(abstract)}
    found = seeded_weights(shapes)
    means = {name: np.zeros_like(value) for name, value in found.items() if name.endswith(".mean")}
    return _nested(abstract, found | means)


def _problems(
    wanted: Mapping[str, tuple[int, ...]],
    keys: Mapping[str, str | None],
    header: Mapping[str, tuple[int, ...]],
    integers: set[str],
) -> list[str]:
    shapes: dict[str, tuple[int, ...]] = {}
    for target, key in keys.items():
        if key is not None:
            shape = wanted[target]
            shapes[key] = shape[::-1] if target.endswith(".kernel") else shape
    unexpected = {
        key
        for key in header.keys() - shapes.keys()
        if not key.startswith(_UNUSED) and not key.endswith(_COUNTED)
    }
    # A convolution over single points is stored with an axis of its own.
    mismatched = [
        f"{key} is {header[key]}, expected {shape}"
        for key, shape in sorted(shapes.items())
        if key in header and header[key] not in (shape, (*shape, 1))
    ]
    mismatched += [f"{key} is not of a floating type" for key in sorted(integers & shapes.keys())]
    each = {
        "missing": sorted(shapes.keys() - header.keys()),
        "unexpected": sorted(unexpected),
        "mismatched": mismatched,
    }
    return [f"{what}: {listed(items)}" for what, items in each.items() if items]


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)


def _nested(abstract: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return jax.tree.map_with_path(lambda path, _: found[_dotted(path)], dict(abstract))
