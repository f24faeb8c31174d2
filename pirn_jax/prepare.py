"""Point clouds → cached normal maps and object masks, for a whole dataset, in parallel.

    python -m pirn_jax.prepare mvtec3d ROOT --out CACHE

One file per scan, `CACHE/<dataset>/<category>/<key>.npz`, described in `pirn_jax.geometry.prepared`. A
file whose fingerprint is that of the input and the settings is kept, any other is made anew; so a
run may be killed at any moment and started again. The originals are only ever read.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import tyro
from jaxtyping import Bool
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pirn_jax.command import run
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.scans import Scan, Split, list_categories, open_dataset
from pirn_jax.geometry.prepared import (
    FORMAT,
    STEPS,
    Prepared,
    Settings,
    fingerprint,
    load_prepared,
    prepared_path,
    save_prepared,
)
from pirn_jax.storage import write_whole

FEW_POINTS = 0.1
"""Scans with a smaller share of measured pixels are listed as odd."""


class Outcome(NamedTuple):
    """What became of one scan: "made", "current" (already there) or "bad" (see the notes)."""

    category: str
    key: str
    state: Literal["made", "current", "bad"]
    notes: tuple[str, ...]


def prepare_scan(
    scan: Scan,
    settings: Settings | None = None,
    object_mask: Bool[np.ndarray, "H W"] | None = None,
) -> Prepared:
    """Normals and object of one scan. Normals that the scan brings along are kept.

    Raises:
        BadInputError: the scan has neither points nor normals, or the mask is of another size.
    """
    from pirn_jax.geometry import GeometryWarning, choose_object, surface_normals

    settings = settings or Settings()
    found = choose_object(
        scan.xyz,
        scan.valid,
        settings.background,
        mask=object_mask,
        seed=settings.seed,
        method=settings.method,
    )
    notes = [found.reason] if found.reason else []
    if np.mean(scan.valid) < FEW_POINTS:
        notes.append(f"only {np.mean(scan.valid):.1%} of the pixels were measured")
    kept = found.object & scan.valid
    if scan.normals is not None:
        normals = scan.normals
    elif scan.xyz is None:
        raise BadInputError(
            "a scan without points or normals: there is nothing to prepare",
            "photographs alone need no preparation",
        )
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GeometryWarning)
            normals = surface_normals(
                scan.xyz, kept, method=settings.method, time_limit=settings.time_limit
            )
        notes += [str(w.message) for w in caught if issubclass(w.category, GeometryWarning)]
    steps = np.rint(np.where(kept[..., None], normals, 0) * STEPS)
    return Prepared(
        normals=(steps / STEPS).astype(np.float32),
        object=found.object,
        fingerprint=fingerprint(scan, settings, object_mask),
        notes=tuple(notes),
    )


# Worker processes. Started afresh, not forked: JAX's threads do not survive a fork.

_Parts = Sequence[tuple[Path, Split]]
_job: tuple[_Parts, Settings, Path | None] | None = None


def _start_worker(parts: _Parts, settings: Settings, object_mask: Path | None) -> None:
    global _job
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts: many workers, one GPU memory
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent cannot stop its workers; they must notice

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    _job = parts, settings, object_mask


def _work(part: int, index: int) -> Outcome:
    assert _job is not None
    parts, settings, object_mask = _job
    folder, scans = parts[part]
    key = scans.keys[index]
    try:
        scan = scans[index]
        mask = None if object_mask is None else _read_object_mask(object_mask, key)
        path, wanted = prepared_path(folder, key), fingerprint(scan, settings, mask)
        try:
            stored = load_prepared(path)
        except BadInputError:  # missing, or damaged: made anew
            stored = None
        if stored is not None and stored.fingerprint == wanted:
            return Outcome(folder.name, key, "current", stored.notes)
        prepared = prepare_scan(scan, settings, mask)
        save_prepared(path, prepared)
        return Outcome(folder.name, key, "made", prepared.notes)
    except BadInputError as error:
        return Outcome(folder.name, key, "bad", (str(error),))


def _read_object_mask(path: Path, key: str) -> Bool[np.ndarray, "H W"]:
    from PIL import Image, UnidentifiedImageError

    file = path / f"{key}.png" if path.is_dir() else path
    try:
        with Image.open(file, formats=("PNG",)) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"no readable object mask: {error}", "give a PNG, 0 outside the object", path=file
        ) from error


def prepare_dataset(
    parts: _Parts,
    settings: Settings | None = None,
    *,
    object_mask: Path | None = None,
    workers: int | None = None,
) -> Iterator[Outcome]:
    """Prepares scans in parallel, and yields one outcome for each as it comes.

    Args:
        parts: folders for the prepared files, named after the category, and the scans for each.
        settings: what is computed.
        object_mask: for background "mask": a PNG for all scans, or a folder with `<key>.png`.
        workers: processes; by default as many as there are processors.

    Raises:
        PirnError: it cannot go on, e.g. open3d is missing or the disk is full.
    """
    settings = settings or Settings()
    total = sum(len(scans) for _, scans in parts)
    pool = ProcessPoolExecutor(
        max(1, min(workers or os.cpu_count() or 1, total)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(tuple(parts), settings, object_mask),
    )
    try:
        jobs = [
            pool.submit(_work, part, index)
            for part, (_, scans) in enumerate(parts)
            for index in range(len(scans))
        ]
        for job in as_completed(jobs):
            yield job.result()
    except BrokenProcessPool as error:
        raise PirnError(
            "a worker process ended without an answer, most likely for lack of memory",
            "run the command again with fewer --workers; finished scans are kept",
        ) from error
    except OSError as error:
        if isinstance(error, PirnError):
            raise
        raise PirnError(f"cannot write: {error}", "check the disk that holds --out") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _sole_writer(cache: Path) -> Iterator[None]:
    """One run per cache; what a killed run left half-written is swept before and after."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"cannot write into --out {cache}: {error}", "choose another") from error
    with lock:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process
            except BlockingIOError as error:
                raise ConfigError(
                    f"another run is preparing into {cache}", "wait for it, or choose another --out"
                ) from error
        _sweep(cache)
        yield
        _sweep(cache)


