"""Generated scans: RGB + xyz of machined, moulded, baked, woven parts, good and defective.

The dataset that is always at hand: no download, no licence, exact masks, and a known type, size
and strength behind every defect. `open_synthetic` opens a category as any other dataset, its scans
rendered when they are read; `write_mvtec3d` writes one to disk in the MVTec 3D-AD layout.

How a scan comes about: a *pose* lays the part before the camera, a *part* gives the surface its
shape and colour, a *flaw* changes it inside its mask, the *camera* and the *sensor* record it.
Each of the five has its own random stream, seeded by SHA-256 of the generator's version, category,
seed and key, so a scan depends on nothing else: not on its neighbours, their number or their order.
A defective scan and its good twin (`flawless=True`) share everything but the flaw.

`experiments/studies/generator_difficulty.py` measures how hard the categories are. The generator is
frozen: a change of a rendered byte is a new `GENERATOR_VERSION`, and results of two versions do not
compare. `generator_hash()` belongs into every result made with it.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from pirn_jax.errors import BadInputError, ConfigError, did_you_mean
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.scan import Scan
from pirn_jax.scans.synthetic.defects import FLAWS, damage
from pirn_jax.scans.synthetic.parts import KINDS
from pirn_jax.scans.synthetic.scene import focal_length, measure, photograph, take_view
from pirn_jax.storage import whole_folder, write_json

GENERATOR_VERSION = 1

CATEGORIES = tuple(KINDS)
"""The kinds of part."""

HELD_OUT = ("rope", "dowel")
"""Kinds never used to choose a recipe, a default or a threshold; only to report."""

DEFECTS = tuple(FLAWS)
"""The types of defect."""

MASK_VALUES = {255 - place: name for place, name in enumerate(DEFECTS)}
"""What the values of `Scan.mask` mean; MVTec 3D-AD counts down from 255 too."""


class Record(NamedTuple):
    """What is known of a scan without rendering it.

    Attributes:
        key: "test/crack/003".
        defect: type of the defect, or "good".
        modality: where the defect is to be found: "texture", "geometry", "both"; "" for good.
        strength: 0 invisible to 1 plain; 0 for good.
        share: the defect's share of the part's visible area, as asked for; 0 for good.
    """

    key: str
    defect: str
    modality: str = ""
    strength: float = 0.0
    share: float = 0.0


def defects_of(category: str) -> tuple[str, ...]:
    """The types of defect a kind of part can have: a print is missing only where one belongs."""
    return tuple(name for name in DEFECTS if KINDS[category].printed or name != "print_missing")


def describe(category: str, key: str, seed: int = 0) -> Record:
    """The record of one scan.

    Args:
        category: one of `CATEGORIES`.
        key: as in `Split.keys`, "test/crack/003".
        seed: the dataset's.

    Raises:
        ConfigError: no such category, or not a key of it.
    """
    _check_category(category)
    split, defect, number = key.split("/") if key.count("/") == 2 else ("", "", "")
    types = ("good", *(defects_of(category) if split == "test" else ()))
    if split not in ("train", "validation", "test") or defect not in types or not number.isdigit():
        raise ConfigError(
            f"{key!r} is not a scan of the generated category {category!r}",
            f"for instance 'train/good/000' or 'test/crack/000'; its defects are "
            f"{', '.join(defects_of(category))}",
        )
    if defect == "good":
        return Record(key, defect)
    flaw = FLAWS[defect]
    start = random_stream(category, seed, f"test/{defect}", "spread").random(2)
    # Steps of the plastic number: any run of samples covers the (strength, share) square evenly.
    strong, large = np.mod(start + (int(number) + 1) * np.array([0.7548776662, 0.5698402910]), 1.0)
    weakest, strongest = flaw.strengths
    smallest, largest = flaw.shares
    return Record(
        key,
        defect,
        flaw.modality,
        strength=round(weakest + (strongest - weakest) * float(strong), 4),
        share=round(smallest * (largest / smallest) ** float(large), 6),
    )


def render(category: str, key: str, seed: int = 0, size: int = 256, flawless: bool = False) -> Scan:
    """Render one scan.

    Args:
        category: one of `CATEGORIES`.
        key: as in `Split.keys`, "test/crack/003".
        seed: the dataset's.
        size: side of the square picture, pixels.
        flawless: leave the defect out and keep all else: the good twin.

    Returns:
        The scan: rgb, xyz in metres with exact zeros where nothing was measured, and a mask with
        the value of the defect in `MASK_VALUES` on the pixels it changed.
    """
    record, kind = describe(category, key, seed), KINDS[category]
    view = take_view(random_stream(category, seed, key, "pose"), kind, size)
    surface = kind.draw(random_stream(category, seed, key, "part"), view.u, view.v, view.pixel)
    mask = np.zeros((size, size), np.uint8)
    label = int(record.defect != "good" and not flawless)
    if label:
        rng = random_stream(category, seed, key, "flaw")
        surface, changed = damage(rng, record.defect, surface, view, record.share, record.strength)
        mask[changed] = 255 - DEFECTS.index(record.defect)
    rgb = photograph(random_stream(category, seed, key, "camera"), kind, view, surface)
    xyz, valid = measure(random_stream(category, seed, key, "sensor"), view, surface)
    defect = record.defect if label else "good"
    return Scan(rgb, xyz, valid, mask=mask, label=label, defect=defect, key=key)


def open_synthetic(
    category: str,
    *,
    seed: int = 0,
    size: int = 256,
    train: int = 5,
    validation: int = 10,
    test: int = 60,
) -> Dataset:
    """Open a generated category; nothing is rendered yet.

    Args:
        category: one of `CATEGORIES`.
        seed: another seed is another dataset of the same kind of part.
        size: side of the square pictures, pixels, at least 64.
        train: number of good scans to learn from.
        validation: number of good scans to calibrate on.
        test: number of test scans, two fifths of them good, the rest shared among the types.

    Returns:
        Splits in the order of their keys, each scan rendered when it is read.

    Raises:
        ConfigError: unknown category, or a size or number out of range.
    """
    _check_category(category)
    if size < 64 or min(train, validation, test) < 0:
        raise ConfigError(
            "expected size >= 64 and train, validation, test >= 0, "
            f"got size={size}, train={train}, validation={validation}, test={test}",
            "give a larger size or number",
        )
    types, good = defects_of(category), round(0.4 * test)
    found = [("test", types[k % len(types)], k // len(types)) for k in range(test - good)]
    for split, count in (("train", train), ("validation", validation), ("test", good)):
        found += [(split, "good", number) for number in range(count)]
    entries = [
        Entry(f"{split}/{defect}/{number:03d}", {}, int(defect != "good"), defect)
        for split, defect, number in found
    ]
    reader = partial(_read, category=category, seed=seed, size=size)
    splits = {
        split: Split(
            sorted(
                (entry for entry in entries if entry.key.startswith(f"{split}/")),
                key=lambda entry: entry.key,
            ),
            reader,
        )
        for split in ("train", "validation", "test")
    }
    return Dataset(
        splits["train"],
        splits["validation"],
        splits["test"],
        name="synthetic",
        category=category,
    )


def write_mvtec3d(
    root: str | os.PathLike[str], category: str, *, seed: int = 0, size: int = 256, **numbers: int
) -> Path:
    """Write a generated category to disk in the MVTec 3D-AD layout.

    Beside the released files lies `generated.json`, which readers of the layout pass over: the
    generator's version and hash, and each scan's type, modality, strength, share and pixels.

    Args:
        root: folder of the categories; made if it is missing.
        category: one of `CATEGORIES`.
        seed: as in `open_synthetic`.
        size: as in `open_synthetic`.
        **numbers: `train`, `validation`, `test` as in `open_synthetic`.

    Returns:
        The category's folder, which appears only when it is whole.

    Raises:
        BadInputError: the category's folder is there already.
        ConfigError: as `open_synthetic`.
    """
    data = open_synthetic(category, seed=seed, size=size, **numbers)
    finished = Path(root) / category
    if finished.exists():
        raise BadInputError(
            "the folder is there already", "remove it or choose another root", path=finished
        )
    with whole_folder(finished) as folder:
        _write_scans(folder, data, category, seed, size)
    return finished


def _write_scans(folder: Path, data: Dataset, category: str, seed: int, size: int) -> None:
    """The scans of a category and the documents beside them."""
    records = []
    for split in (data.train, data.validation, data.test):
        for scan in split:
            part, defect, stem = scan.key.split("/")
            assert scan.rgb is not None
            assert scan.mask is not None
            pictures = {"rgb": scan.rgb} | ({"gt": scan.mask} if part == "test" else {})
            for role, picture in pictures.items():
                file = folder / part / defect / role / f"{stem}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(file)
            file = folder / part / defect / "xyz" / f"{stem}.tiff"
            file.parent.mkdir(exist_ok=True)
            tifffile.imwrite(file, scan.xyz, photometric="rgb", metadata=None, software=False)
            record = describe(category, scan.key, seed)._asdict()
            records.append(record | {"pixels": int(np.count_nonzero(scan.mask))})
    focus = 0.01  # metres; any length does, only its ratio to the pixel's size counts
    pitch = focus / focal_length(KINDS[category], size)
    camera = {
        "camera_type": "area_scan_division", "focus": focus, "kappa": 0.0,
        "sx": pitch, "sy": pitch, "cx": (size - 1) / 2, "cy": (size - 1) / 2,
        "image_width": size, "image_height": size,
    }  # fmt: skip
    origin = {
        "generator": "pirn_jax.scans.synthetic", "version": GENERATOR_VERSION,
        "hash": generator_hash(), "category": category, "seed": seed, "size": size,
        "scans": records,
    }  # fmt: skip
    present = {str(grey): name for grey, name in MASK_VALUES.items() if name in data.test.defects}
    write_json(folder / "class_ids.json", present | {"0": "good"})
    write_json(folder / "calibration" / "camera_parameters.json", camera)
    write_json(folder / "generated.json", origin)


@cache
def generator_hash() -> str:
    """SHA-256 over a small rendering of every kind of part with every defect it can have.

    Two results made with the same hash saw the same data. The bytes hashed are 8-bit colours, masks
    and points whose z is whole micrometres, so platforms agree although their sines do not; a numpy
    that drew other random numbers would show here too.
    """
    digest = hashlib.sha256()
    for category in CATEGORIES:
        for defect in ("good", *defects_of(category)):
            scan = render(category, f"test/{defect}/000", size=64)
            assert scan.rgb is not None
            assert scan.xyz is not None
            assert scan.mask is not None
            micrometres = np.rint(scan.xyz.astype(np.float64) * 1e6).astype("<i4")
            for array in (scan.rgb, scan.mask, micrometres):
                digest.update(array.tobytes())
    return digest.hexdigest()


def _read(entry: Entry, category: str, seed: int, size: int) -> Scan:
    return render(category, entry.key, seed, size)


def random_stream(category: str, seed: int, key: str, purpose: str) -> np.random.Generator:
    """A scan's own random numbers for one purpose: pose, part, flaw, camera, sensor or spread."""
    name = f"pirn_jax {GENERATOR_VERSION}|{category}|{seed}|{key}|{purpose}"
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _check_category(category: str) -> None:
    if category not in KINDS:
        raise ConfigError(
            f"no generated category {category!r}{did_you_mean(category, CATEGORIES)}",
            f"the categories are {', '.join(CATEGORIES)}",
        )


LAYOUT = DatasetLayout(open_synthetic, lambda _: CATEGORIES, rendered=True)
