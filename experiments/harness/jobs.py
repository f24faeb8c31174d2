"""Jobs: what is to be trained on what, and tested on what.

A job's name is the hash of what defines it: the recipe spelled out, the encoder's weights, the
scans (their keys, and their files' sizes or the generator's hash). No path is part of it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.changes import labels_of
from harness.encoders import encoder_of
from harness.provenance import function_hash
from harness.token_store import Transform
from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import decide
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import Dataset, choose_shots, find_layout, open_dataset
from pirn_jax.transport import find_assignment

_GENERATED = {"train": 50, "validation": 0, "test": 60}


@dataclass(frozen=True)
class Job:
    """One detector on one category.

    Attributes:
        config: the detector; its seed is that of the initialisation.
        category: as the dataset spells it.
        dataset: as for `open_dataset`.
        data_root: the folder of its categories.
        shots: how many good scans to learn from; 0: all.
        draw: seed of the choice of shots.
        shift: name of what is done to the test scans; "none".
        transform: does it, scan by scan: a function of a module, or a `functools.partial` of one.
        options: for `open_dataset`, as pairs: (("test", 20), ("size", 128)).
        tags: whatever a table wants to find the job by; no part of what defines it.
    """

    config: Config
    category: str
    dataset: str = "synthetic"
    data_root: str | None = None
    shots: int = 5
    draw: int = 0
    shift: str = "none"
    transform: Transform | None = field(default=None, compare=False)
    options: tuple[tuple[str, Any], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if (self.shift == "none") != (self.transform is None):
            raise ConfigError(
                f"shift {self.shift!r} with transform {self.transform}",
                "give a transform and a name other than none, or neither",
            )

    @property
    def resolved(self) -> Config:
        """The detector with what its shots decide, as a run decides it, and seed 0."""
        config = replace(self.config, seed=0)
        background = TrainConfig(dataset=self.dataset, detector=config).model_config.background
        same = (self.dataset, self.data_root, self.category, self.options)
        return _decided(*same, replace(config, background=background), self.shots, self.draw)

    @property
    def generated(self) -> bool:
        """Whether its scans are rendered."""
        return find_layout(self.dataset).rendered


def grid(
    configs: Iterable[Config],
    categories: Iterable[str],
    *,
    shots: Iterable[int] = (5,),
    draws: Iterable[int] = (0,),
    seeds: Iterable[int] = (0,),
    shifts: Mapping[str, Transform | None] | None = None,
    **same: Any,
) -> list[Job]:
    """Every combination, as jobs.

    Args:
        configs: detectors.
        categories: of the dataset.
        shots: numbers of shots.
        draws: seeds of the shots.
        seeds: of the initialisation.
        shifts: transformations of the test scans by name, "none": None among them where unchanged
            scans are wanted too; without it they alone.
        **same: further fields of every job.
    """
    found = []
    whole = itertools.product(configs, categories, shots, draws, seeds, (shifts or {"none": None}))
    for config, category, k, draw, seed, shift in whole:
        change = (shifts or {}).get(shift)
        seeded = replace(config, seed=seed)
        found.append(
            Job(seeded, category, shots=k, draw=draw, shift=shift, transform=change, **same)
        )
    return found


def describe(job: Job) -> str:
    """One line."""
    c = job.config
    changed = " ".join((c.recipe_name, *labels_of(c.changed)))
    where = f"{job.dataset}/{job.category} {job.shots or 'all'} shots"
    streams = "+".join(c.modalities)
    seeds = f"draw {job.draw} seed {c.seed}"
    shifted = "" if job.shift == "none" else f" under {job.shift}"
    return (
        f"{where} {c.method} [{changed}] {streams} {c.encoder} {c.image_size} px, {seeds}{shifted}"
    )


def name_of(job: Job) -> str:
    """The hash of what defines a job."""
    return hashlib.sha256(json.dumps(identity(job), sort_keys=True).encode()).hexdigest()[:24]


def identity(job: Job) -> dict[str, Any]:
    """What defines a job, as JSON; no path is part of it."""
    data, _, _ = open_job(job)
    found: dict[str, Any] = {
        "detector": defined(job.resolved),
        "seed": job.config.seed,
        "dataset": job.dataset,
        "category": data.category or job.category,
        "scans": _scans(job),
        "shots": job.shots,
        "draw": job.draw,
        "shift": job.shift,
    }
    if job.transform is not None:
        found["transform"] = function_hash(job.transform)
    return found


def defined(config: Config) -> dict[str, Any]:
    """A detector, its settings spelled out and the encoder's weights by their hash."""
    encoder = encoder_of(config)
    document = asdict(config)
    for name in ("weights", "require_weights", "false_alarm_rate", "seed"):
        del document[name]
    settings = asdict(config.settings)  # whatever the recipe they began with is called
    for name in ("encoder", "geometry"):  # what auto means; decided here
        del settings[name]
    document |= {
        "encoder": encoder.config.name,
        "weights": encoder.source.sha256,
        "layers": list(encoder.layers),
        "normalised": encoder.normalised,
        "geometry": config.geometry_method,
        "recipe": settings,
    }
    assignment = settings.get("decoder", {}).get("assignment", "")
    if ":" in assignment:  # somebody's own: another text is another detector
        document["assignment"] = function_hash(find_assignment(assignment))
    return document


