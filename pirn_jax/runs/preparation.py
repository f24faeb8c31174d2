"""Prepare a dataset: normals and objects of all its scans into the cache that runs read.

`pirn_jax.geometry.prepared` says what an entry is and computes it; here several processes make
them. An entry that is there is kept, any other is made anew; so a run may be killed at any moment
and started again. On a cluster (`pirn_jax.cluster`) its workers make them. The originals are only
ever read.

Background "auto" is decided for each category as a run decides it, by the first of the training
scans. A run whose shots decide otherwise computes its normals itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from pirn_jax.cluster import Cluster
from pirn_jax.errors import BadInputError, MachineError, PirnError
from pirn_jax.geometry.background import WITNESSES, Background, background_of, choose_object
from pirn_jax.geometry.prepared import FORMAT, PreparedCache, Settings, prepare_scan
from pirn_jax.places import is_remote
from pirn_jax.scans import Dataset, Split, find_layout, list_categories, open_dataset
from pirn_jax.storage import sole_writer, write_json

FEW_POINTS = 0.1
"""Scans with a smaller share of measured pixels are listed as odd."""


Answer = TypeVar("Answer")


class Outcome(NamedTuple):
    """What became of one scan: "made", "current" (already there) or "bad" (see the notes)."""

    category: str
    key: str
    state: Literal["made", "current", "bad"]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The scan's, with its category."""
        return "/".join(filter(None, (self.category, self.key)))


def prepare_dataset(
    dataset: str,
    root: Path,
    folder: Path,
    *,
    categories: Sequence[str] = (),
    method: Literal["grid", "open3d"] = "grid",
    background: Literal["auto", "plane", "none"] = "auto",
    options: Mapping[str, object] | None = None,
    workers: int | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[str, int, int, str], None] | None = None,
) -> list[Outcome]:
    """Prepare a dataset's scans in parallel, and list them in `FOLDER/<dataset>/summary.json`.

    Args:
        dataset: its name.
        root: the folder that holds its categories.
        folder: of the cache.
        categories: those to prepare; none: every one that is there.
        method: how normals and background are computed.
        background: "auto": as the training scans of each category show it.
        options: of `open_dataset`.
        workers: processes; by default as many as there are processors.
        cluster: whose workers prepare, in place of processes here.
        progress: called with a stage, how much of it is done, of how much, and a note.

    Returns:
        One outcome for each scan, in order; one for a category that cannot be read.

    Raises:
        ConfigError: an unknown name or option.
        MachineError: another run is preparing into the folder, or memory or disk are full.
        PirnError: it cannot go on, e.g. open3d is missing.
    """
    with _sole_writer(folder):
        opened, outcomes = [], []
        for category in categories or list_categories(dataset, root):
            try:
                opened.append(open_dataset(dataset, root, category, **(options or {})))
            except BadInputError as error:
                outcomes.append(Outcome(category, "", "bad", (str(error),)))
        if background == "auto" and find_layout(dataset).marks_background:
            background = "none"
        parts = [_Part(data.category, scans) for data in opened for scans in _splits(data)]
        scans = sum(len(part.scans) for part in parts)
        settings = Settings(method, "plane")
        given = tuple(parts), PreparedCache(folder)
        if cluster is None:
            executor = ProcessPoolExecutor(
                max(1, min(workers or os.cpu_count() or 1, scans)),
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=given,
            )
        else:
            executor = cluster.executor(_start_worker, given)
        pool = _Pool(parts, settings, executor)
        with pool.running():
            decided: dict[str, Literal["plane", "none"]] = {}
            found: dict[tuple[int, int], Background] = {}
            for number, data in enumerate(opened):
                if background == "auto":
                    first = number * len(_splits(data))  # its training scans
                    decided[data.category], more = pool.decide(first)
                    found |= more
                else:
                    decided[data.category] = background
            for outcome in pool.prepare(decided, found):
                outcomes.append(outcome)
                if progress is not None:
                    bad = sum(outcome.state == "bad" for outcome in outcomes)
                    progress("preparing", len(outcomes), scans, f"{bad} bad" if bad else "")
        outcomes.sort()
        document = _summary(settings, decided, outcomes)
        write_json(folder / dataset / "summary.json", document)
        return outcomes


def _splits(data: Dataset) -> tuple[Split, Split, Split]:
    return data.train, data.validation, data.test


def _summary(
    settings: Settings, decided: Mapping[str, str], outcomes: Sequence[Outcome]
) -> dict[str, object]:
    """What lies in the cache and what was odd; the same however often the run was interrupted."""
    return {
        "format": FORMAT,
        "method": settings.method,
        "seed": settings.seed,
        "time_limit": settings.time_limit,
        "background": dict(sorted(decided.items())),
        "prepared": sum(outcome.state != "bad" for outcome in outcomes),
        "odd": {o.name: list(o.notes) for o in outcomes if o.notes and o.state != "bad"},
        "bad": {o.name: list(o.notes) for o in outcomes if o.state == "bad"},
    }


# --- one writer -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """One run per cache; what a killed run left half-written is swept before and after."""
    if is_remote(folder):  # a store has no locks, and nothing half-written
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        _sweep(folder)
        yield
        _sweep(folder)


def _sweep(folder: Path) -> None:
    for leftover in folder.glob("??/.*.tmp"):  # beside entries, and nowhere else
        leftover.unlink(missing_ok=True)


