"""Jobs → tokens, truth and pictures: which token store serves a job, and which of its streams.

Dimension letters: M modalities, B scans, N tokens, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from harness.encoders import encoder_of
from harness.jobs import Job, open_job
from harness.token_store import TokenStore, transformed
from pirn_jax.decoder import Tokens
from pirn_jax.detector import BATCH, Truth, prefetch, view_scan
from pirn_jax.geometry import Views
from pirn_jax.runs import start_caches
from pirn_jax.scans import choose_shots
from pirn_jax.storage import cache_folder


class ScanLibrary:
    """What jobs learn from and are tested on.

    Args:
        cache: folder of tokens, normals and compiled programs, as `TrainConfig.cache`.
    """

    def __init__(self, cache: str | None = None):
        self._features, self._prepared = start_caches(cache)
        self._truth = cache_folder(cache) / "truth"
        self._stores: dict[tuple[object, ...], TokenStore] = {}

    def shots(self, job: Job) -> Tokens:
        """Tokens of what a job learns from, each shot followed by its copies, where it has some."""
        data, _, origin = open_job(job)
        count = job.shots or len(data.train)
        keys = choose_shots(data.train.keys, count, job.draw, job.dataset, data.category)
        tokens, _ = self._store(job).get(
            data,
            data.train.select(keys),
            origin,
            augmentations=job.resolved.settings.augmentations(),
            seed=job.config.seed,
        )
        return self._streams(job, tokens)

    def tests(self, job: Job) -> tuple[Tokens, list[Truth]]:
        """Tokens and truth of the test scans, transformed as the job says."""
        data, _, origin = open_job(job)
        tokens, truths = self._store(job).get(data, data.test, origin, job.transform)
        return self._streams(job, tokens), truths

    def views(self, job: Job, keys: Sequence[str]) -> list[Views]:
        """Pictures of some test scans, as the encoder sees them."""
        data, streams, _ = open_job(job)
        config = replace(job.resolved, modalities=streams)
        look = functools.partial(view_scan, config=config, prepared=self._prepared)
        found = prefetch(transformed(data.test, keys, job.transform), look, BATCH)
        return [views for _, views in found]

    def _streams(self, job: Job, tokens: Tokens) -> Tokens:
        """The detector's own modalities, of all that the store holds."""
        _, streams, _ = open_job(job)
        if job.config.modalities == streams:
            return tokens
        places = [streams.index(name) for name in job.config.modalities]
        return tokens._replace(values=tokens.values[places])

    def _store(self, job: Job) -> TokenStore:
        config, (_, streams, _) = job.resolved, open_job(job)
        encoder = encoder_of(config)
        foreground = config.chosen_recipe.foreground
        looks = (config.background, config.geometry_method, config.part_side, foreground)
        key = (id(encoder), *looks, streams)
        if key not in self._stores:
            kept = (self._features, self._prepared, self._truth)
            self._stores[key] = TokenStore(config, encoder, streams, *kept)
        return self._stores[key]
