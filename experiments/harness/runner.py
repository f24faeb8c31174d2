"""A grid of jobs in, a result each out: what stands behind every table and figure.

    jobs = grid([Config(), Config(recipe="paper")], categories=["flange", "rope"], draws=range(3))
    for result in run(jobs, Path("runs/mine")):
        print(result.job.category, result.figures["i_auroc"])

A job is a detector (`pirn_jax.Config`), a category, a number of shots, the draw of the shots, the
seed of the initialisation (`Config.seed`), and what is done to the test scans first. Its name is
the hash of what defines it: the recipe spelled out, the encoder's weights, the scans. Its result is
one JSON file of that name, written whole, so a killed sweep goes on where it was, and jobs that two
tables share are run once.

Jobs that differ in category, draw or seed alone are trained together; jobs that differ in what is
done to the test scans share one trained model; every picture is encoded once (`token_store.py`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from harness.encoders import encoder_of
from harness.estimate import Estimate, clock
from harness.evaluation import evaluate
from harness.jobs import Job, defined, describe, grid, identity, name_of
from harness.provenance import source_hash
from harness.scan_library import ScanLibrary
from pirn_jax.cluster import Cluster, Steps
from pirn_jax.config import Config
from pirn_jax.decoder import Tokens
from pirn_jax.detector import PIRN, Inferred, Truth, fit_models
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.report.schema import Provenance, environment_document
from pirn_jax.runs import environment
from pirn_jax.storage import read_object, write_json

__all__ = ["Job", "Result", "describe", "fit", "grid", "name_of", "run"]
FORMAT = "pirn_jax experiment 2"
TOGETHER = 24
"""Models trained in one call: what a kill can cost, and what memory must hold."""

Evaluate = Callable[[Sequence[Inferred], Sequence[Truth], tuple[str, ...]], dict[str, Any]]
"""What the detector made of each scan, its truth, and the order of the modalities → JSON."""


class Result(NamedTuple):
    """A job and what came of it.

    Attributes:
        job: as given.
        document: the JSON file: `figures`, `cfm99`, `modalities`, `images` and `histograms` (see
            `evaluation.py`), `seconds`, `data` (generated or real), `encoder` (with `random`),
            `job`, `code`, `environment`.
    """

    job: Job
    document: dict[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        """i_auroc, p_auroc, aupro_0.3, …; see `pirn_jax.metrics`."""
        return self.document["figures"]


def run(
    jobs: Sequence[Job],
    folder: Path,
    *,
    cache: str | None = None,
    dry: bool = False,
    evaluate: Evaluate = evaluate,
    cluster: Cluster | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[Result]:
    """The results of jobs, made where they are not in the folder yet.

    Args:
        jobs: in any order; one given twice is run once.
        folder: for the results; they lie in its `jobs/`.
        cache: as `TrainConfig.cache`.
        dry: only say what there is to do and how long it may take; nothing is returned then.
        evaluate: what is kept of a test set; another one needs a folder of its own.
        cluster: whose workers run the jobs; they share the folder and the cache.
        say: takes a line of progress.

    Returns:
        One result a job, in their order.
    """
    if not jobs:
        raise ConfigError("no jobs", "give at least one config, category, shots and seed")
    library = ScanLibrary(cache)
    places = {job: folder / "jobs" / f"{name_of(job)}.json" for job in jobs}
    known = {job: document for job, path in places.items() if (document := _read(path))}
    # Two jobs of one name are one.
    pending = list({path: job for job, path in places.items() if job not in known}.values())
    estimate = Estimate(known.items())
    cost = {job: estimate.seconds(job, encoder_of(job.config)) for job in pending}
    programs = len({json.dumps(defined(job.resolved)) for job in pending})
    say(
        f"{len(places)} jobs, {len(known)} done, {len(pending)} to do in {programs} programs: "
        f"about {clock(sum(cost.values()) + estimate.compilation * programs)}"
    )
    if dry:
        for job in pending:
            say(f"  {describe(job)}  {cost[job]:.1f} s")
        return []
    if other := sum(document["code"] != source_hash() for document in known.values()):
        say(f"{other} of the results were made by another version of pirn_jax; to make them again, "
            f"remove them from {folder / 'jobs'}")  # fmt: skip
    if cluster is not None:
        _spread(cluster, pending, _Sweep(folder, cache, evaluate), say)
        known |= {job: found for job in pending if (found := _read(places[job]))}
    else:
        work = _Work(library, places, evaluate, say, cost)
        for batch in batches(pending):
            known |= work.do(batch)
    made = {places[job]: document for job, document in known.items()}
    return [Result(job, made[places[job]]) for job in jobs]


class _Sweep(NamedTuple):
    """What all jobs of a sweep have in common; see `run`."""

    folder: Path
    cache: str | None
    evaluate: Evaluate


def _spread(
    cluster: Cluster, jobs: Sequence[Job], sweep: _Sweep, say: Callable[[str], None]
) -> None:
    """Have the workers of a cluster run jobs; models that are trained together stay together.

    A worker that is killed costs what it has not finished: each result is a file of its own.
    """
    calls = batches(jobs)
    most = max(1, len(jobs) // cluster.workers)  # so that each has some
    parts = [call[k : k + most] for call in calls for k in range(0, len(call), most)]
    steps = Steps(_run_part, _pass_on, _run_part, _pass_on, lambda part: describe(part[0][0]))
    done = 0
    for found in cluster.map(steps, sweep, parts):
        done += len(found)
        for line in found:
            say(f"[{done}/{len(jobs)}] {line}")


def _run_part(sweep: _Sweep, models: Sequence[Sequence[Job]]) -> list[str]:
    """In a worker: what to say of each job."""
    jobs = [job for tests in models for job in tests]
    results = run(
        jobs, sweep.folder, cache=sweep.cache, evaluate=sweep.evaluate, say=lambda line: None
    )
    return [f"{describe(result.job)}: {_short(result.figures)}" for result in results]


def _pass_on(sweep: _Sweep, value: Any) -> Any:
    del sweep
    return value


def _short(figures: Mapping[str, float]) -> str:
    names = {"i_auroc": "I", "p_auroc": "P", "aupro_0.3": "PRO"}
    return "  ".join(f"{names[k]} {figures[k]:.3f}" for k in names if k in figures)


def batches(jobs: Sequence[Job]) -> list[list[list[Job]]]:
    """Jobs → calls of training → models → the jobs that test one model.

    Models of one config are trained together, in calls of equal size as far as that goes;
    background and square are decided in their tokens, so that they may differ in them.
    """
    models: dict[Job, list[Job]] = {}
    for job in jobs:
        models.setdefault(replace(job, shift="none", transform=None), []).append(job)
    configs: dict[Config, list[list[Job]]] = {}
    for job, tests in models.items():
        configs.setdefault(_learned_alike(job), []).append(tests)
    calls = []
    for same in configs.values():
        same.sort(key=lambda tests: tests[0].shots)  # of one shape: side by side
        size = -(-len(same) // -(-len(same) // TOGETHER))
        calls += [same[start : start + size] for start in range(0, len(same), size)]
    return calls


def _learned_alike(job: Job) -> Config:
    """The detector without what its tokens hold already."""
    return replace(job.resolved, background="auto", part_side=None)


def fit(jobs: Sequence[Job], shots: Sequence[Tokens]) -> list[PIRN]:
    """The trained detectors of jobs of one config, all of them trained together."""
    encoder = encoder_of(jobs[0].resolved)
    configs = [replace(job.resolved, seed=job.config.seed) for job in jobs]
    detectors = [PIRN(config, encoder=encoder) for config in configs]
    fit_models(detectors, shots, [str(k) for k in range(len(jobs))])
    return detectors


class _Work:
    """Trains and evaluates, and tells how far it has come."""

    def __init__(
        self,
        library: ScanLibrary,
        places: Mapping[Job, Path],
        evaluate: Evaluate,
        say: Callable[[str], None],
        cost: Mapping[Job, float],
    ):
        self._library = library
        self._places, self._evaluate, self._say, self._cost = places, evaluate, say, cost
        self._total, self._done, self._count = sum(cost.values()), 0.0, 0
        self._start = time.monotonic()
        self._config: Config | None = None

    def do(self, models: Sequence[Sequence[Job]]) -> dict[Job, dict[str, Any]]:
        """Train models of one config together, and test each as its jobs say."""
        config = _learned_alike(models[0][0])
        if self._config not in (None, config):
            jax.clear_caches()  # programs of another config; kept, they fill the memory
        self._config = config
        tokens = [self._library.shots(tests[0]) for tests in models]
        start = time.perf_counter()
        detectors = fit([tests[0] for tests in models], tokens)
        training = (time.perf_counter() - start) / len(models)
        found = {}
        for detector, tests in zip(detectors, models, strict=True):
            for job in tests:
                found[job] = self._test(detector, job, training / len(tests))
        return found

    def _test(self, detector: PIRN, job: Job, training: float) -> dict[str, Any]:
        tokens, truths = self._library.tests(job)
        start = time.perf_counter()
        inferences = list(detector.predict_tokens(tokens))
        found = self._evaluate(inferences, truths, detector.config.modalities)
        seconds = {"training": training, "judging": time.perf_counter() - start}
        provenance = Provenance("generated" if job.generated else "real", detector.random_weights)
        document = {
            "format": FORMAT,
            "job": identity(job),
            "data": provenance.data,
            "encoder": {"name": detector.encoder.config.name, "random": detector.random_weights},
            **found,
            "seconds": seconds,
            "code": source_hash(),
            "environment": environment_document(environment(), provenance),
        }
        write_json(self._places[job], document)
        self._tell(job, document["figures"])
        return document

    def _tell(self, job: Job, figures: Mapping[str, float]) -> None:
        self._done += self._cost[job]
        self._count += 1
        spent = time.monotonic() - self._start
        left = spent * (self._total / self._done - 1) if self._done else 0.0
        where = f"[{self._count}/{len(self._cost)}, {clock(left)} left]"
        self._say(f"{where} {describe(job)}: {_short(figures)}")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        document = read_object(path)
    except BadInputError:
        return None
    return document if document.get("format") == FORMAT else None
