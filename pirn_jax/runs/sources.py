"""Where a model is found: what `PIRN.load` is told, in one value that can be sent to others."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from pirn_jax.detector import PIRN
from pirn_jax.encoder import Encoder
from pirn_jax.runs.folder import start_caches


class ModelSource(NamedTuple):
    """A saved model; the fields are those of `PIRN.load` and `start_caches`.

    Attributes:
        folder: of the model.
        weights: the encoder's file, where it has moved.
        runtime: of the encoder.
        allow_code: what code the model may name.
        cache: of compiled programs and prepared scans.
        threshold: instead of the model's own.
    """

    folder: Path
    weights: str | None = None
    runtime: str | None = None
    allow_code: tuple[str, ...] = ()
    cache: str | None = None
    threshold: float | None = None

    def load(self, encoder: Encoder | None = None, kind: type[PIRN] = PIRN) -> PIRN:
        """The model.

        Args:
            encoder: one at hand; used if it is the right one.
            kind: of what class.
        """
        _, prepared = start_caches(self.cache)
        model = kind.load(
            self.folder,
            weights=self.weights,
            encoder=encoder,
            runtime=self.runtime,
            prepared=prepared,
            allow_code=self.allow_code,
        )
        if self.threshold is not None:
            model.set_fixed_threshold(self.threshold)
        return model


@functools.lru_cache(maxsize=2)
def loaded(source: ModelSource) -> PIRN:
    """The model, kept for the next call: those of a worker's last tasks."""
    return source.load()
