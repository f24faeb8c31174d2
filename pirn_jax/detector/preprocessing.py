"""Scans → views, read ahead by threads: background and normals as a detector's config says.

This is the one place where a scan's normals come from: the cache that `pirn_jax.prepare` fills,
where it holds them, else they are computed.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pirn_jax.config import Config, with_settings
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.geometry import (
    WITNESSES,
    Background,
    Views,
    background_of,
    choose_object,
)
from pirn_jax.geometry.part import find_part, lie_at_any_angle, square_side
from pirn_jax.geometry.prepared import PreparedCache, Settings, prepare_scan
from pirn_jax.geometry.showing import Looking, show_scan
from pirn_jax.geometry.sight import SightLimits, learn_sight
from pirn_jax.scans import Scan, Split

BATCH = 8
"""Scans a call, where there are many; the last batch is padded, never compiled anew."""
PIXELS_AT_HAND = 32_000_000
"""Of scans that are read before they are asked for, or wait to be judged together."""
NOTHING_KEPT = PreparedCache(None)

_Result = TypeVar("_Result")


def view_scan(
    scan: Scan,
    config: Config,
    prepared: PreparedCache = NOTHING_KEPT,
    found: Background | None = None,
) -> Views:
    """The scan as the encoder sees it: background, normals and square as the config says.

    Args:
        scan: with what the model's modalities need.
        config: of the detector; background auto is plane.
        prepared: normals and object masks at hand.
        found: the object, where it is known already.

    Raises:
        BadInputError: a modality of the model is missing, nothing of the part was measured, or no
            points say where it is and the model looks at a square around it.
    """
    looking = looking_of(config)
    known = prepared.read(scan, looking.settings)
    if known is None:
        known = prepare_scan(scan, looking.settings, found, normals=looking.sees_normals)
    return show_scan(scan, looking, known)


def looking_of(config: Config) -> Looking:
    """What a detector of that config looks at; background auto is plane."""
    background = "plane" if config.background == "auto" else config.background
    return Looking(
        config.modalities,
        config.view_size,
        Settings(config.geometry_method, background),
        config.chosen_recipe.foreground,
        config.part_side,
        sees_points(config),
    )


def sees_points(config: Config) -> bool:
    """Whether it is points, and no picture of normals, that describe the geometry."""
    return "normals" in config.modalities and config.settings.geometry_features() != "normals"


def view_shots(
    scans: Iterable[Scan], config: Config, prepared: PreparedCache = NOTHING_KEPT
) -> tuple[Config, list[Views], SightLimits]:
    """The config as the shots decide it, the shots as the encoder sees them, and their limits.

    The first `WITNESSES` shots decide: background auto is what most of those with points say,
    "none" where the part itself is the plane at the border; the square around the part is the
    largest part's; whether parts lie at any angle is told by their silhouettes; and pseudo-defects
    lie on parts that have a square. Each scan is read once, and fitted to a plane once. All of them
    say what a sensor that works shows.

    Args:
        scans: good ones.
        config: of the detector.
        prepared: normals and object masks at hand.

    Raises:
        BadInputError: a defective scan, none at all, one without a modality of the model, or one
            that is unlike the others.
    """
    decided: Config | None = None
    waiting: list[tuple[Scan, Background]] = []
    views: list[Views] = []

    def look(scan: Scan) -> Background | Views:
        if decided is not None:  # by then; what was looked at before waits for the decision
            return view_scan(scan, decided, prepared)
        return _look_for_object(scan, config, prepared)

    keys = []
    for scan, seen in prefetch(scans, look, BATCH):
        check_good(scan, "learn from")
        keys.append(scan.key)
        if isinstance(seen, Background):
            waiting.append((scan, seen))
        else:
            views.append(seen)
        if decided is None and len(waiting) == WITNESSES:
            decided = _decide(waiting, config)
        if decided is not None:
            views += [_with_object(scan, found, decided, prepared) for scan, found in waiting]
            waiting.clear()
    decided = decided or _decide(waiting, config)
    views += [_with_object(scan, found, decided, prepared) for scan, found in waiting]
    if not views:
        raise BadInputError("no scans to learn from", "give at least one good scan")
    for key, view in zip(keys, views, strict=True):
        if view.normals is not None and not view.normals.any():
            raise BadInputError(
                f"{key or 'a shot'}: its points lie so far apart in the photograph that no pixel "
                "shown has half its area covered by normals",
                "give the photograph at the points' own resolution",
            )
    return decided, views, learn_sight([view.sight for view in views], keys)


def decide(scans: Iterable[Scan], config: Config, prepared: PreparedCache = NOTHING_KEPT) -> Config:
    """The config with what `view_shots` would have these shots decide."""
    look = functools.partial(_look_for_object, config=config, prepared=prepared)
    return _decide(list(itertools.islice(prefetch(scans, look, BATCH), WITNESSES)), config)


def _look_for_object(scan: Scan, config: Config, prepared: PreparedCache) -> Background:
    background = "plane" if config.background == "auto" else config.background
    known = prepared.read(scan, Settings(config.geometry_method, background))
    if known is not None:
        return Background(known.object, None, "", known.stands)
    return choose_object(scan.xyz, scan.valid, background, method=config.geometry_method)


def _decide(looked_at: Sequence[tuple[Scan, Background]], config: Config) -> Config:
    """The config with background, square, poses and pseudo-defects as the shots have them."""
    if config.background == "auto":
        votes = [found for scan, found in looked_at if scan.xyz is not None]
        config = replace(config, background=background_of(votes))
    keep = np.ones_like if config.background == "none" else np.asarray
    parts = [find_part(scan.xyz, scan.valid, keep(found.object)) for scan, found in looked_at]
    known = [part for part in parts if part is not None]
    any_angle = lie_at_any_angle(known)
    framed = config.chosen_recipe.view == "part" and len(known) == len(parts)
    apart = framed and square_side(known, any_angle) is not None
    config = with_settings(config, config.chosen_recipe.for_parts(any_angle, apart))
    if config.part_side is None and config.chosen_recipe.view == "part":
        turned = any(copy.turned for copy in config.chosen_recipe.augmentations())
        side = square_side(known, turned) if len(known) == len(parts) else None
        config = replace(config, part_side=side)
    return config


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
        ahead: so many at most; fewer of large ones, which fill memory.
        failed: called with the key and the error of a scan that cannot be used, whatever it is that
            went wrong; the scan is then left out. None: the error is raised.
    """
    for pair in prefetch_all(scans, look, ahead, failed):
        if pair is not None:
            yield pair


def prefetch_all(
    scans: Iterable[Scan],
    look: Callable[[Scan], _Result],
    ahead: int,
    failed: Callable[[str, PirnError], None] | None = None,
) -> Iterator[tuple[Scan, _Result] | None]:
    """`prefetch` with None in the place of a scan that is left out."""

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

    workers, most = min(8, os.cpu_count() or 1), 1  # how large scans are, the first one tells
    with ThreadPoolExecutor(workers, "read scans") as pool:
        waiting: deque[tuple[str, Future[tuple[Scan, _Result]]]] = deque()
        try:
            for key, task in tasks():
                waiting.append((key, pool.submit(read, task)))
                while len(waiting) > most:
                    if pair := result(*waiting.popleft()):
                        most = max(1, min(ahead, PIXELS_AT_HAND // max(1, pair[0].valid.size)))
                    yield pair
            while waiting:
                yield result(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def _as_ours(error: Exception) -> PirnError:
    """An error in one scan: disks, decoders and memory fail in ways that no reader foresees."""
    if isinstance(error, PirnError):
        return error
    reason = str(error).partition("\n")[0][:200]
    return BadInputError(f"cannot be used: {type(error).__name__}: {reason}", "see to this file")
