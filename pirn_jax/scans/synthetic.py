"""Generated scans: RGB + xyz of machined, moulded, baked, woven parts, good and defective.

The data set that is always at hand: no download, no licence, exact masks, and a known type, size
and strength behind every defect. `open_synthetic` opens a category as any other data set, its
scans rendered when they are read; `write_mvtec3d` writes one as files in the MVTec 3D-AD layout.

How a scan comes about: a *pose* lays the part before the camera, a *part* gives the surface its
shape and colour, a *flaw* changes it inside its mask, the *camera* and the *sensor* record it.
Each of the five has its own random stream, seeded by SHA-256 of the generator's version, category,
seed and key, so a scan depends on nothing else: not on its neighbours, their number or their order.
A defective scan and its good twin (`flawless=True`) share everything but the flaw.

`experiments/generator_difficulty.py` measures how hard the categories are. The generator is frozen:
a change of a rendered byte is a new `GENERATOR_VERSION`, and results of two versions do not compare.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from PIL import Image

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.scan import Scan
from pirn_jax.scans.synthetic_defects import FLAWS
from pirn_jax.scans.synthetic_parts import KINDS
from pirn_jax.scans.synthetic_scene import focal_length, measure, photograph, take_view

GENERATOR_VERSION = 1

CATEGORIES = tuple(KINDS)
"""The kinds of part."""

HELD_OUT = ("rope", "dowel")
"""Kinds never used to choose a recipe, a default or a threshold; only to report."""

DEFECTS = tuple(FLAWS)
"""The types of defect; the id of a type in a mask is its place here, counted from 1."""


class Sample(NamedTuple):
    """What is known of a scan before it is rendered.

    Attributes:
        category: kind of part.
        seed: seed of the data set.
        key: "test/crack/003".
        defect: type of the defect, or "good".
        modality: where the defect is to be found: "texture", "geometry", "both"; "" for good.
        strength: 0 invisible to 1 plain; 0 for good.
        share: the defect's share of the part's visible area, as asked for; 0 for good.
    """

    category: str
    seed: int
    key: str
    defect: str
    modality: str
    strength: float
    share: float


def defects_of(category: str) -> tuple[str, ...]:
    """The types of defect a kind of part can have: a print can only be missing where there is one."""
    return tuple(name for name in DEFECTS if KINDS[category].printed or name != "print_missing")


def _stream(sample: Sample, purpose: str) -> np.random.Generator:
    name = f"pirn_jax {GENERATOR_VERSION}|{sample.category}|{sample.seed}|{sample.key}|{purpose}"
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _good(category: str, seed: int, split: str, number: int) -> Sample:
    return Sample(category, seed, f"{split}/good/{number:03d}", "good", "", 0.0, 0.0)


def _defective(category: str, seed: int, defect: str, number: int) -> Sample:
    """The `number`-th sample of a type: strengths and sizes fill their ranges evenly."""
    flaw = FLAWS[defect]
    sample = Sample(
        category, seed, f"test/{defect}/{number:03d}", defect, flaw.modality, 0.0, 0.0
    )
    start = _stream(sample._replace(key=f"test/{defect}"), "spread").random(2)
    # Steps of the plastic number: any run of samples covers the (strength, size) square evenly.
    strong, large = np.mod(start + (number + 1) * np.array([0.7548776662, 0.5698402910]), 1.0)
    weakest, strongest = flaw.strengths
    smallest, largest = flaw.shares
    return sample._replace(
        strength=round(weakest + (strongest - weakest) * float(strong), 4),
        share=round(smallest * (largest / smallest) ** float(large), 6),
    )


def render(sample: Sample, size: int = 256, flawless: bool = False) -> Scan:
    """Render one scan.

    Args:
        sample: which one.
        size: side of the square picture, pixels.
        flawless: leave the defect out and keep all else: the good twin.

    Returns:
        The scan: rgb, xyz in metres with exact zeros where nothing was measured, and the mask with
        the defect's id on the changed pixels.
    """
    kind = KINDS[sample.category]
    view = take_view(_stream(sample, "pose"), kind, size)
    surface = kind.draw(_stream(sample, "part"), view.u, view.v, view.pixel)
    mask = np.zeros((size, size), np.uint8)
    if sample.defect != "good" and not flawless:
        surface, changed = FLAWS[sample.defect].inflict(
            _stream(sample, "flaw"), surface, surface.cover > 0.5, view.u, view.v, view.pixel,
            sample.share, sample.strength,
        )  # fmt: skip
        mask[changed] = DEFECTS.index(sample.defect) + 1
    rgb = photograph(_stream(sample, "camera"), kind, view, surface)
    xyz, valid = measure(_stream(sample, "sensor"), view, surface)
    label = int(mask.any())
    name = sample.defect if label else "good"
    return Scan(rgb, xyz, valid, mask=mask, label=label, defect=name, key=sample.key)


class SyntheticSplit(Sequence[Scan]):
    """A split whose scans are rendered when they are read; keys and labels cost nothing.

    Attributes:
        samples: what is known of each scan without rendering it.
        size: side of the pictures, pixels.
    """

    def __init__(self, samples: Sequence[Sample], size: int):
        self.samples = tuple(samples)
        self.size = size

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Scan: ...
    @overload
    def __getitem__(self, index: slice) -> SyntheticSplit: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return SyntheticSplit(self.samples[index], self.size)
        return render(self.samples[index], self.size)

    def __iter__(self) -> Iterator[Scan]:
        return (render(sample, self.size) for sample in self.samples)

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of each scan."""
        return tuple(sample.key for sample in self.samples)

    @property
    def labels(self) -> tuple[int, ...]:
        """0 good, 1 defective."""
        return tuple(int(sample.defect != "good") for sample in self.samples)

    @property
    def defects(self) -> tuple[str, ...]:
        """The type of defect of each scan, or "good"."""
        return tuple(sample.defect for sample in self.samples)


class Dataset(NamedTuple):
    train: SyntheticSplit
    validation: SyntheticSplit
    test: SyntheticSplit


def open_synthetic(
    category: str,
    seed: int = 0,
    size: int = 256,
    train: int = 5,
    validation: int = 10,
    test: int = 60,
) -> Dataset:
    """Open a generated category.

    Args:
        category: one of `CATEGORIES`.
        seed: another seed is another data set of the same kind of part.
        size: side of the square pictures, pixels, at least 32.
        train: number of good scans to learn from.
        validation: number of good scans to calibrate on.
        test: number of test scans, two fifths of them good, the rest shared among the types.

    Returns:
        Lazily rendered splits in the order of their keys.

    Raises:
        ConfigError: unknown category, or a size or number out of range.
    """
    if category not in KINDS:
        raise ConfigError(
            f"expected a generated category, got {category!r}", f"one of {', '.join(CATEGORIES)}"
        )
    if size < 32 or min(train, validation, test) < 0:
        raise ConfigError(
            f"expected size >= 32 and numbers >= 0, got size {size}, {train}, {validation}, {test}",
            "give a larger size or number",
        )
    types = defects_of(category)
    good = round(0.4 * test)
    tests = [_good(category, seed, "test", number) for number in range(good)]
    tests += [
        _defective(category, seed, types[k % len(types)], k // len(types))
        for k in range(test - good)
    ]
    splits = {"train": train, "validation": validation}
    normal = {
        split: [_good(category, seed, split, number) for number in range(count)]
        for split, count in splits.items()
    }
    return Dataset(
        SyntheticSplit(normal["train"], size),
        SyntheticSplit(normal["validation"], size),
        SyntheticSplit(sorted(tests, key=lambda sample: sample.key), size),
    )
