"""Point clouds → normal maps and object masks, for a whole dataset, kept for the runs on it.

    python -m pirn_jax.prepare mvtec3d ROOT
    python -m pirn_jax.prepare mvtec3d ROOT --on ray --address HOST:PORT --out SHARED

The work is `pirn_jax.runs.preparation`'s.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pirn_jax.cluster import Where
from pirn_jax.command import UNJUDGED, progress_bars, run
from pirn_jax.errors import printable
from pirn_jax.geometry.prepared import default_folder
from pirn_jax.runs.preparation import prepare_dataset
from pirn_jax.scans.formats.options import Reading
from pirn_jax.storage import cache_folder


@dataclass(frozen=True)
class Command(Reading):
    """Point clouds → normal maps and object masks, for a whole dataset, kept for the runs on it.

    Finished scans are kept: the command may be stopped, or killed, and given again. It ends with
    status 0 if all is well, 2 if bad files were left out.
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """mvtec3d, eyecandies, real_iad_d3, or folder."""
    root: Annotated[Path, tyro.conf.Positional]
    """The folder that holds the dataset's categories. It is only read."""
    out: Path | None = None
    """The cache; by default where runs look for it: the folder geometry in $PIRN_CACHE, or else in
    ~/.cache/pirn_jax. For runs with --cache CACHE: CACHE/geometry."""
    category: tuple[str, ...] = ()
    """The categories to prepare; by default every one that is there."""
    method: Literal["grid", "open3d"] = "grid"
    """How normals and background are computed; open3d is the paper's, and slow."""
    background: Literal["auto", "plane", "none"] = "auto"
    """plane: found and removed; none: nothing is removed; auto: as the training scans of each
    category show it, and none for datasets that mark their own background."""
    workers: int | None = None
    """Processes; by default as many as there are processors. With --on ray: of the cluster that
    is started on this machine."""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)
    """Where the work is done."""


def main(command: Command) -> int:
    """Runs the command and returns its exit status."""
    folder = command.out or default_folder(cache_folder(None))
    try:
        with command.where.cluster(command.workers) as cluster, progress_bars() as progress:
            outcomes = prepare_dataset(
                command.dataset,
                command.root,
                folder,
                categories=command.category,
                method=command.method,
                background=command.background,
                options=command.given(),
                workers=command.workers,
                cluster=cluster,
                progress=progress,
            )
    except KeyboardInterrupt:
        _say("stopped; give the same command again to go on")
        raise
    for outcome in outcomes:
        for note in outcome.notes:
            _say(f"{'bad' if outcome.state == 'bad' else 'odd'}: {outcome.name}: {note}")
    states = [outcome.state for outcome in outcomes]
    bad, odd = states.count("bad"), sum(bool(o.notes) and o.state != "bad" for o in outcomes)
    _say(
        f"{states.count('made')} made, {states.count('current')} already there, "
        f"{odd} odd, {bad} bad and left out: {folder}"
    )
    return UNJUDGED if bad else 0


def _say(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")


if __name__ == "__main__":
    sys.exit(run(main, Command))
