"""What a run consists of: a model per category and seed, with the data of each.

Which options a dataset is opened with follows from the run's config.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pirn_jax.config import TrainConfig
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.report.schema import Provenance
from pirn_jax.scans import (
    Dataset,
    check_dataset,
    choose_shots,
    find_layout,
    list_categories,
    open_dataset,
)

_log = logging.getLogger("pirn_jax")
GENERATED_CATEGORIES = ("flange", "biscuit")
GENERATED_POOL = 50
"""Good generated scans the shots are chosen from, so that every seed chooses others."""
GENERATED_VALIDATION = 10
_STREAMS = {"rgb": "rgb", "normals": "xyz"}  # a modality, and the files it is made from


class RunItem(NamedTuple):
    """One model of a run: a category and a seed."""

    category: str
    seed: int
    data: Dataset

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.category}/seed{self.seed}"


def list_items(config: TrainConfig) -> list[RunItem]:
    """Every model of a run; no picture is read.

    Raises:
        PirnError: data missing, files that do not pair, or nothing to learn from.
    """
    root = config.data_root or os.environ.get("PIRN_DATA")
    rendered = find_layout(config.dataset).rendered
    if rendered and not config.category:
        names: tuple[str, ...] = GENERATED_CATEGORIES
    elif not rendered and not root:
        open_category(config, "")  # says what is missing
        names = ()
    elif not config.category or config.category == ("all",):
        names = list_categories(config.dataset, None if rendered else root)
        if names == ("",) and root:
            names = (Path(root).resolve().name,)
    else:
        names = config.category
    if not names:
        raise BadInputError("no category was found", "see pirn_jax.scans for the layouts", root)
    items = []
    for name in names:
        data = open_category(config, name)
        items += [RunItem(data.category or name, seed, data) for seed in config.seeds]
        if not len(data.train):
            raise BadInputError(f"{name} has no scans to learn from", "see pirn_jax.scans", root)
    return items


def open_category(config: TrainConfig, category: str, *, elsewhere: bool = False) -> Dataset:
    """One category of the run's dataset, with the options the run's config implies.

    Args:
        config: of the run.
        category: its name.
        elsewhere: the root is another than in training: where it holds a single category, that is
            meant, whatever its name.
    """
    layout = find_layout(config.dataset)
    if layout.rendered:
        return open_dataset(
            config.dataset,
            None,
            category,
            train=max(GENERATED_POOL, config.shots),
            validation=GENERATED_VALIDATION,
            test=config.test_scans,
        )
    root = config.data_root or os.environ.get("PIRN_DATA")
    if not root:
        raise ConfigError(
            f"no folder with {config.dataset} data",
            "give --data-root, or set PIRN_DATA, or leave out --dataset for generated scans",
        )
    options = config.given()
    if "modalities" in layout.options:
        options["modalities"] = tuple(_STREAMS[name] for name in config.detector.modalities)
    # A root that is itself the category may have any name.
    known = list_categories(config.dataset, root)
    inside = "" if "" in known else known[0] if elsewhere and len(known) == 1 else category
    return open_dataset(config.dataset, root, inside, **options)


def check_items(items: Sequence[RunItem], config: TrainConfig) -> list[RunItem]:
    """Look at the files of every category, and say what is odd, before any work.

    Returns:
        The items, with all that was found in the notes of their data.

    Raises:
        BadInputError: files that cannot be read, or masks that are upside down.
    """
    checked: dict[str, Dataset] = {}
    for item in items:
        if item.category in checked:
            continue
        data, more = item.data, ()
        if not find_layout(config.dataset).rendered:
            more = check_dataset(data, config.limits)
        checked[item.category] = replace(data, notes=(*data.notes, *more))
        for note in checked[item.category].notes:
            _log.warning("%s: %s", item.category, note.words)
    return [item._replace(data=checked[item.category]) for item in items]


def shots_of(config: TrainConfig, item: RunItem) -> tuple[str, ...]:
    """Keys of the scans a model learns from."""
    keys, count = item.data.train.keys, config.shots or len(item.data.train)
    name = name_for_shots(config, item)
    return choose_shots(keys, count, item.seed, config.dataset, name, config.shots_order)


def name_for_shots(config: TrainConfig, item: RunItem) -> str:
    """The category by which shots are chosen: "" where its name is the user's and may change."""
    return "" if config.dataset == "folder" else item.data.category


def provenance_of(config: TrainConfig, random_weights: bool) -> Provenance:
    """How far what comes of a run may be believed."""
    generated = find_layout(config.dataset).rendered
    return Provenance("generated" if generated else "real", random_weights)


def generator_of(config: TrainConfig) -> dict[str, object]:
    """Version and hash of the generator, for generated data."""
    if not find_layout(config.dataset).rendered:
        return {}
    from pirn_jax.scans.synthetic import GENERATOR_VERSION, generator_hash

    return {"generator": {"version": GENERATOR_VERSION, "hash": generator_hash()}}
