"""What folders and files are called: splits, good parts, roles and what may be passed over.

People spell them in many ways. The common ones are understood, whatever their letter case; what
could be meant in two ways is refused by name, so that no good part counts as a defect unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS

SPLITS = {  # and how else their folders are called
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
_GOOD = {
    *("good", "ok", "okay", "normal", "pass", "passed", "fine", "gut", "io", "goodparts"),
    *("defectfree", "nodefect", "nodefects", "nondefective", "notdefective", "faultless"),
    *("withoutdefect", "anomalyfree", "noanomaly"),
}
_NOT = {"not", "no", "non", "nok", "ng", "nio", "n", "un", "bad", "ab"}
PICTURES = tuple(PICTURE_FORMATS)
POINTS = (".npy", ".npz", ".ply", ".pcd", ".tif", ".tiff")
ROLES = {  # folder, name or name's ending → role and extensions
    "rgb": ("rgb", PICTURES),
    "xyz": ("xyz", POINTS),
    "depth": ("depth", (".png", ".npy", ".npz", ".tif", ".tiff")),
    "normals": ("normals", (*PICTURES, ".npy", ".npz")),
    "gt": ("mask", PICTURES),
    "mask": ("mask", PICTURES),
    "ignore": ("ignore", PICTURES),
}
_TIFF = (".tif", ".tiff")
_JUNK = {
    *(".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".gitkeep"),
    *(".gitignore", ".localized", ".picasa.ini", "__macosx", "@eadir", ".git", ".trashes"),
    *(".ipynb_checkpoints", ".spotlight-v100", ".fseventsd", "system volume information"),
}


def find_splits(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Which of a category's folders are its splits: names on disk by train, validation, test.

    Raises:
        BadInputError: two folders are the same split.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        for split, spellings in SPLITS.items():
            if name.lower() not in spellings:
                continue
            if split in found:
                raise BadInputError(
                    f"{found[split]} and {name} are both the {split} scans",
                    "keep one of the folders",
                    path=str(folder / name),
                )
            found[split] = name
    return found


def defect_of(name: str, folder: Path) -> str:
    """The defect that a folder of scans is named after: "good" in all its spellings, or the name.

    Raises:
        BadInputError: it could be either, as "good_parts2" or "goood".
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    folded = re.sub(r"[^a-z0-9]", "", name.lower())
    if folded in _GOOD:
        return "good"
    doubtful = set(words) & _GOOD or re.fullmatch(r"go+d+s?|norm(al)?e?s?|okays?", folded)
    if doubtful and not set(words) & _NOT:
        raise BadInputError(
            f"are the scans in {name!r} good ones, or is that a defect's name?",
            "call the folder good if they are, else give it a name without that word",
            path=str(folder / name),
        )
    return name


def is_tiff(file: File) -> bool:
    """Whether it is a TIFF, which may hold points or a photograph."""
    return file.suffix in _TIFF


def role_of(file: File, modalities: Iterable[str]) -> tuple[str, str] | None:
    """A file's stem and role, from the end of its name or from its extension; None: unknown.

    Args:
        file: it alone; what folder it lies in is not looked at.
        modalities: of what is to be read, rgb or xyz; a TIFF is a photograph where only those are.
    """
    stem, _, ending = file.stem.rpartition("_")
    if stem and ending.lower() in ROLES and file.suffix in ROLES[ending.lower()][1]:
        return stem, ROLES[ending.lower()][0]
    if is_tiff(file):
        return file.stem, "xyz" if "xyz" in modalities else "rgb"
    if file.suffix in (*POINTS, *PICTURES):
        return file.stem, "xyz" if file.suffix in POINTS else "rgb"
    return None


def is_junk(name: str) -> bool:
    """Whether systems and archives leave such a file or folder behind; it is passed over."""
    return name.lower() in _JUNK or name.startswith("._")


def is_notice(name: str) -> bool:
    """Whether it is what releases lay beside their scans: a licence, a readme."""
    return re.split(r"[^a-z]", name.lower())[0] in ("readme", "license", "licence")


def why_not(name: str) -> str:
    """Why a file of that name is part of no scan."""
    if name.startswith("."):
        return "hidden: its name begins with a dot"
    suffix = File(Path(name)).suffix
    if suffix not in (*POINTS, *PICTURES):
        return f"extension {suffix!r} is no photograph and no point map"
    return "it belongs to no scan"
