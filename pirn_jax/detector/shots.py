"""The shots: good scans a detector learns from, as tokens, and as jobs that each leave some out.

Dimension letters: M modalities, S shots, N tokens, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pirn_jax.config import Config
from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector.encoders import points_digest
from pirn_jax.detector.preprocessing import BATCH
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.geometry.augmentation import VERSION, augment
from pirn_jax.training import FeatureCache, TrainingJob, extract

FOLDS = 10
"""Without scans to calibrate on, models are trained without one shot each, or, with more shots than
this, without one of this many parts of them."""


def shot_tokens(
    views: Sequence[Views], config: Config, encoder: Encoder, cache: FeatureCache
) -> Tokens:
    """Tokens of each shot, followed by those of its augmented copies; from the cache if known.

    Args:
        views: of the shots.
        config: of the detector.
        encoder: its encoder.
        cache: of tokens.
    """
    digest = hashlib.sha256()
    for view in views:
        pictures = [view.picture(name) for name in config.modalities]
        for array in (*pictures, view.valid):
            digest.update(np.ascontiguousarray(array).data)
    key = {
        "encoder": encoder.config.name,
        "weights": encoder.source.sha256,
        "size": str(encoder.image_size),
        "tiles": str(encoder.tiles),
        "layers": str(encoder.layers),
        "groups": str(encoder.groups),
        "normalised": str(encoder.normalised),
        "dtype": encoder.dtype.name,
        "runtime": encoder.runtime,
        "features": encoder.features,
        "points": points_digest(encoder),
        "modalities": str(config.modalities),
        "pictures": digest.hexdigest(),
    }
    augmentations = config.chosen_recipe.augmentations()
    if augmentations:
        key |= {"augmentations": f"{VERSION} {augmentations}", "seed": str(config.seed)}

    def make() -> Tokens:
        every = (copy for view in views for copy in augment(view, augmentations, config.seed))
        return extract(encoder, every, config.modalities, batch=BATCH)

    return cache.get(key, make)


class Fold(NamedTuple):
    """A model's shots without some of them.

    Attributes:
        job: learns the others, and all their copies.
        left_out: places of those it has not seen, among all tokens.
    """

    job: TrainingJob
    left_out: tuple[int, ...]


def leave_one_out_folds(
    name: str, shots: Tokens, seed: int, copies: int = 0, spoiled: int = 0
) -> list[Fold]:
    """Jobs that each leave out a part of the shots, and hold a copy of the others' tokens.

    Args:
        name: of the model, which the jobs' begin with.
        shots: tokens of the shots, each followed by its copies.
        seed: of the jobs.
        copies: of each shot; they are left out with it, and are not scored.
        spoiled: how many of the copies have pseudo-defects.

    Raises:
        BadInputError: there is only one shot.
    """
    each = 1 + copies
    count = shots.values.shape[1] // each
    if count < 2:
        raise BadInputError(
            "one shot and no other good scan: no threshold can be set",
            "give good scans to calibrate on, or more shots",
        )
    folds = []
    for part in np.array_split(np.arange(count), min(count, FOLDS)):
        kept = np.setdiff1d(np.arange(count), part)
        learned = (kept[:, None] * each + np.arange(each)).reshape(-1)
        own = select_scans(shots, learned)
        job = TrainingJob(f"{name}/without{part[0]}", own, seed, copies, spoiled)
        folds.append(Fold(job, tuple(int(place) * each for place in part)))
    return folds