def open_job(job: Job) -> tuple[Dataset, tuple[str, ...], str]:
    """The category, the streams its scans have, and what they are beyond their files."""
    return _opened(job.dataset, job.data_root, job.category, job.options, job.config.modalities)


@functools.lru_cache(maxsize=256)
def _decided(
    dataset: str,
    root: str | None,
    category: str,
    options: tuple[tuple[str, Any], ...],
    config: Config,
    shots: int,
    draw: int,
) -> Config:
    """What these shots decide."""
    data, _, _ = _opened(dataset, root, category, options, config.modalities)
    count = min(shots or len(data.train), len(data.train))  # too many are refused where they run
    keys = choose_shots(data.train.keys, count, draw, dataset, category)
    return decide(data.train.select(keys), config)


@functools.lru_cache(maxsize=256)
def _opened(
    dataset: str,
    root: str | None,
    category: str,
    options: tuple[tuple[str, Any], ...],
    modalities: tuple[str, ...],
) -> tuple[Dataset, tuple[str, ...], str]:
    """A category, the streams its scans have, and what they are beyond their files.

    Where both streams are there both are read, also for a detector of one: then it sees the same
    photographs, background and all, as the detector of both.
    """
    given, layout = dict(options), find_layout(dataset)
    if layout.rendered:
        from pirn_jax.scans.synthetic.generator import generator_hash

        data = open_dataset(dataset, None, category, **(_GENERATED | given))
        # Not their number: a scan is the same in a larger set.
        same = {name: given[name] for name in ("seed", "size") if name in given}
        return data, layout.modalities, json.dumps([generator_hash(), same])
    root = root or os.environ.get("PIRN_DATA")
    origin = json.dumps(given, sort_keys=True)
    if "modalities" not in layout.options:
        return open_dataset(dataset, root, category, **given), modalities, origin
    files = {"rgb": "rgb", "normals": "xyz"}
    for streams in dict.fromkeys((layout.modalities, modalities)):
        try:
            wanted = tuple(files[name] for name in streams)
            data = open_dataset(dataset, root, category, **given, modalities=wanted)
        except BadInputError:
            if streams == modalities:
                raise
        else:
            break
    return data, streams, origin


def _scans(job: Job) -> str:
    """Hash of which scans there are: their keys, and their files' sizes where they have files."""
    data, streams, origin = open_job(job)
    lines = [origin, str(streams)]
    for split in (data.train, data.test):
        for entry in split.entries:
            sizes = {role: Path(str(file)).stat().st_size for role, file in entry.files.items()}
            lines.append(json.dumps([entry.key, sizes], sort_keys=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