# --- worker processes -----------------------------------------------------------------------------
# Started afresh, not forked: JAX's threads do not survive a fork.


class _Part(NamedTuple):
    category: str
    scans: Split


class _Vote(NamedTuple):
    """Of one scan: whether its part stands on a plane; and what was found, where it was looked."""

    stands: bool
    found: Background | None


_job: tuple[Sequence[_Part], PreparedCache] | None = None


def _start_worker(parts: Sequence[_Part], cache: PreparedCache) -> None:
    global _job
    import jax

    jax.config.update("jax_platforms", "cpu")  # many workers, one GPU memory
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent cannot stop its workers; they must notice

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    _job = parts, cache


def _ask(place: tuple[int, int], settings: Settings) -> _Vote | None:
    """A scan's vote on the background; None if it has no points, or cannot be read."""
    assert _job is not None
    parts, cache = _job
    part, index = place
    try:
        scan = parts[part].scans[index]
    except BadInputError:
        return None  # and is listed as bad when its turn to be prepared comes
    if scan.xyz is None:
        return None
    if kept := cache.read(scan, settings):
        return _Vote(kept.stands, None)
    found = choose_object(scan.xyz, scan.valid, "plane", settings.seed, settings.method)
    return _Vote(found.stands, found)


def _make(place: tuple[int, int], settings: Settings, found: Background | None) -> Outcome:
    assert _job is not None
    parts, cache = _job
    part, index = place
    category, scans = parts[part]
    key = scans.keys[index]
    try:
        scan = scans[index]
        if scan.xyz is None and scan.normals is None:
            raise BadInputError(
                "a scan without points or normals: there is nothing to prepare",
                "photographs alone need no preparation",
            )
        prepared = cache.read(scan, settings)
        state = "made" if prepared is None else "current"
        if prepared is None:
            prepared = prepare_scan(scan, settings, found)
            cache.write(scan, settings, prepared)
    except BadInputError as error:
        return Outcome(category, key, "bad", (str(error),))
    share, notes = float(np.mean(scan.valid)), prepared.notes
    if share < FEW_POINTS:
        notes = (*notes, f"only {share:.1%} of the pixels were measured")
    return Outcome(category, key, state, notes)


@runtime_checkable
class Submits(Protocol):
    """What takes tasks: the part of `concurrent.futures.Executor` that is needed."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a task done."""
        ...

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Nothing more is to be done; nor what waits, where that is asked."""
        ...


class _Pool:
    """Processes that prepare the scans of these parts.

    Args:
        parts: where a scan's place (part, index) counts.
        settings: what is computed; where a plane is removed.
        executor: whose workers have been given the parts and the cache.
    """

    def __init__(self, parts: Sequence[_Part], settings: Settings, executor: Submits):
        self._parts, self._settings, self._pool = tuple(parts), settings, executor

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Ends the processes with the block; what goes wrong in them is said as a `PirnError`."""
        try:
            yield
        except BrokenProcessPool as error:
            raise MachineError(
                "a worker process ended without an answer, most likely for lack of memory",
                "run the command again with fewer --workers; finished scans are kept",
            ) from error
        except OSError as error:
            if isinstance(error, PirnError):
                raise
            raise MachineError(
                f"cannot write: {error}", "check the disk that holds the cache"
            ) from error
        finally:
            self._pool.shutdown(cancel_futures=True)

    def decide(
        self, part: int
    ) -> tuple[Literal["plane", "none"], dict[tuple[int, int], Background]]:
        """The background of a category, by the first of these scans that have points.

        Returns:
            It; and, if it is "plane", what was found in the scans asked, by their places.
        """
        votes: dict[tuple[int, int], _Vote] = {}
        places = iter([(part, index) for index in range(len(self._parts[part].scans))])
        while wave := [
            place for _, place in zip(range(WITNESSES - len(votes)), places, strict=False)
        ]:
            asked = [(place, self._pool.submit(_ask, place, self._settings)) for place in wave]
            votes |= {place: vote for place, job in asked if (vote := self._told(job, place))}
        background = background_of(votes.values())
        found = {place: vote.found for place, vote in votes.items() if vote.found}
        return background, found if background == "plane" else {}

    def prepare(
        self,
        decided: Mapping[str, Literal["plane", "none"]],
        found: Mapping[tuple[int, int], Background],
    ) -> Iterator[Outcome]:
        """One outcome for each scan, as it comes.

        Args:
            decided: the background of each category.
            found: what is known already of the scan at a place.
        """
        jobs: dict[Future[Outcome], tuple[int, int]] = {}
        for number, part in enumerate(self._parts):
            settings = replace(self._settings, background=decided[part.category])
            for place in [(number, index) for index in range(len(part.scans))]:
                jobs[self._pool.submit(_make, place, settings, found.get(place))] = place
        for job in as_completed(jobs):
            yield self._told(job, jobs[job])

    def _told(self, job: Future[Answer], place: tuple[int, int]) -> Answer:
        """What a worker says of a scan; an error of the machine names it."""
        try:
            return job.result()
        except MachineError as error:
            category, scans = self._parts[place[0]]
            name = "/".join(filter(None, (category, scans.keys[place[1]])))
            raise MachineError(error.problem, error.remedy, error.path or name) from error
