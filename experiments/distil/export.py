"""Students as files: safetensors in transformers' DINOv2 names, float16, with the figures beside.

Beside the names of a DINOv2 there are `layernorm.*` and `head.*`. The head of a file gives the
teacher's raw tokens: mean and deviation, which training keeps apart, are folded into it, and taken
out again where training goes on from a file. The class token's position is part of the token.

Dimension letters: C channels of the teacher.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from distil.loss import Statistics
from distil.student import Network
from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.positions import resize_positions
from pirn_jax.errors import WeightsError
from pirn_jax.storage import read_tensors, write_whole

_CLASS, _POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"
_PATCHES = "embeddings.patch_embeddings.projection"
_MODULES = {
    "norm1": ("norm1",),
    "attention.qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention.out": ("attention.output.dense",),
    "norm2": ("norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}
"""Within a block: this project's names, and the one or several modules each stands for."""


def student_tensors(
    parameters: Mapping[str, np.ndarray], config: EncoderConfig, statistics: Statistics
) -> dict[str, np.ndarray]:
    """The tensors of a file, float16.

    Args:
        parameters: by path, as of `Network`.
        config: of the student.
        statistics: of the teacher.
    """
    width, patch = config.width, config.patch
    deviation = np.asarray(statistics.deviation, np.float64)
    tensors: dict[str, np.ndarray] = {}
    for path, keys in _keys(config).items():
        value = np.asarray(parameters[path], np.float64)
        if path == "head.kernel":
            value = value * deviation[None]
        elif path == "head.bias":
            value = value * deviation + np.asarray(statistics.mean, np.float64)
        if path == "vit.patches.kernel":
            value = value.reshape(patch, patch, 3, width).transpose(3, 2, 0, 1)
        elif path.endswith(".kernel"):
            value = value.T
        tensors |= dict(zip(keys, np.split(value, len(keys)), strict=True))
    tensors[_CLASS] = np.asarray(parameters["vit.prefix"])[None]
    positions = np.asarray(parameters["vit.positions"])
    tensors[_POSITIONS] = np.concatenate([np.zeros((1, width)), positions])[None]
    return {key: np.ascontiguousarray(value, np.float16) for key, value in tensors.items()}


def write_student(
    path: Path,
    parameters: Mapping[str, np.ndarray],
    config: EncoderConfig,
    statistics: Statistics,
    layers: tuple[int, ...],
) -> str:
    """Write a student's file; the digest of its bytes.

    Args:
        path: of the file.
        parameters: by path, as of `Network`.
        config: of the student.
        statistics: of the teacher.
        layers: of the teacher, whose mean it imitates.
    """
    about = {
        "width": config.width,
        "depth": config.depth,
        "heads": config.heads,
        "hidden": config.hidden,
        "patch": config.patch,
        "grid": config.native_size // config.patch,
        "out": len(statistics.mean),
        "epsilon": config.epsilon,
        "layers_of_teacher": layers,
    }
    tensors = student_tensors(parameters, config, statistics)
    content = save(tensors, metadata={"config": json.dumps(about)})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read_student(path: Path, network: Network, statistics: Statistics) -> dict[str, np.ndarray]:
    """A student's parameters from its file, to go on from; positions are resized where need be.

    Raises:
        BadInputError: the file cannot be read.
        WeightsError: it holds another network, or values that are not finite.
    """
    config = network.config
    tensors = {key: value.astype(np.float32) for key, value in read_tensors(path).items()}
    wanted = [key for keys in _keys(config).values() for key in keys] + [_CLASS, _POSITIONS]
    missing = [key for key in wanted if key not in tensors]
    blocks = {key.split(".")[2] for key in tensors if key.startswith("encoder.layer.")}
    if missing or len(blocks) != config.depth:
        raise WeightsError(
            f"expected a student of {config.depth} blocks with layernorm and head; it has "
            f"{len(blocks)} blocks"
            + (
                f" and lacks {', '.join(missing[:3])}{', …' * (len(missing) > 3)}"
                if missing
                else ""
            ),
            "give a file that this program wrote, with its --student",
            path,
        )
    deviation = np.asarray(statistics.deviation)
    parameters: dict[str, np.ndarray] = {}
    for target, keys in _keys(config).items():
        value = np.concatenate([tensors[key] for key in keys])
        if target == "vit.patches.kernel":
            value = value.transpose(2, 3, 1, 0).reshape(-1, len(value))
        elif target.endswith(".kernel"):
            value = value.T
        if target == "head.kernel":
            value = value / deviation[None]
        elif target == "head.bias":
            value = (value - np.asarray(statistics.mean)) / deviation
        parameters[target] = np.ascontiguousarray(value)
    positions = tensors[_POSITIONS][0]
    parameters["vit.prefix"] = tensors[_CLASS][0] + positions[:1]
    side, new = math.isqrt(len(positions) - 1), config.native_size // config.patch
    grid = positions[1:].reshape(side, side, -1)
    resized = resize_positions(grid, (new, new), config.position_rule)
    parameters["vit.positions"] = resized.reshape(new * new, -1)
    wrong = [
        f"{name} is {parameters[name].shape}, expected {shape}"
        for name, shape in network.shapes.items()
        if parameters[name].shape != shape or not np.isfinite(parameters[name]).all()
    ]
    if wrong:
        raise WeightsError(
            f"does not hold this student, or not in finite numbers: {'; '.join(wrong[:3])}",
            "give --student as the file has it",
            path,
        )
    return parameters


def _keys(config: EncoderConfig) -> dict[str, tuple[str, ...]]:
    """Parameter path → the keys it lies under, side by side on its last axis."""
    modules: dict[str, tuple[str, ...]] = {
        "vit.patches": (_PATCHES,),
        "norm": ("layernorm",),
        "head": ("head",),
    }
    keys: dict[str, tuple[str, ...]] = {}
    for i in range(config.depth):
        ours, theirs = f"vit.blocks.{i}", f"encoder.layer.{i}"
        for module, names in _MODULES.items():
            modules[f"{ours}.{module}"] = tuple(f"{theirs}.{name}" for name in names)
        for number in (1, 2):
            keys[f"{ours}.scale{number}"] = (f"{theirs}.layer_scale{number}.lambda1",)
    for path, names in modules.items():
        kind = "scale" if path.rpartition(".")[2].startswith("norm") else "kernel"
        keys[f"{path}.{kind}"] = tuple(f"{name}.weight" for name in names)
        keys[f"{path}.bias"] = tuple(f"{name}.bias" for name in names)
    return keys
