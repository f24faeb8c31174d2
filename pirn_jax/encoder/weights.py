"""Weight files to encoder parameters, by a total mapping: nothing left over, nothing made up.

Every key of the file is used once or stands on an explicit ignore list, every parameter is assigned
once, every shape is checked from the header before anything is read, every value must be finite,
and one error lists all that is wrong. Files are safetensors, in float32, float16 or bfloat16, with
the names of transformers (DINOv2, ViT), of timm, or of Meta's own checkpoints. PyTorch's pickles
are never opened here; `python -m pirn_jax.encoder.convert` turns one into safetensors.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pirn_jax.encoder.catalog import CATALOG, EncoderConfig, PositionRule
from pirn_jax.encoder.naming import Names, Rule, Shape, mapping, recognise
from pirn_jax.encoder.positions import resize_positions
from pirn_jax.errors import WeightsError
from pirn_jax.storage import LARGEST_HEADER, LARGEST_JSON, open_regular, read_regular


def read_weights(
    path: Path,
    config: EncoderConfig,
    grid: tuple[int, int],
    rule: PositionRule,
    least: int | None = None,
) -> dict[str, np.ndarray]:
    """Read a safetensors file into parameters by path, float32, positions at the grid's size.

    Args:
        path: the file.
        config: the network it must hold.
        grid: rows and columns of patches wanted.
        rule: how to resize the position embedding.
        least: blocks the file must have; it may end after any whole block from there on. None:
            all of the network.

    Raises:
        WeightsError: the file is missing, not safetensors, damaged, another network's, or holds
            values that are not finite. Everything wrong is listed at once.
    """
    parameters, broken = {}, []
    with read_header(path) as (file, header, integers):
        names, prefix = recognise(set(header), path)
        blocks = _blocks_in(set(header), names, prefix, config, least or config.depth)
        rules = mapping(config, names, prefix, header, blocks)
        _check(path, config, names, prefix, rules, header, integers)
        for target, entry in rules.items():
            parts = [np.asarray(file.get_tensor(key), np.float32) for key in entry.sources]
            pairs = zip(entry.sources, parts, strict=True)
            broken += [key for key, part in pairs if not np.isfinite(part).all()]
            parameters[target] = np.ascontiguousarray(entry.build(*parts))
    if broken:
        raise WeightsError(
            f"holds NaN or infinite values in {listed(broken)}", "download it again", path
        )
    positions = parameters["positions"]
    side = math.isqrt(len(positions))
    if side**2 < len(positions):  # the class token's position leads
        parameters["prefix"][0] += positions[0]
        positions = positions[1:]
    resized = resize_positions(positions.reshape(side, side, config.width), grid, rule)
    parameters["positions"] = resized.reshape(-1, config.width)
    return parameters


_FLOATS = {"F32", "F16", "BF16", "F64"}


@contextmanager
def read_header(path: Path) -> Iterator[tuple[Any, dict[str, Shape], set[str]]]:
    """The open file, its keys with shapes, and the keys that are not of a floating type."""
    from safetensors import SafetensorError, safe_open

    _refuse_other_formats(path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            header = {key: tuple(part.get_shape()) for key, part in slices.items()}
            integers = {k for k, part in slices.items() if part.get_dtype() not in _FLOATS}
            yield file, header, integers
    except SafetensorError as error:
        raise WeightsError(
            f"is not a whole safetensors file ({error})", "download or convert it again", path
        ) from error


def _refuse_other_formats(path: Path) -> None:
    """Name the common things that are not safetensors, without opening them as what they are."""
    if not path.is_file():
        raise WeightsError("no such file", "give the path of a .safetensors file", path)
    with open_regular(path) as file:
        start = file.read(64)
    if int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return
    converter = f"convert it: python -m pirn_jax.encoder.convert {path.name} OUT.safetensors"
    for magic, problem, remedy in (
        (b"PK\x03\x04", "is a PyTorch checkpoint, a zip of pickles, which can run code", converter),
        (b"\x80", "is a Python pickle, which can run code", converter),
        (b"version https://git-lfs", "is a Git LFS pointer, not the file", "run: git lfs pull"),
        (b"<", "is a web page, not weights", "download the file itself"),
    ):
        if start.startswith(magic):
            raise WeightsError(f"{problem}; it was not opened", remedy, path)
    raise WeightsError(
        "is not a whole safetensors file (no header)", "download or convert it again", path
    )


def read_configuration(path: Path, config: EncoderConfig) -> EncoderConfig:
    """What a transformers config.json beside the weights says that no shape shows.

    It is read as plain JSON: transformers' own loader would offer to run code it names.

    Args:
        path: the weights; only beside a `model.safetensors` does a config.json belong to them.
        config: the network asked for.

    Returns:
        The configuration with the file's LayerNorm epsilon (transformers gives its ViT, and so
        its DINO, 1e-12; Meta and timm 1e-6).

    Raises:
        WeightsError: it is no JSON object, or describes another network.
    """
    beside = path.with_name("config.json")
    if path.name != "model.safetensors" or not beside.is_file():
        return config
    remedy = "mend config.json, or take it away"
    try:
        stated = json.loads(read_regular(beside, LARGEST_JSON))
    except (ValueError, OSError, RecursionError) as error:
        raise WeightsError(f"is no readable JSON ({error})", remedy, beside) from error
    if not isinstance(stated, dict):
        raise WeightsError("expected a JSON object", remedy, beside)
    if stated.get("model_type") not in ("vit", "dinov2", "dinov2_with_registers"):
        return config  # timm's kind of file, or one that is not about these weights
    expected = {
        "num_attention_heads": config.heads,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "use_swiglu_ffn": config.mlp == "swiglu",
    }
    wrong = [
        f"{key} is {stated[key]}, expected {value}"
        for key, value in expected.items()
        if stated.get(key, value) != value
    ]
    epsilon = stated.get("layer_norm_eps", config.epsilon)
    if not isinstance(epsilon, float) or not 0 < epsilon < 0.1:
        wrong.append(f"layer_norm_eps is {epsilon}, expected a small number")
    if wrong:
        raise WeightsError(
            f"does not describe {config.name}: {'; '.join(wrong)}",
            "give the folder that belongs to this encoder",
            beside,
        )
    return dataclasses.replace(config, epsilon=epsilon)


def _blocks_in(keys: set[str], names: Names, prefix: str, config: EncoderConfig, least: int) -> int:
    """How many blocks to expect: the file's highest number + 1, from `least` to the depth."""
    lead = re.escape(prefix) + re.escape(names.norm1.split("{i}")[0])
    numbers = [int(found[1]) for key in keys if (found := re.match(rf"{lead}(\d{{1,4}})\.", key))]
    return max(least, min(max(numbers, default=0) + 1, config.depth))


