"""What people hand over to be judged: files, folders of them, folders of folders, one per part.

Nothing needs to be known of it but what the model looks at. A scan's key is its path below what was
given, without role folders and extension: `hole/rgb/000.png` is `hole/000`, and `part_17/rgb.png`
with `part_17/depth.png` is `part_17`. What belongs to no scan is named; one scan that lacks a file
never keeps the others from being judged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pirn_jax.manifest import MANIFEST
from pirn_jax.places import exists, is_dir, walk
from pirn_jax.scans.datasets.dataset import Entry
from pirn_jax.scans.datasets.left_out import LeftOut
from pirn_jax.scans.datasets.names import ROLES, is_junk, is_notice, is_tiff, role_of, why_not
from pirn_jax.scans.formats.files import File

CAMERAS = ("intrinsics.json", "calibration.json")
PREDICTIONS = "predictions.jsonl"
"""Marks a folder that predictions were written into; they are not judged."""
_OURS = ("_heatmap.png", "_mask.png", PREDICTIONS, MANIFEST, ".lock")
_TRUTH = ("gt", "mask", "ground_truth")
_GEOMETRY = ("xyz", "depth", "normals")


class Inputs(NamedTuple):
    """Scans to judge.

    Attributes:
        entries: of the scans, by key.
        left_out: files and folders that are part of none, and why.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]


class _Part(NamedTuple):
    key: str
    role: str
    file: File


def list_inputs(
    paths: Sequence[Path],
    modalities: Sequence[str],
    skip: Path | None = None,
    *,
    follow_links: bool = False,
) -> Inputs:
    """Scans from files and folders.

    Args:
        paths: each a file, or a folder that is looked through to the bottom.
        modalities: of the model: rgb, xyz or both; scans are made of files of these.
        skip: a folder that is not looked into: where predictions are to go.
        follow_links: go where links lead, also out of the folders; each folder is seen once.
    """
    left_out: list[LeftOut] = []
    files = [file for path in paths for file in _files(path, skip, left_out, follow_links)]
    base = paths[0] if len(paths) == 1 and is_dir(paths[0]) else _common(files)
    fixtures = {file.path.parent: file for file in files if file.name.lower() == "ignore.png"}
    groups: dict[str, dict[str, File]] = {}
    for file in sorted(files, key=lambda file: (is_tiff(file), str(file))):
        part = _part(file, base, modalities)
        if part is None:
            if file.name not in CAMERAS and not is_notice(file.name):
                left_out.append(LeftOut(_below(file.path, base), why_not(file.name)))
            continue
        key, role, _ = part
        roles = groups.setdefault(key, {})
        if role in roles and is_tiff(file) and role == "rgb" and not is_tiff(roles[role]):
            continue  # the points beside a photograph, for a model that looks at photographs alone
        if role in roles and modalities == ("rgb",) and role == "rgb":
            groups[f"{key}{file.suffix}"] = {role: file}
        elif role in roles:
            reason = f"{roles[role].name} is the {role} of {key!r} already"
            left_out.append(LeftOut(_below(file.path, base), reason))
        else:
            roles[role] = file
    entries = []
    for key, roles in sorted(groups.items()):
        chosen, reason = _chosen(roles, modalities)
        if not reason:
            place = next(iter(chosen.values())).path.parent
            fixture = fixtures.get(place) or fixtures.get(base)
            entries.append(Entry(key, {**({"ignore": fixture} if fixture else {}), **chosen}))
        elif set(roles) != {"ignore"}:
            left_out.append(
                LeftOut(", ".join(_below(f.path, base) for f in roles.values()), reason)
            )
    return Inputs(tuple(entries), tuple(left_out))


def _files(
    path: Path, skip: Path | None, left_out: list[LeftOut], follow_links: bool
) -> Iterator[File]:
    """The files of a folder and of those below it, or the one file."""
    if not is_dir(path):
        if exists(path) or path.is_symlink():
            yield File(path)
        else:
            left_out.append(LeftOut(str(path), "there is no such file"))
        return
    avoided = None if skip is None else os.path.realpath(skip)
    seen = {os.path.realpath(path)}

    def unseen(error: OSError) -> None:
        name = _below(Path(str(error.filename)), path)
        left_out.append(LeftOut(name, f"cannot be listed: {error.strerror}"))

    for here, folders, names in walk(path, unseen, follow_links=follow_links):
        place = Path(here)
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(place / name)
            if is_junk(name) or name.lower() in _TRUTH or real == avoided:
                continue
            if name.startswith("."):
                left_out.append(LeftOut(_below(place / name, path) + "/", "hidden"))
            elif (place / name).is_symlink() and not follow_links:
                reason = "a link to a folder; predict --follow-links goes there"
                left_out.append(LeftOut(_below(place / name, path) + "/", reason))
            elif real not in seen:
                kept.append(name)
                seen.add(real)
        folders[:] = kept
        ours = _OURS if PREDICTIONS in names else ()
        for name in sorted(names):
            if is_junk(name) or (ours and name.endswith(ours)):
                continue
            if name.startswith("."):
                left_out.append(LeftOut(_below(place / name, path), why_not(name)))
            elif not follow_links and _leads_out(place / name, path):
                reason = "a link out of the folder; predict --follow-links goes there"
                left_out.append(LeftOut(_below(place / name, path), reason))
            else:
                yield File(place / name, root=None if follow_links else path)


def _leads_out(path: Path, folder: Path) -> bool:
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(folder.resolve())


def _part(file: File, base: Path, modalities: Sequence[str]) -> _Part | None:
    """Which scan a file belongs to, and as what."""
    folder = file.path.parent
    own = ROLES.get(folder.name.lower())
    if own is not None and file.suffix in own[1]:
        return _Part(_key(folder.parent / file.stem, base), own[0], file)
    whole = ROLES.get(file.stem.lower())
    if whole is not None and file.suffix in whole[1]:
        if whole[0] == "ignore" and folder == base:
            return _Part("", "ignore", file)
        return _Part(_key(folder, base), whole[0], file)
    named = role_of(file, modalities)
    return None if named is None else _Part(_key(folder / named[0], base), named[1], file)


def _chosen(roles: dict[str, File], modalities: Sequence[str]) -> tuple[dict[str, File], str]:
    """The files of a scan that a model looks at; or why it cannot be judged."""
    geometry = [role for role in _GEOMETRY if role in roles]
    missing = []
    if "rgb" in modalities and "rgb" not in roles:
        missing.append("no photograph")
    if "xyz" in modalities and not geometry:
        missing.append("no points, depth or normals")
    if missing:
        return {}, f"{' and '.join(missing)} with it, which this model needs"
    wanted = {"ignore", *(("rgb",) if "rgb" in modalities else ())}
    if "xyz" in modalities:
        wanted |= {"normals", "xyz" if "xyz" in roles else "depth"}
    return {role: file for role, file in roles.items() if role in wanted}, ""


def _common(files: Iterable[File]) -> Path:
    parents = [os.path.abspath(file.path.parent) for file in files]
    return Path(os.path.commonpath(parents)) if parents else Path()


def _key(path: Path, base: Path) -> str:
    below = _below(path, base)
    return path.name if below in (".", "") or below.startswith("..") else below


def _below(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()
