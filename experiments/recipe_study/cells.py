"""Figures of the recipe study with their bootstrap replicates.

A `Cell` is a figure of a system, or of several together, with its replicates; cells subtract and
average replicate by replicate, so that a difference pooled over sets, or a difference of two drops,
has an interval like any other. Everything that is compared is resampled alike.

Dimension letters: n images, R replicates.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from harness.bootstrap import (
    METRICS,
    Resamples,
    interval,
    plain_figures,
    replicate,
    resample,
)
from harness.evaluation import evaluation_of
from harness.shifts import families_of
from recipe_study.rows import TestSet, Variant
from recipe_study.study import Study


class Cell(NamedTuple):
    """Figures with their replicates; metrics that do not count are NaN.

    Attributes:
        value: by metric.
        replicates: by metric.
        draws: of the shots, that it is a mean over.
    """

    value: dict[str, float]
    replicates: dict[str, Float64[np.ndarray, " R"]]
    draws: int

    def __sub__(self, other: Cell) -> Cell:
        return Cell(
            {m: self.value[m] - other.value[m] for m in METRICS},
            {m: self.replicates[m] - other.replicates[m] for m in METRICS},
            min(self.draws, other.draws),
        )

    def intervals(self) -> dict[str, list[float]]:
        """Of each metric that counts: value, low, high."""
        return {
            m: [round(x, 4) for x in interval(self.value[m], self.replicates[m])]
            for m in METRICS
            if np.isfinite(self.value[m])
        }


def mean_of(cells: Sequence[Cell]) -> Cell | None:
    """Of each metric, over the cells in which it counts; None without cells."""
    if not cells:
        return None
    value, replicates = {}, {}
    for m in METRICS:
        count = [cell for cell in cells if np.isfinite(cell.value[m])] or cells[:1]
        value[m] = float(np.mean([cell.value[m] for cell in count]))
        replicates[m] = np.mean([cell.replicates[m] for cell in count], axis=0)
    return Cell(value, replicates, min(cell.draws for cell in cells))


class Analysis:
    """Cells of a study, each computed once."""

    def __init__(self, study: Study):
        self.study = study
        self._cells: dict[Any, Cell | None] = {}

    def cell(
        self,
        variant: Variant,
        one: TestSet,
        draws: int,
        among: Callable[[dict[str, Any]], Bool[np.ndarray, " n"]] | None = None,
        **which: Any,
    ) -> Cell | None:
        """A variant on a set; None where it has not been run on so many draws.

        Args:
            variant: the detector.
            one: the set.
            draws: of the shots.
            among: which images count, from the document; all without it.
            **which: as for `Study.jobs`.
        """
        jobs = tuple(self.study.jobs(variant, one, draws=draws, **which))
        key = (jobs, one.name, among)
        if key not in self._cells:
            documents = self.study.results(variant, one, draws=draws, **which)
            whole = bool(jobs) and len(documents) == draws
            self._cells[key] = self._compute(one, documents, among) if whole else None
        return self._cells[key]

    def shifted(self, variant: Variant, one: TestSet, draws: int, **which: Any) -> Cell | None:
        """The mean over the set's families of shifts."""
        cells = [
            self.cell(variant, one, draws, family=family, **which)
            for family in families_of(one.modalities)
        ]
        found = [cell for cell in cells if cell is not None]
        return mean_of(found) if len(found) == len(cells) else None

    def most_draws(self, variant: Variant, one: TestSet, **which: Any) -> int:
        """How many draws a variant has been run on."""
        most = self.study.grid.draws
        return len(self.study.results(variant, one, draws=most, **which))

    def _compute(self, one: TestSet, documents: list[dict[str, Any]], among: Any) -> Cell | None:
        found = [evaluation_of(document) for document in documents]
        evaluations, bad = [evaluation for evaluation, _ in found], found[0][1]
        kept = np.ones(len(bad), bool) if among is None else among(documents[0]) | ~bad
        if not (bad & kept).any():
            return None
        samples = _samples(one.name, bad.tobytes(), len(documents), self.study.grid.replicates)
        each = [plain_figures(one, bad, kept) for one in evaluations]
        value = {m: float(np.mean([figures[m] for figures in each])) for m in METRICS}
        samples = samples._replace(images=samples.images * kept)
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates = replicate(evaluations, bad, samples)
        if not one.image_metrics:
            value["i_auroc"] = float("nan")
        return Cell(value, replicates, len(documents))


@functools.lru_cache(maxsize=256)
def _samples(name: str, bad: bytes, draws: int, replicates: int) -> Resamples:
    """The same for every system on a set, another for another set."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return resample(np.frombuffer(bad, bool), draws, replicates, seed)