def _check(
    path: Path,
    config: EncoderConfig,
    names: Names,
    prefix: str,
    rules: Mapping[str, Rule],
    header: Mapping[str, Shape],
    integers: set[str],
) -> None:
    """Raise one error with every missing, unexpected and mismatched key."""
    wanted = {
        key: shape
        for rule in rules.values()
        for key, shape in zip(rule.sources, rule.shapes, strict=True)
    }
    missing = sorted(wanted.keys() - header.keys())
    ignored = tuple(names.ignored)
    unexpected = sorted(
        key
        for key in header.keys() - wanted.keys()
        if not key.removeprefix(prefix).startswith(ignored)
    )
    mismatched = [
        f"{key} is {header[key]}, expected {shape}"
        for key, shape in sorted(wanted.items())
        if key in header and header[key] != shape
    ]
    mismatched += [f"{key} is not of a floating type" for key in sorted(integers & wanted.keys())]
    problems = [
        f"{what}: {listed(items)}"
        for what, items in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mismatched", mismatched),
        )
        if items
    ]
    if not problems:
        return
    patches = header.get(f"{prefix}{names.patches}.weight", ())
    alike = [c.name for c in CATALOG.values() if patches == (c.width, 3, c.patch, c.patch)]
    like = f"it looks like {' or '.join(alike)}" if alike and config.name not in alike else ""
    raise WeightsError(
        f"does not hold {config.name} with the names of {names.project}\n  "
        + "\n  ".join(problems),
        "; ".join(filter(None, [like, "give the file that belongs to this encoder"])),
        path,
    )


def listed(items: list[str]) -> str:
    """All of them, but a whole block's worth in one word."""
    groups: dict[str, list[str]] = {}
    for item in items:
        found = re.match(r"(.*?(?:layer|blocks)\.\d+)\.", item)
        groups.setdefault(found[1] if found else item, []).append(item)
    return ", ".join(
        f"{name}.* ({len(group)} keys)" if len(group) >= 10 else ", ".join(group)
        for name, group in groups.items()
    )


def identify(path: Path) -> str:
    """The name of the network a safetensors file holds, from its keys and shapes.

    Networks of one shape cannot be told apart: a supervised ViT-B/16 is taken for "dino-vitb16".

    Raises:
        WeightsError: the file cannot be read, or holds no network of the catalog.
    """
    refusals = []
    for config in CATALOG.values():
        try:
            with read_header(path) as (_, header, integers):
                names, prefix = recognise(set(header), path)
                blocks = _blocks_in(set(header), names, prefix, config, 1)
                rules = mapping(config, names, prefix, header, blocks)
                _check(path, config, names, prefix, rules, header, integers)
            return config.name
        except WeightsError as error:
            refusals.append(error)
    raise min(refusals, key=lambda error: len(error.problem))


def seeded_weights(shapes: Mapping[str, Shape], seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters that are the same everywhere and for ever, for benchmarks and tests.

    Args:
        shapes: parameter path → shape.
        seed: of the legacy Mersenne Twister, whose stream numpy promises never to change.

    Returns:
        Parameters by path, float32: kernels N(0, 1/inputs), embeddings N(0, 0.02²), LayerNorm the
        identity, biases zero, layer scales 1. Features of such a network still localise: a
        nearest-neighbour memory of 10 shots reaches P-AUROC 0.87 on photographs of cookies, where
        layer scales of 0.1, as trained networks have, leave 0.86 and a worse image score.
    """
    stream = np.random.RandomState(seed)
    parameters = {}
    for path in sorted(shapes):
        shape = shapes[path]
        if path.endswith(".kernel"):
            values = stream.standard_normal(shape) / math.sqrt(shape[0])
        elif path in ("prefix", "positions"):
            values = 0.02 * stream.standard_normal(shape)
        else:
            values = np.zeros(shape) if path.endswith(".bias") else np.ones(shape)
        parameters[path] = values.astype(np.float32)
    return parameters