def _sweep(cache: Path) -> None:
    for leftover in cache.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@dataclass(frozen=True)
class Command:
    """Point clouds → cached normal maps and object masks, for a whole dataset.

    Finished scans are kept: the command may be stopped, or killed, and given again. It ends with
    status 0 if all is well, 3 if bad files were left out, 2 if it could not go on.
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """mvtec3d, eyecandies, real_iad_d3, or folder."""
    root: Annotated[Path, tyro.conf.Positional]
    """The folder that holds the dataset's categories. It is only read."""
    out: Path
    """The cache: CACHE/<dataset>/<category>/<key>.npz."""
    category: tuple[str, ...] = ()
    """The categories to prepare; by default every one that is there."""
    method: Literal["grid", "open3d"] = "grid"
    """How normals and background are computed; open3d is the paper's, and slow."""
    background: Literal["plane", "mask", "none"] = "plane"
    """plane: found and removed; mask: see --object-mask; none: nothing is removed."""
    object_mask: Path | None = None
    """A PNG for all scans, 0 outside the object, or a folder with one for each, <key>.png."""
    seed: int = 0
    """Of the search for the plane."""
    time_limit: float = 300.0
    """Seconds that open3d may take for one scan's normals."""
    unit: Literal["m", "mm", "auto"] | None = None
    """Unit of the points, for datasets that do not say it (folder)."""
    assume_aligned: bool = False
    """Geometry of another size shows what the photograph shows."""
    workers: int | None = None
    """Processes; by default as many as there are processors."""


def main(command: Command) -> int:
    """Runs the command and returns its exit status."""
    try:
        with _sole_writer(command.out):
            return _run(command)
    except KeyboardInterrupt:
        _say("stopped; give the same command again to go on")
        raise


def _run(command: Command) -> int:
    settings = Settings(command.method, command.background, command.seed, command.time_limit)
    if (settings.background == "mask") != (command.object_mask is not None):
        raise ConfigError("--background mask and --object-mask come together", "give both, or none")
    given = {"unit": command.unit, "assume_aligned": command.assume_aligned or None}
    options = {name: value for name, value in given.items() if value is not None}
    parts, outcomes = [], []
    for category in command.category or list_categories(command.dataset, command.root):
        folder = command.out / command.dataset / (category or "category")
        try:
            data = open_dataset(command.dataset, command.root, category, **options)
        except BadInputError as error:
            outcomes.append(Outcome(category, "", "bad", (str(error),)))
            continue
        parts += [(folder, scans) for scans in (data.train, data.validation, data.test)]

    with Progress(
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        bar = progress.add_task("", total=sum(len(scans) for _, scans in parts))
        for outcome in prepare_dataset(
            parts, settings, object_mask=command.object_mask, workers=command.workers
        ):
            outcomes.append(outcome)
            progress.advance(bar)
    outcomes.sort()
    _write_summary(command.out / command.dataset / "summary.json", settings, outcomes)
    for outcome in outcomes:
        for note in outcome.notes:
            _say(f"{'bad' if outcome.state == 'bad' else 'odd'}: {_named(outcome)}: {note}")
    states = [outcome.state for outcome in outcomes]
    bad, odd = states.count("bad"), sum(bool(o.notes) and o.state != "bad" for o in outcomes)
    _say(
        f"{states.count('made')} made, {states.count('current')} already there, "
        f"{odd} odd, {bad} bad and left out: {command.out / command.dataset}"
    )
    return 3 if bad else 0


def _write_summary(path: Path, settings: Settings, outcomes: list[Outcome]) -> None:
    """What lies in the cache and what was odd; the same however often the run was interrupted."""
    summary = {
        "format": FORMAT,
        "settings": asdict(settings),
        "prepared": sum(outcome.state != "bad" for outcome in outcomes),
        "odd": {_named(o): o.notes for o in outcomes if o.notes and o.state != "bad"},
        "bad": {_named(o): o.notes for o in outcomes if o.state == "bad"},
    }
    write_whole(path, (json.dumps(summary, indent=1) + "\n").encode())


def _named(outcome: Outcome) -> str:
    return "/".join(filter(None, (outcome.category, outcome.key)))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(run(main, Command))
