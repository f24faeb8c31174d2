"""JSON and safetensors on disk: written whole or not at all, and read as untrusted.

Nothing is ever unpickled; what a file claims is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pirn_jax.config import Config
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.dataset import did_you_mean
from pirn_jax.scans.writing import write_whole

LARGEST_JSON = 64 * 2**20


def write_json(path: Path, document: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BadInputError: it is missing, too large, or not one.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"cannot be read as JSON: {error}", "check the path", path=path
        ) from error
    if not isinstance(document, dict):
        raise BadInputError(
            f"expected a JSON object, got {type(document).__name__}", "check the path", path=path
        )
    return document


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file.

    Raises:
        BadInputError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInputError(f"cannot be read: {error}", "train again", path=path) from error


def flatten(prefix: str, tree: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The arrays of a tree of dicts by their path, "prefix.layers.0.kernel"."""
    leaves = jax.tree.leaves_with_path(dict(tree))
    return {
        # In C order: safetensors writes the memory as it lies.
        ".".join([prefix, *(str(entry.key) for entry in path)]): np.array(leaf, order="C")
        for path, leaf in leaves
    }


def fill(prefix: str, shapes: Any, tensors: Mapping[str, np.ndarray], folder: Any) -> Any:
    """The tree of those shapes, in which -1 is any size, with the arrays that `flatten` named.

    Raises:
        BadInputError: one is missing, of another shape, or not finite.
    """

    def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        return len(found) == len(wanted) and all(
            size == other or (other == -1 and size > 0)
            for size, other in zip(found, wanted, strict=True)
        )

    def find(path: Any, leaf: Any) -> np.ndarray:
        name = ".".join([prefix, *(str(entry.key) for entry in path)])
        found = tensors.get(name)
        if found is None or not fits(found.shape, leaf.shape) or not np.isfinite(found).all():
            raise BadInputError(
                f"{name}: expected finite numbers of shape {leaf.shape}, got "
                f"{'nothing' if found is None else found.shape}",
                "train again",
                path=folder,
            )
        return found

    return jax.tree.map_with_path(find, shapes)


def read_config(kind: type[Any], document: Any, path: str) -> Any:
    """A config of that kind from JSON as `dataclasses.asdict` wrote it.

    Args:
        kind: Config or TrainConfig.
        document: what `json` made of the file.
        path: the file, for messages.

    Returns:
        The config; fields left out have their defaults.

    Raises:
        ConfigError: an unknown field, a value of another type or out of range.
    """
    if not isinstance(document, Mapping):
        raise ConfigError(f"expected an object, got {type(document).__name__}", path=path)
    known = {entry.name: entry for entry in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in known:
            raise ConfigError(
                f"no field {name!r}{did_you_mean(name, known)}",
                f"its fields are {', '.join(known)}",
                path,
            )
        annotation = str(known[name].type).removeprefix("Annotated[")
        annotation = annotation.removesuffix(", tyro.conf.Suppress]")
        if annotation == "Config":
            value = read_config(Config, value, path)
        elif annotation.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        elif annotation == "float" and type(value) is int:
            value = float(value)
        if not _fits(value, annotation):
            raise ConfigError(f"{name}: expected {annotation}, got {json.dumps(value)}", path=path)
        values[name] = value
    return kind(**values)


def _fits(value: Any, annotation: str) -> bool:
    kinds: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
    for option in annotation.split(" | "):
        if option == "None" and value is None:
            return True
        if option in kinds and type(value) is kinds[option]:
            return True
        if option.startswith("tuple") and isinstance(value, tuple):
            inner = kinds[option.removeprefix("tuple[").partition(",")[0]]
            return all(type(item) is inner for item in value)
        if is_dataclass(value) and type(value).__name__ == option:
            return True
    return False
