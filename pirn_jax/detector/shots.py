"""The shots: good scans a detector learns from, as features, and as jobs that each leave some out.

Dimension letters: S shots, N tokens, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pirn_jax.config import Config
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry.augmentation import VERSION as COPIES_VERSION
from pirn_jax.geometry.augmentation import with_copies
from pirn_jax.methods.method import plan_of
from pirn_jax.detector.preprocessing import BATCH, read_ahead
from pirn_jax.scans import Scan
from pirn_jax.training import FeatureCache, Features, Job, extract

FOLDS = 10
"""Without scans to calibrate on, models are trained without one shot each, or, with more shots than
this, without one of this many parts of them."""


def shot_features(
    scans: Iterable[Scan] | Features,
    config: Config,
    encoder: Encoder,
    cache: FeatureCache | None = None,
    encoded: Callable[[int], None] | None = None,
) -> Features:
    """Tokens of the shots and their copies, from the cache where they are known.

    Args:
        scans: good ones; or their tokens and their copies', which come back as they are.
        config: of the detector.
        encoder: its encoder.
        cache: None: nothing is kept.
        encoded: called with the number of scans when they are done.

    Returns:
        Features of each shot, followed by those of its copies (`copies.with_copies`).

    Raises:
        BadInputError: a defective scan, none at all, or one without a modality of the model.
    """
    if isinstance(scans, Features):
        return scans
    views, digest = [], hashlib.sha256()
    for scan, view in read_ahead(scans, config, BATCH, None):
        check_good(scan, "learn from")
        views.append(view)
        for name in (*config.modalities, "valid"):
            digest.update(np.ascontiguousarray(getattr(view, name)).data)
    if not views:
        raise BadInputError("no scans to learn from", "give at least one good scan")
    key = {
        "encoder": encoder.config.name,
        "weights": encoder.source.sha256,
        "size": str(encoder.image_size),
        "layers": str(encoder.layers),
        "dtype": encoder.dtype.name,
        "runtime": encoder.runtime,
        "modalities": str(config.modalities),
        "pictures": digest.hexdigest(),
    }
    if encoder.groups > 1:
        key["groups"] = str(encoder.groups)
    if plan := plan_of(config):
        key |= {"copies": f"{COPIES_VERSION} {plan}", "seed": str(config.seed)}

    def make() -> Features:
        all_views = (copy for view in views for copy in with_copies(view, plan, config.seed))
        return extract(encoder, all_views, config.modalities, batch=BATCH)

    features = make() if cache is None else cache.get(key, make)
    if encoded is not None:
        encoded(len(views))
    return features


def check_good(scan: Scan, purpose: str) -> None:
    """Refuse a defective scan for that purpose."""
    if scan.label == 1 or (scan.mask is not None and (scan.mask > 0).any()):
        raise BadInputError(
            f"{scan.key or 'a scan'} is defective; a detector can {purpose} good scans only",
            "leave it out",
        )


def left_out(
    name: str, shots: Features, seed: int, copies: int = 0
) -> tuple[list[Job], list[tuple[Features, list[int]]]]:
    """Jobs that each leave out a part of the shots, and with each the shots it has not seen.

    Args:
        name: of the model, which the jobs' begin with.
        shots: features of the shots, each followed by its copies.
        seed: of the jobs.
        copies: of each shot; they are left out with it, and are not scored.
    """
    each = 1 + copies
    count = len(shots.valid) // each
    if count < 2:
        raise BadInputError(
            "one shot and no other good scan: no threshold can be set",
            "give good scans to calibrate on, or more shots",
        )
    jobs, parts = [], []
    for part in np.array_split(np.arange(count), min(count, FOLDS)):
        kept = np.setdiff1d(np.arange(count), part)
        learned = (kept[:, None] * each + np.arange(each)).reshape(-1)
        jobs.append(Job(f"{name}/without{part[0]}", some_of(shots, learned), seed))
        parts.append((shots, [int(place) * each for place in part]))
    return jobs, parts


def some_of(features: Features, places: Any) -> Features:
    """The features of the scans at these places."""

    def take(array: Any) -> Any:
        return None if array is None else np.asarray(array)[places]

    return Features(take(features.rgb), take(features.normals), take(features.valid))
