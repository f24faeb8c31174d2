"""Scans → views, read ahead by threads."""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from pirn_jax.config import Config
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.geometry import (
    Views,
    choose_object,
    make_views,
    stands_on_plane,
    surface_normals,
)
from pirn_jax.scans import Scan, Split

_log = logging.getLogger("pirn_jax")
BATCH = 8
"""Scans a call, where there are many; the last batch is padded, never compiled anew."""
WITNESSES = 10
"""Shots that are asked whether the part stands on a plane."""


def decide_background(scans: Iterable[Scan], config: Config) -> str:
    """What `--background auto` is for a model: "plane" or "none", by its shots.

    Args:
        scans: the shots; the first `WITNESSES` with points have a vote each.
        config: of the detector.

    Returns:
        "none" where most of them show a part that itself is the plane at the border.
    """
    measured = ((scan.xyz, scan.valid) for scan in scans if scan.xyz is not None)
    votes = [
        stands_on_plane(np.where(valid[..., None], xyz, 0), method=config.geometry)
        for xyz, valid in islice(measured, WITNESSES)
    ]
    return "plane" if 2 * sum(votes) >= len(votes) else "none"


def view_scan(scan: Scan, config: Config) -> Views:
    """The scan as the encoder sees it: background and normals as the config says.

    Raises:
        BadInputError: a modality of the model is missing, or nothing of the part was measured.
    """
    background = "plane" if config.background == "auto" else config.background
    found = choose_object(scan.xyz, scan.valid, background, method=config.geometry)
    if found.reason and scan.xyz is not None:
        _log.warning("%s: %s", scan.key, found.reason)
    if "normals" in config.modalities and scan.normals is None and scan.xyz is not None:
        normals = surface_normals(scan.xyz, found.object & scan.valid, method=config.geometry)
        scan = scan._replace(normals=np.asarray(normals))
    if "normals" not in config.modalities:
        scan = scan._replace(normals=None, xyz=None)
    views = make_views(scan, config.image_size, found.object)
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
    return views


def read_ahead(
    scans: Iterable[Scan],
    config: Config,
    ahead: int,
    failed: Callable[[str, PirnError], None] | None,
) -> Iterator[tuple[Scan, Views]]:
    """Scans with their views, in order, some of them read before they are asked for."""

    def read(scan: Scan | Callable[[], Scan]) -> tuple[Scan, Views]:
        found = scan if isinstance(scan, Scan) else scan()
        return found, view_scan(found, config)

    def tasks() -> Iterator[tuple[str, Scan | Callable[[], Scan]]]:
        if isinstance(scans, Split):  # read in the threads
            for place, key in enumerate(scans.keys):
                yield key, functools.partial(scans.__getitem__, place)
        else:
            for scan in scans:
                yield scan.key, scan

    def result(key: str, future: Future[tuple[Scan, Views]]) -> tuple[Scan, Views] | None:
        try:
            return future.result()
        except PirnError as error:
            if failed is None:
                raise
            failed(key, error)
            return None

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "read scans") as pool:
        waiting: deque[tuple[str, Future[tuple[Scan, Views]]]] = deque()
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
