"""What the recipe study runs: sets, rows and grids → jobs of the runner, and their results.

The protocol is in `recipe.py`, the rows are in `recipe_rows.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.jobs import Job
from experiments.recipe_rows import (
    BASELINES,
    CANDIDATES,
    DEFAULT,
    GRIDS,
    PAPER,
    QUESTIONS,
    Row,
    Set,
)
from experiments.runner import Result, run
from experiments.shifts import families_of, shift_scan
from experiments.study_judgement import judge_for_study
from pirn_jax.config import Config

SLOW = "inp_former"
SYSTEMS = ("default", "ours, chosen", "paper", *BASELINES)


class Study:
    """What is run, and the results of it.

    Args:
        options: of the command line.
        sets: that are at hand.
    """

    def __init__(self, options: argparse.Namespace, sets: Sequence[Set]):
        self.options, self.grid = options, GRIDS[options.grid]
        self.sets = {one.name: one for one in sets}
        asked = options.rows
        self.questions = {
            question: tuple(row for row in self._kept(rows) if not asked or row.name in asked)
            for question, rows in QUESTIONS.items()
        }
        asked_rows = {row for rows in self.questions.values() for row in rows}
        candidates = (row for row in CANDIDATES if row in asked_rows or row == DEFAULT)
        self.systems = {"ours, chosen": tuple(candidates)}
        self.systems |= {name: self._kept(rows) for name, rows in BASELINES.items()}
        self._found: dict[Job, Result] = {}

    def config(self, row: Row, one: Set, size: int) -> Config | None:
        """The detector of a row on a set; None where the row has no stream to look at."""
        streams = tuple(name for name in one.modalities if name in row.streams)
        if not streams:
            return None
        settings: dict[str, Any] = {
            "encoder": self.options.encoder,
            "weights": self.options.weights,
            "image_size": size,
            "modalities": streams,
            "background": one.background,
        }
        return Config(**settings | dict(row.settings), change=row.change)

    def jobs(
        self,
        row: Row,
        one: Set,
        *,
        size: int | None = None,
        shots: int = 5,
        draws: int = 1,
        seed: int = 0,
        family: str | None = None,
    ) -> list[Job]:
        """The jobs of a row on a set, one per draw of the shots."""
        config = self.config(row, one, size or self.options.image_size[0])
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

    def clean_and_shifted(self, row: Row, one: Set, draws: int, **which: Any) -> list[Job]:
        """The jobs of a row, and the first of its draws under each shift."""
        found = self.jobs(row, one, draws=draws, **which)
        some = min(draws, self.grid.draws_shifted)
        for family in families_of(one.modalities):
            found += self.jobs(row, one, draws=some, family=family, **which)
        return found

    def run(self, jobs: Sequence[Job]) -> None:
        """See that these jobs have results; with --dry, say how long that may take."""
        new = [job for job in dict.fromkeys(jobs) if job not in self._found]
        if new and self.options.dry:
            lines: list[str] = []
            run(new, self.options.out, cache=self.options.cache, dry=True, say=lines.append)
            print(lines[0])
        elif new:
            found = run(new, self.options.out, cache=self.options.cache, judge=judge_for_study)
            self._found |= zip(new, found, strict=True)

    def results(self, row: Row, one: Set, **which: Any) -> list[dict[str, Any]]:
        """The documents of those jobs; none that has not been run."""
        jobs = self.jobs(row, one, **which)
        return [self._found[job].document for job in jobs if job in self._found]

    def _kept(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(row for row in rows if self.grid.full or not row.full)

    def selection_sets(self) -> list[Set]:
        """The sets that options are chosen on."""
        return [one for one in self.sets.values() if one.selects]

    def selection_draws(self, system: str) -> int:
        """Of the shots, when the options of a system are compared."""
        most = self.grid.draws_selection
        return min(most, self.grid.draws_slow) if system == SLOW else most


def run_selection(study: Study) -> None:
    """Every option of every system, and every row of the questions, where options are chosen."""
    wanted: list[Job] = []
    for system, rows in study.systems.items():
        if len(rows) == 1:  # nothing to choose
            continue
        for row in rows:
            for one in study.selection_sets():
                wanted += study.jobs(row, one, draws=study.selection_draws(system))
    for rows in study.questions.values():
        for row in rows:
            for one in study.selection_sets():
                wanted += study.jobs(row, one, draws=study.grid.draws_selection)
    study.run(wanted)


def main_rows(chosen: dict[str, dict[str, Row]], one: Set) -> dict[str, Row]:
    """The row that stands for each system on a set."""
    found = {"default": DEFAULT, "paper": PAPER}
    found |= {system: rows[one.name] for system, rows in chosen.items()}
    return {system: found[system] for system in SYSTEMS}


def run_main(study: Study, chosen: dict[str, dict[str, Row]]) -> None:
    """The comparison: shots, draws, shifts, seeds, larger sizes."""
    grid, wanted = study.grid, []
    for one in study.sets.values():
        for system, row in main_rows(chosen, one).items():
            slow = system == SLOW
            if slow and grid.sets_slow and one.name not in grid.sets_slow:
                continue
            if slow:
                for shots in grid.shots_slow:
                    wanted += study.clean_and_shifted(row, one, grid.draws_slow, shots=shots)
            else:
                wanted += study.clean_and_shifted(row, one, grid.draws)
                wanted += study.clean_and_shifted(row, one, grid.draws_beside, shots=10)
                if system != "paper":
                    wanted += study.jobs(row, one, shots=1, draws=grid.draws_beside)
            larger = min(grid.draws_larger, grid.draws_slow) if slow else grid.draws_larger
            for size in () if one.generated else study.options.image_size[1:]:
                wanted += study.clean_and_shifted(row, one, larger, size=size)
        for seed in range(1, grid.seeds):
            wanted += study.jobs(DEFAULT, one, seed=seed)
    study.run(wanted)
