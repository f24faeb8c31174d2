"""Which scans a few-shot model learns from, and the record of it.

The keys are ordered by SHA-256 of seed, dataset, category and key, and the first k are taken: the
choice does not depend on other categories, the machine, the file order or a random generator's
version, and the shots are nested (5 ⊂ 10 ⊂ 50), so that more shots only ever add.
`split.json` keeps the chosen keys with the SHA-256 of every file behind them.
Source: docs/decisions.md, 17; the peers draw from one global random state, so that a category's
shots there depend on which categories ran before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pirn_jax.errors import ConfigError
from pirn_jax.scans.datasets.dataset import Split
from pirn_jax.scans.formats.files import File, Limits, read_bytes
from pirn_jax.storage import write_json

_FORMAT = "pirn_jax split 1"


def choose_shots(
    keys: Iterable[str],
    k: int,
    seed: int,
    dataset: str,
    category: str,
    order: Literal["hash", "first"] = "hash",
) -> tuple[str, ...]:
    """Choose k keys.

    Args:
        keys: the training scans' keys, in any order.
        k: how many; at least 1 and at most all.
        seed: another choice for another number; without effect on order "first".
        dataset: the dataset's name.
        category: the category's name.
        order: "hash" as above, or "first" for the first k of the sorted keys, as some peers do.

    Returns:
        The chosen keys in the order of choice; the first j of them are the j-shot choice.

    Raises:
        ConfigError: k out of range, an unknown order, or a key that appears twice.
    """
    ordered = sorted(keys)
    if len(set(ordered)) != len(ordered):
        raise ConfigError("a key appears twice among the training scans")
    if not 1 <= k <= len(ordered):
        raise ConfigError(
            f"shots must be between 1 and the {len(ordered)} training scans of {category}, got {k}"
        )
    if order == "hash":
        # JSON, so that no two different quadruples share one text.
        ordered.sort(
            key=lambda key: hashlib.sha256(
                json.dumps([seed, dataset, category, key]).encode()
            ).digest()
        )
    elif order != "first":
        raise ConfigError(f"order must be hash or first, got {order!r}")
    return tuple(ordered[:k])


def write_split(
    path: str | os.PathLike[str],
    shots: Split,
    *,
    seed: int,
    dataset: str,
    category: str,
    order: str = "hash",
    limits: Limits | None = None,
) -> None:
    """Write `split.json`: the chosen keys and the SHA-256 of each of their files.

    Args:
        path: where to write; the file appears whole or not at all.
        shots: the chosen scans, in the order of choice.
        seed: the seed of the choice.
        dataset: the dataset's name.
        category: the category's name.
        order: the order of the choice.
        limits: caps on the files read for their hash.
    """
    document = {
        "format": _FORMAT,
        "dataset": dataset,
        "category": category,
        "seed": seed,
        "order": order,
        "shots": [
            {"key": entry.key, "sha256": file_hashes(entry.files, limits)}
            for entry in shots.entries
        ],
    }
    write_json(Path(path), document)


def file_hashes(files: Mapping[str, File], limits: Limits | None = None) -> dict[str, str]:
    """SHA-256 of each file, by role."""
    caps = limits or Limits()
    return {
        role: hashlib.sha256(read_bytes(file, caps)).hexdigest() for role, file in files.items()
    }
