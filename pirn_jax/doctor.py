"""`python -m pirn_jax.doctor`: what is wrong here, and how to mend it.

Looks at packages, devices, encoder weights, caches and, if asked, a dataset: whether its files
pair, the header of every file, every mask, and a scan of each part. Changes nothing. Exit code 4 if
anything is wrong here, 2 if it is the data alone.

With --against RUN FOLDER it looks at good scans of today instead, beside those a model was made
with: has the camera or the light moved, is it another product? Exit code 2 if it has.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro.conf import arg

from pirn_jax.command import MACHINE, UNJUDGED, Console, run
from pirn_jax.errors import PirnError
from pirn_jax.scans.formats.options import Reading

GOOD, NOTE, WRONG = "ok", "note", "wrong"
_COLOURS = {GOOD: "green", NOTE: "yellow", WRONG: "bold red"}
_NEEDED = ("jax", "flax", "optax", "orbax.checkpoint", "ott", "jraph", "safetensors", "tifffile")
_SPARE = {
    "open3d": "geometry open3d, as in the paper; the default needs it not",
    "openvino": "runtime openvino, a faster encoder on CPUs; the default needs it not",
}
_FREE_GIB = 2
_AS_RELEASED = Reading()


class Finding(NamedTuple):
    """One thing looked at.

    Attributes:
        state: ok, note (works, with something to know) or wrong.
        what: the thing.
        words: what was found, and the remedy.
        code: the exit code where it is wrong.
    """

    state: str
    what: str
    words: str
    code: int = MACHINE


def main(
    dataset: str | None = None,
    data_root: Path | None = None,
    modalities: tuple[str, ...] = ("rgb", "normals"),
    against: tuple[Path, Path] | None = None,
    category: str | None = None,
    seed: int | None = None,
    weights: str | None = None,
    reading: Annotated[Reading, arg(name="")] = _AS_RELEASED,
) -> int:
    """Say what is wrong here, and how to mend it.

    Args:
        dataset: also look at this dataset: mvtec3d, mvtec2d, eyecandies, real_iad_d3, folder.
        data_root: the folder that holds its categories; without it the variable PIRN_DATA.
        modalities: that a run would use.
        against: RUN FOLDER: instead, whether the folder's good scans look as those that the run's
            model was made with.
        category: with --against: which model, where the run holds several.
        seed: with --against: which seed's model; without it the first.
        weights: with --against: the encoder's file, where it has moved.
        reading: how files are to be understood.
    """
    console = Console()
    wrong, code = 0, 0
    if against is None:
        found = findings(dataset, data_root, modalities, reading)
    else:
        found = moved_since(*against, category, seed, weights, reading)
    for finding in found:
        if finding.state == WRONG:
            wrong, code = wrong + 1, max(code, finding.code)
        colour = _COLOURS[finding.state]
        console.print(f"[{colour}]{finding.state:>5}[/]  {finding.what}: ", end="")
        console.print(finding.words, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{wrong} wrong" if wrong else "nothing is wrong")
    return code


def findings(
    dataset: str | None,
    data_root: Path | None,
    modalities: tuple[str, ...],
    reading: Reading = _AS_RELEASED,
) -> Iterator[Finding]:
    """Everything that is looked at, one by one."""
    version = sys.version.split()[0]
    yield Finding(GOOD if sys.version_info >= (3, 11) else WRONG, "python", version)
    for name in _NEEDED:
        yield _package(name, WRONG, "install pirn-jax with its dependencies")
    for name, purpose in _SPARE.items():
        yield _package(name, NOTE, f"needed for {purpose}")
    yield _devices()
    yield from _weights()
    yield _cache()
    if dataset is not None:
        for finding in _data(dataset, data_root, modalities, reading):
            yield finding._replace(code=UNJUDGED)


def moved_since(
    run: Path,
    folder: Path,
    category: str | None,
    seed: int | None,
    weights: str | None,
    reading: Reading,
) -> Iterator[Finding]:
    """What of a folder's scans is not as in those that a run's model was made with."""
    from pirn_jax.detector import PIRN
    from pirn_jax.runs.against import compare
    from pirn_jax.runs.folder import start_caches
    from pirn_jax.runs.predictions import find_model
    from pirn_jax.scans.datasets.left_out import describe_left_out

    place = find_model(run, category, seed)
    _, prepared = start_caches(None)
    model = PIRN.load(place, weights=weights, prepared=prepared)
    unread: list[Finding] = []

    def failed(key: str, error: PirnError) -> None:
        unread.append(Finding(WRONG, key, str(error), UNJUDGED))

    found = compare(model, folder, reading, failed)
    for line in describe_left_out(found.left_out):
        yield Finding(NOTE, str(folder), line)
    yield from unread
    for one in found.compared:
        if one.limits is None:
            words = f"{one.value:.3g}; too few scans are known to say how far it may move"
            yield Finding(NOTE, one.what, words)
            continue
        low, high = one.limits
        words = f"{one.value:.3g}, expected {low:.3g} to {high:.3g}"
        words += f" ({one.outside} of {found.scans} scans outside)" if one.outside else ""
        words += f": {one.cause}?" if one.moved else ""
        yield Finding(WRONG if one.moved else GOOD, one.what, words, UNJUDGED)


def _package(name: str, missing: str, remedy: str) -> Finding:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken package raises anything
        return Finding(missing, name, f"cannot be imported ({error}); {remedy}")
    return Finding(GOOD, name, str(getattr(module, "__version__", "")))


def _devices() -> Finding:
    import jax

    try:
        found = [f"{device.platform} {device.device_kind}" for device in jax.local_devices()]
    except RuntimeError as error:
        return Finding(WRONG, "devices", f"{error}; check the driver, or set JAX_PLATFORMS=cpu")
    nvidia = shutil.which("nvidia-smi") is not None
    if nvidia and jax.default_backend() == "cpu":
        words = f"{found}; there is an NVIDIA driver: pip install 'pirn-jax[cuda]' makes use of it"
        return Finding(NOTE, "devices", words)
    return Finding(GOOD, "devices", ", ".join(found))


def _weights() -> Iterator[Finding]:
    from pirn_jax.encoder import encoder_config, hub

    cached = 0
    for name in ("dinov2-small", "dinov2-base"):
        source = hub.cached_weights(encoder_config(name))
        cached += source is not None
        if source is not None:
            yield Finding(GOOD, f"weights of {name}", source.path)
    if not cached:
        yield Finding(
            NOTE,
            "encoder weights",
            "no DINOv2 in the local cache: a first run downloads it, or, without a network, uses "
            "pirn-tiny, which is in the package; --weights FILE takes a file",
        )


def _cache() -> Finding:
    path = Path(os.environ.get("PIRN_CACHE") or Path.home() / ".cache" / "pirn_jax")
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 2**30
    if not os.access(there, os.W_OK):
        return Finding(WRONG, "cache", f"{path} cannot be written; set PIRN_CACHE to a folder")
    if free < _FREE_GIB:
        return Finding(WRONG, "cache", f"{free:.1f} GiB free in {path}; make room, or PIRN_CACHE")
    return Finding(GOOD, "cache", f"{path}, {free:.0f} GiB free")


def _data(
    dataset: str, root: Path | None, modalities: tuple[str, ...], reading: Reading
) -> Iterator[Finding]:
    from pirn_jax.config import Config, TrainConfig
    from pirn_jax.detector import view_scan
    from pirn_jax.runs.items import open_category
    from pirn_jax.scans import check_dataset, find_layout, list_categories

    try:
        config = TrainConfig(
            dataset=dataset,
            data_root=None if root is None else str(root),
            detector=Config(modalities=modalities),
            **reading.changed(),
        )
        rendered = find_layout(dataset).rendered
        place = None if rendered else root or os.environ.get("PIRN_DATA")
        names = list_categories(dataset, place)
    except PirnError as error:
        yield Finding(WRONG, dataset, str(error))
        return
    if not names:
        yield Finding(WRONG, dataset, f"no category in {place}")
    for name in names:
        try:
            data = open_category(config, name)
            notes = data.notes if rendered else (*data.notes, *check_dataset(data, config.limits))
            for split in (data.train, data.validation, data.test):
                if len(split):
                    view_scan(split[0], config.detector)
        except PirnError as error:
            yield Finding(WRONG, name or dataset, str(error))
            continue
        for note in notes:
            yield Finding(NOTE, name or dataset, note.words)
        counts = f"{len(data.train)} train, {len(data.validation)} validation, {data.test!r} test"
        state = GOOD if len(data.train) and len(data.test) else WRONG
        yield Finding(state, name or dataset, counts)


if __name__ == "__main__":
    sys.exit(run(main))
