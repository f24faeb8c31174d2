"""Scans → views, read ahead by threads: background and normals as a detector's config says.

This is the one place where a scan's normals come from: the cache that `pirn_jax.prepare` fills,
where it holds them, else they are computed.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pirn_jax.config import Config
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.geometry import (
    WITNESSES,
    Background,
    Views,
    background_of,
    choose_object,
    make_views,
)
from pirn_jax.geometry.prepared import PreparedCache, Settings, prepare_scan
from pirn_jax.scans import Scan, Split

_log = logging.getLogger("pirn_jax")
BATCH = 8
"""Scans a call, where there are many; the last batch is padded, never compiled anew."""
NOTHING_KEPT = PreparedCache(None)

_Result = TypeVar("_Result")


def view_scan(
    scan: Scan,
    config: Config,
    prepared: PreparedCache = NOTHING_KEPT,
    found: Background | None = None,
) -> Views:
    """The scan as the encoder sees it: background and normals as the config says.

    With foreground "all" every location is valid but those to be ignored, whatever the pictures
    show there; it is said here and nowhere else.

    Args:
        scan: with what the model's modalities need.
        config: of the detector; background auto is plane.
        prepared: normals and object masks at hand.
        found: the object, where it is known already.

    Raises:
        BadInputError: a modality of the model is missing, or nothing of the part was measured.
    """
    background = "plane" if config.background == "auto" else config.background
    settings, wanted = Settings(config.geometry_method, background), "normals" in config.modalities
    known = prepared.read(scan, settings)
    if known is None:
        known = prepare_scan(scan, settings, found, normals=wanted)
    for note in known.notes:
        _log.warning("%s: %s", scan.key, note)
    shown = scan._replace(normals=known.normals if wanted else None)
    views = make_views(shown, config.image_size, known.object)
    if views.ignore is not None:
        views = views._replace(valid=views.valid & ~views.ignore)
    for name in config.modalities:
        if getattr(views, name) is None:
            needed = "photograph" if name == "rgb" else "points or normals"
            raise BadInputError(
                f"{scan.key or 'the scan'} has no {needed}, which this model needs",
                "give it, or use a model trained without that modality",
            )
    if not views.valid.any():
        raise BadInputError(
            f"{scan.key or 'the scan'} shows no measured pixel of a part",
            "check its points and the ignore mask",
        )
    if config.chosen_recipe.foreground == "all":
        everywhere = np.ones_like(views.valid) if views.ignore is None else ~views.ignore
        views = views._replace(valid=everywhere)
    return views


def view_shots(
    scans: Iterable[Scan], config: Config, prepared: PreparedCache = NOTHING_KEPT
) -> tuple[Config, list[Views]]:
    """The shots as the encoder sees them, and the config with its background decided.

    Background auto is what most of the first `WITNESSES` shots with points say: "none" where the
    part itself is the plane at the border. Each scan is read once, and fitted to a plane once.

    Args:
        scans: good ones.
        config: of the detector.
        prepared: normals and object masks at hand.

    Raises:
        BadInputError: a defective scan, none at all, or one without a modality of the model.
    """
    decided = config if config.background != "auto" else None
    waiting: list[tuple[Scan, Background]] = []
    views: list[Views] = []

    def look(scan: Scan) -> Background | Views:
        if decided is not None:  # by then; what was looked at before waits for the decision
            return view_scan(scan, decided, prepared)
        return choose_object(scan.xyz, scan.valid, "plane", method=config.geometry_method)

    def decide() -> Config:
        found = [found for scan, found in waiting if scan.xyz is not None]
        return replace(config, background=background_of(found))

    for scan, seen in prefetch(scans, look, BATCH):
        check_good(scan, "learn from")
        if isinstance(seen, Background):
            waiting.append((scan, seen))
        else:
            views.append(seen)
        if decided is None:
            witnesses = sum(scan.xyz is not None for scan, _ in waiting)
            decided = decide() if witnesses == WITNESSES else None
        if decided is not None:
            views += [_with_object(scan, found, decided, prepared) for scan, found in waiting]
            waiting.clear()
    decided = decided or decide()
    views += [_with_object(scan, found, decided, prepared) for scan, found in waiting]
    if not views:
        raise BadInputError("no scans to learn from", "give at least one good scan")
    return decided, views


def _with_object(scan: Scan, found: Background, config: Config, prepared: PreparedCache) -> Views:
    """The views of a scan in which a plane was looked for already."""
    return view_scan(scan, config, prepared, found if config.background == "plane" else None)


def check_good(scan: Scan, purpose: str) -> None:
    """Refuse a defective scan for that purpose."""
    if scan.label == 1 or (scan.mask is not None and (scan.mask > 0).any()):
        raise BadInputError(
            f"{scan.key or 'a scan'} is defective; a detector can {purpose} good scans only",
            "leave it out",
        )


def prefetch(
    scans: Iterable[Scan],
    look: Callable[[Scan], _Result],
    ahead: int,
    failed: Callable[[str, PirnError], None] | None = None,
) -> Iterator[tuple[Scan, _Result]]:
    """Scans with what is made of them, in order, some of them read before they are asked for.

    Args:
        scans: read in threads where they are a `Split`.
        look: called in threads.
        ahead: so many at most.
        failed: called with the key and the error of a scan that cannot be used, whatever it is that
            went wrong; the scan is then left out. None: the error is raised.
    """

    def read(scan: Scan | Callable[[], Scan]) -> tuple[Scan, _Result]:
        found = scan if isinstance(scan, Scan) else scan()
        return found, look(found)

    def tasks() -> Iterator[tuple[str, Scan | Callable[[], Scan]]]:
        if isinstance(scans, Split):
            for place, key in enumerate(scans.keys):
                yield key, functools.partial(scans.__getitem__, place)
        else:
            for scan in scans:
                yield scan.key, scan

    def result(key: str, future: Future[tuple[Scan, _Result]]) -> tuple[Scan, _Result] | None:
        try:
            return future.result()
        except Exception as error:
            if failed is None:
                raise
            failed(key, _as_ours(error))
            return None

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "read scans") as pool:
        waiting: deque[tuple[str, Future[tuple[Scan, _Result]]]] = deque()
        try:
            for key, task in tasks():
                waiting.append((key, pool.submit(read, task)))
                if len(waiting) > ahead and (pair := result(*waiting.popleft())):
                    yield pair
            while waiting:
                if pair := result(*waiting.popleft()):
                    yield pair
        finally:
            for _, future in waiting:
                future.cancel()


def _as_ours(error: Exception) -> PirnError:
    """An error in one scan: disks, decoders and memory fail in ways that no reader foresees."""
    if isinstance(error, PirnError):
        return error
    reason = str(error).partition("\n")[0][:200]
    return BadInputError(f"cannot be used: {type(error).__name__}: {reason}", "see to this file")
