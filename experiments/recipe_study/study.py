"""What the recipe study runs: sets, variants and grids → jobs of the runner, and their results.

The protocol is in `command.py`, the variants are in `rows.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.jobs import Job
from harness.runner import Result, run
from harness.shifts import families_of, shift_scan
from pirn_jax.config import Config, with_settings
from recipe_study.evaluation import evaluate_for_study
from recipe_study.rows import (
    BASELINES,
    CANDIDATES,
    DEFAULT,
    GRIDS,
    PAPER,
    QUESTIONS,
    TestSet,
    Variant,
)

SLOW = "inp_former"
SYSTEMS = ("default", "ours, chosen", "paper", *BASELINES)


class Study:
    """What is run, and the results of it.

    Args:
        options: of the command line.
        sets: that are at hand.
    """

    def __init__(self, options: argparse.Namespace, sets: Sequence[TestSet]):
        self.options, self.grid = options, GRIDS[options.grid]
        self.sets = {one.name: one for one in sets}
        asked = options.rows
        self.questions = {
            question: tuple(
                variant for variant in self._kept(variants) if not asked or variant.name in asked
            )
            for question, variants in QUESTIONS.items()
        }
        asked_variants = {variant for variants in self.questions.values() for variant in variants}
        candidates = (
            variant for variant in CANDIDATES if variant in asked_variants or variant == DEFAULT
        )
        self.systems = {"ours, chosen": tuple(candidates)}
        self.systems |= {name: self._kept(variants) for name, variants in BASELINES.items()}
        self._found: dict[Job, Result] = {}
        self._configs: dict[tuple[Variant, TestSet, int], Config | None] = {}

    def config(self, variant: Variant, one: TestSet, size: int) -> Config | None:
        """The detector of a variant on a set; None where the variant has no stream to look at."""
        key = (variant, one, size)
        if key not in self._configs:
            self._configs[key] = self._config(*key)
        return self._configs[key]

    def _config(self, variant: Variant, one: TestSet, size: int) -> Config | None:
        streams = tuple(name for name in one.modalities if name in variant.streams)
        if not streams:
            return None
        fields: dict[str, Any] = {
            "encoder": self.options.encoder,
            "weights": self.options.weights,
            "image_size": size,
            "modalities": streams,
            "background": one.background,
            "geometry": "grid",  # whatever the recipe: all look at the same pictures
        }
        return with_settings(
            Config(**fields | {"method": "pirn"} | dict(variant.fields)), dict(variant.change)
        )

    def jobs(
        self,
        variant: Variant,
        one: TestSet,
        *,
        size: int | None = None,
        shots: int = 5,
        draws: int = 1,
        seed: int = 0,
        family: str | None = None,
    ) -> list[Job]:
        """The jobs of a variant on a set, one per draw of the shots."""
        config = self.config(variant, one, size or self.options.image_size[0])
        if config is None:
            return []
        job = Job(
            replace(config, seed=seed),
            one.place,
            one.dataset,
            None if one.generated else str(Path(self.options.data_root) / one.folder),
            shots=shots,
            shift=family or "none",
            transform=partial(shift_scan, family=family) if family else None,
            options=(("test", self.grid.test_scans),) if one.generated else (),
        )
        return [replace(job, draw=draw) for draw in range(draws)]

    def clean_and_shifted(
        self, variant: Variant, one: TestSet, draws: int, **which: Any
    ) -> list[Job]:
        """The jobs of a variant, and the first of its draws under each shift."""
        found = self.jobs(variant, one, draws=draws, **which)
        some = min(draws, self.grid.draws_shifted)
        for family in families_of(one.modalities):
            found += self.jobs(variant, one, draws=some, family=family, **which)
        return found

    def run(self, jobs: Sequence[Job]) -> None:
        """See that these jobs have results; with --dry, say how long that may take."""
        new = [job for job in dict.fromkeys(jobs) if job not in self._found]
        if new and self.options.dry:
            lines: list[str] = []
            run(new, self.options.out, cache=self.options.cache, dry=True, say=lines.append)
            print(lines[0])
        elif new:
            found = run(
                new, self.options.out, cache=self.options.cache, evaluate=evaluate_for_study
            )
            self._found |= zip(new, found, strict=True)

    def results(self, variant: Variant, one: TestSet, **which: Any) -> list[dict[str, Any]]:
        """The documents of those jobs; none that has not been run."""
        jobs = self.jobs(variant, one, **which)
        return [self._found[job].document for job in jobs if job in self._found]

    def _kept(self, variants: Sequence[Variant]) -> tuple[Variant, ...]:
        return tuple(variant for variant in variants if self.grid.full or not variant.full)

    def selection_sets(self) -> list[TestSet]:
        """The sets that options are chosen on."""
        return [one for one in self.sets.values() if one.selects]

    def selection_draws(self, system: str) -> int:
        """Of the shots, when the options of a system are compared."""
        most = self.grid.draws_selection
        return min(most, self.grid.draws_slow) if system == SLOW else most


def run_selection(study: Study) -> None:
    """Every option of every system and every variant of the questions, where options are chosen."""
    wanted: list[Job] = []
    for system, variants in study.systems.items():
        if len(variants) == 1:  # nothing to choose
            continue
        for variant in variants:
            for one in study.selection_sets():
                wanted += study.jobs(variant, one, draws=study.selection_draws(system))
    for variants in study.questions.values():
        for variant in variants:
            for one in study.selection_sets():
                wanted += study.jobs(variant, one, draws=study.grid.draws_selection)
    study.run(wanted)


def main_variants(chosen: dict[str, dict[str, Variant]], one: TestSet) -> dict[str, Variant]:
    """The variant that stands for each system on a set."""
    found = {"default": DEFAULT, "paper": PAPER}
    found |= {system: variants[one.name] for system, variants in chosen.items()}
    return {system: found[system] for system in SYSTEMS}


def run_main(study: Study, chosen: dict[str, dict[str, Variant]]) -> None:
    """The comparison: shots, draws, shifts, seeds, larger sizes."""
    grid, wanted = study.grid, []
    for one in study.sets.values():
        for system, variant in main_variants(chosen, one).items():
            slow = system == SLOW
            if slow and grid.sets_slow and one.name not in grid.sets_slow:
                continue
            if slow:
                for shots in grid.shots_slow:
                    wanted += study.clean_and_shifted(variant, one, grid.draws_slow, shots=shots)
            else:
                wanted += study.clean_and_shifted(variant, one, grid.draws)
                wanted += study.clean_and_shifted(variant, one, grid.draws_beside, shots=10)
                if system != "paper":
                    wanted += study.jobs(variant, one, shots=1, draws=grid.draws_beside)
            larger = min(grid.draws_larger, grid.draws_slow) if slow else grid.draws_larger
            for size in () if one.generated else study.options.image_size[1:]:
                wanted += study.clean_and_shifted(variant, one, larger, size=size)
        for seed in range(1, grid.seeds):
            wanted += study.jobs(DEFAULT, one, seed=seed)
    study.run(wanted)
