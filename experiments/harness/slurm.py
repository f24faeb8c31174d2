"""A sweep over a cluster, through submitit: each part of the jobs runs on a machine of its own.

    from harness.slurm import submit
    submit(jobs, Path("runs/mine"), parts=8, slurm_partition="gpu", timeout_min=240)
    results = run(jobs, Path("runs/mine"))      # later: reads what is there, makes what is missing

The parts share the folder and the cache, which must lie where all machines see them; every result
is a file of its own, so parts never write the same one. Workers find `harness`, and the modules of
your own transforms, by PYTHONPATH, which they inherit; `submit` adds this folder to it. Needs
`pip install submitit`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.jobs import Job
from harness.runner import batches, run
from pirn_jax.errors import ConfigError, MissingDependencyError

_EXPERIMENTS = Path(__file__).resolve().parents[1]


def submit(
    jobs: Sequence[Job], folder: Path, *, parts: int, cache: str | None = None, **parameters: Any
) -> list[Any]:
    """Hand the jobs to the cluster.

    Args:
        jobs: as for `run`.
        folder: as for `run`; submitit's own files go to its `slurm/`.
        parts: how many machines at most.
        cache: as for `run`.
        **parameters: for submitit's executor: slurm_partition, timeout_min, gpus_per_node, ….

    Returns:
        submitit's jobs, one a part.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError("submitit is not installed", "pip install submitit") from error
    given = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_EXPERIMENTS), *given]))
    executor = submitit.AutoExecutor(folder=str(folder / "slurm"))
    executor.update_parameters(**parameters)
    return executor.map_array(work, split(jobs, parts), [str(folder)] * parts, [cache] * parts)


def split(jobs: Sequence[Job], parts: int) -> list[list[Job]]:
    """Equal parts; models that are trained together stay together where that is possible.

    Raises:
        ConfigError: fewer parts than one.
    """
    if parts < 1:
        raise ConfigError(f"parts: expected 1 or more, got {parts}", "give the number of machines")
    found: list[list[Job]] = [[] for _ in range(parts)]
    for call in sorted(batches(jobs), key=len, reverse=True):
        smallest = min(found, key=len)
        smallest += [job for tests in call for job in tests]
    return found


def work(jobs: list[Job], folder: str, cache: str | None) -> int:
    """What a machine does; the number of its jobs."""
    return len(run(jobs, Path(folder), cache=cache)) if jobs else 0
