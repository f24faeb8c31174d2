"""Eyecandies: rendered sweets with photographs, depth and exact normals.

    <root>/<Class>/{train,val,test_public}/data/<id>_<item>.<ext>          all 512×512
    image_0..5.png   six lights: 0 all spots, 1 bottom, 2 right, 3 top, 4 left, 5 global
    depth.png        16-bit; info_depth.yaml holds normalization {min, max} in metres
    normals.png      exact normals; x right, y up, z towards the viewer
    metadata.yaml    anomalous and, per kind of defect, 0 or 1
    mask.png         all defects together

depth = value / 65535 · (max - min) + min, along the optical axis; points are back-projected with
the one focal length of the release, into the camera's frame. There the pose, whose use the owners'
code and web page state differently, is not needed.
Photograph 4 is the peers' choice (M3DM, CFM). The peers also turn the points into the table's
frame, crop them and scale them by 0.1; here they stay metres, and nothing is cropped.
`test_private` is published without truth and is not read.
Source: Eyecandies documentation (Bonfiglioli et al., ACCV 2022) and its `depth2pc` stage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.places import is_dir
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.listing import check_modalities, files_by_stem, subfolders
from pirn_jax.scans.datasets.reading import assemble
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats.files import File, Limits, read_bytes
from pirn_jax.scans.formats.measurements import back_project, points_in_metres, read_normals
from pirn_jax.scans.formats.options import Options
from pirn_jax.scans.formats.pictures import read_grey16, read_rgb
from pirn_jax.scans.formats.registration import Intrinsics
from pirn_jax.scans.scan import Scan

FOCAL_LENGTH = 711.11  # pixels; the same camera took every picture
_SPLITS = {"train": "train", "validation": "val", "test": "test_public"}
_KINDS = ("bumps", "dents", "colors", "normals")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def categories(root: Path) -> list[str]:
    """Folders that hold `train/data` or `test_public/data`."""
    return [
        name
        for name in subfolders(root, root)
        if any(is_dir(root / name / split / "data") for split in _SPLITS.values())
    ]


def open_eyecandies(
    root: Path,
    category: str,
    *,
    modalities: Sequence[str] = ("rgb", "xyz"),
    light: int = 4,
    shipped_normals: bool = False,
    limits: Limits | None = None,
) -> Dataset:
    """Open one class.

    Args:
        root: folder of the classes.
        category: for instance "GummyBear".
        modalities: "rgb", "xyz" or both; "xyz" stands for the depth map.
        light: which of the six photographs.
        shipped_normals: fill `Scan.normals` with the exact, rendered normals instead of leaving
            them to be computed from the depth. The paper computes them.
        limits: what one file may cost.

    Raises:
        BadInputError: a sample without one of its files (named).
    """
    check_modalities(modalities)
    if light not in range(6):
        raise ConfigError(f"light must be 0 to 5, got {light!r}")
    wanted = {"rgb": f"image_{light}"} if "rgb" in modalities else {}
    if "xyz" in modalities:
        wanted |= {"depth": "depth", "info_depth": "info_depth"}
    if shipped_normals:
        wanted["normals"] = "normals"
    options = Options(limits=limits or Limits())
    reader = partial(_read, options=options)
    splits = [
        Split(_entries(root / category, root, split, folder, wanted, options.limits), reader)
        for split, folder in _SPLITS.items()
    ]
    return Dataset(*splits, name="eyecandies", category=category)


def _entries(
    category: Path, root: Path, split: str, name: str, wanted: dict[str, str], limits: Limits
) -> list[Entry]:
    folder = category / name / "data"
    found = files_by_stem(folder, root, (".png", ".yaml"))
    samples = sorted({stem.split("_", 1)[0] for stem in found if "_" in stem})
    test = split == "test"
    entries = []
    for sample in samples:
        needed = dict(wanted) | ({"metadata": "metadata", "mask": "mask"} if test else {})
        for item in needed.values():
            if f"{sample}_{item}" not in found:
                raise BadInputError(
                    f"sample {sample} has no {item}: expected {folder}/{sample}_{item}.*",
                    "restore it, or remove the whole sample",
                    path=str(folder / f"{sample}_{item}"),
                )
        files = {role: found[f"{sample}_{item}"] for role, item in needed.items()}
        defect = _defect(files.pop("metadata"), limits) if test else "good"
        entries.append(Entry(f"{name}/{sample}", files, int(defect != "good"), defect))
    return entries


def _values(file: File, names: Sequence[str], limits: Limits) -> dict[str, float]:
    """Numbers by name from a small YAML file of numbers; aliases and tags are never expanded."""
    text = read_bytes(file, limits, most=64 << 10).decode("utf-8", errors="replace")
    values = {}
    for name in names:
        found = re.findall(rf"(?<![\w-]){name}['\"]?\s*:\s*({_NUMBER}|true|false)\b", text)
        if len(found) == 1:
            word = str(found[0])
            values[name] = float({"true": "1", "false": "0"}.get(word, word))
    return values


def _defect(file: File, limits: Limits) -> str:
    """Good, the kind of defect, combined, or bad where no kind is named; from the metadata."""
    values = _values(file, ("anomalous", *_KINDS), limits)
    if values.get("anomalous") not in (0, 1):
        raise BadInputError(
            "expected `anomalous: 0` or `anomalous: 1`",
            "restore it from the release",
            path=str(file),
        )
    if values["anomalous"] == 0:
        return "good"
    kinds = [kind for kind in _KINDS if values.get(kind)]
    return kinds[0] if len(kinds) == 1 else "combined" if kinds else "bad"


def _read(entry: Entry, options: Options) -> Scan:
    files = dict(entry.files)
    info = files.pop("info_depth", None)
    limits = options.limits
    rgb = read_rgb(files["rgb"], limits) if "rgb" in files else None
    xyz = _points(files["depth"], info, options) if info is not None else None
    normals = read_normals(files["normals"], options) if "normals" in files else None
    return assemble(
        files,
        options,
        rgb=rgb,
        xyz=xyz,
        normals=normals,
        key=entry.key,
        label=entry.label,
        defect=entry.defect,
    )


def _points(file: File, info: File, options: Options) -> Float32[np.ndarray, "h w 3"]:
    values = _values(info, ("min", "max"), options.limits)
    low, high = values.get("min", -1.0), values.get("max", -1.0)
    if not 0 <= low < high < 1e3:
        raise BadInputError(
            "expected normalization: {min, max} in metres",
            "restore it from the release",
            path=str(info),
        )
    counts = read_grey16(file, options.limits)
    depth = counts.astype(np.float32) / np.float32(65535) * np.float32(high - low) + np.float32(low)
    height, width = depth.shape
    camera = Intrinsics(FOCAL_LENGTH, FOCAL_LENGTH, width / 2, height / 2)
    return points_in_metres(file, back_project(depth, camera), options)


LAYOUT = DatasetLayout(open_eyecandies, categories, marks_background=True)
