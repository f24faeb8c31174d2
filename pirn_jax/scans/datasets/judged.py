"""Scans nothing is known about: found among files and folders, read as a model's training was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.places import is_file
from pirn_jax.scans.datasets.dataset import Entry, Split
from pirn_jax.scans.datasets.inputs import Inputs, list_inputs
from pirn_jax.scans.datasets.left_out import LeftOut
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.options import Options, Reading
from pirn_jax.scans.formats.registration import (
    Intrinsics,
    parse_intrinsics,
    read_camera_calibration,
    read_intrinsics,
)
from pirn_jax.scans.scan import Scan

KEPT = ("unit", "assume_aligned", "scale", "white")
"""How the scans of a training were read, and new ones are: fields of `Reading`."""
_CAMERAS = {"intrinsics": read_intrinsics, "calibration": read_camera_calibration}


def find_scans(
    files: Sequence[Path],
    roles: Mapping[str, Path],
    modalities: Sequence[str],
    options: Options,
    out: Path | None = None,
    camera: Intrinsics | None = None,
    *,
    follow_links: bool = False,
) -> tuple[Split, tuple[LeftOut, ...]]:
    """The scans to predict, from files and folders, or one scan's files by role; and what is none.

    Args:
        files: photographs, points and normal maps, paired by name; folders are looked through.
        roles: instead, files of a single scan by what they are: rgb, xyz, depth, normals.
        modalities: of the model.
        options: how to read them; cameras beside the files are used where these name none.
        out: where predictions are to go; it is not looked into.
        camera: of depth maps, where neither options nor files beside them name one.
        follow_links: go where links lead, also out of the folders.

    Raises:
        PirnError: none, or both ways at once.
    """
    if roles and files:
        raise ConfigError("files beside --rgb, --xyz or --depth", "give the one or the other")
    if roles:
        named = {role: File(path) for role, path in roles.items()}
        found = Inputs((Entry(next(iter(named.values())).stem, named),), ())
    elif files:
        streams = tuple({"rgb": "rgb", "normals": "xyz"}[name] for name in modalities)
        found = list_inputs(files, streams, out, follow_links=follow_links)
    else:
        raise ConfigError("nothing to predict", "give files, a folder, or --rgb and --xyz")
    if not found.entries and not found.left_out:
        raise BadInputError("no scans to predict", "give a folder of scans", files[0])
    reader = partial(read_given, options=options, camera=camera, given=tuple(files))
    return Split(found.entries, reader), found.left_out


def read_given(
    entry: Entry, options: Options, camera: Intrinsics | None, given: Sequence[Path] = ()
) -> Scan:
    """One scan, with the cameras that lie beside it or above it in what was given."""
    file = next(one for role, one in entry.files.items() if role != "ignore")
    top = next((place for place in given if place in file.path.parents), file.path.parent)
    for place in (file.path.parent, *file.path.parent.parents):
        for name, read in _CAMERAS.items():
            beside = File(place / f"{name}.json", root=file.root)
            if getattr(options, name) is None and is_file(beside.path):
                options = replace(options, **{name: read(beside, options.limits)})
        if place == top:
            break
    if options.intrinsics is None:
        options = replace(options, intrinsics=camera)
    return read_entry(entry, options)


def options_of(origin: Mapping[str, object], reading: Reading) -> tuple[Options, Intrinsics | None]:
    """How to read scans for a model: as in training, but for what is given now; and its camera.

    Args:
        origin: of the model.
        reading: flags; those at their defaults change nothing.

    Raises:
        BadInputError: what the model kept of its training is damaged, or a camera's file is.
    """
    kept = origin.get("reading")
    found = dict(kept) if isinstance(kept, dict) else {}
    camera = found.pop("intrinsics", None)
    if camera is not None:
        camera = parse_intrinsics(camera, Path("the model's intrinsics"))
    if unknown := found.keys() - set(KEPT):  # limits, most of all, are never a model's to say
        raise BadInputError(f"the model's record of its scans is damaged: {sorted(unknown)}")
    try:
        return Options(**{"unit": "auto", **found, **reading.given()}), camera
    except TypeError as error:
        raise BadInputError(f"the model's record of its scans is damaged: {error}") from error
