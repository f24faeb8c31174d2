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
done to the test scans share one trained model; every picture is encoded once (`bank.py`).
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

from experiments.bank import Bank, Truth, changed, encoder_of, source_hash
from experiments.estimate import Estimate, clock
from experiments.jobs import Job, defined, describe, grid, identity, name_of, open_job
from experiments.judgement import judge
from pirn_jax.config import Config
from pirn_jax.detector import PIRN, fit_models
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import Views
from pirn_jax.judging import BATCH, Outcome, plan_of, read_ahead
from pirn_jax.runs import environment, start_caches
from pirn_jax.storage import read_object, write_json
from pirn_jax.scans import choose_shots
from pirn_jax.training import Features

__all__ = ["Desk", "Job", "Result", "describe", "fit", "grid", "name_of", "run"]
FORMAT = "pirn_jax experiment 1"
TOGETHER = 24
"""Models trained in one call: what a kill can cost, and what memory must hold."""

Judge = Callable[[Sequence[Outcome], Sequence[Truth]], dict[str, Any]]


class Result(NamedTuple):
    """A job and what came of it.

    Attributes:
        job: as given.
        document: the JSON file: `figures`, `cfm99`, `modalities`, `images` and `histograms` (see
            `judgement.py`), `seconds`, `data` (generated or real), `encoder` (with `demo`), `job`,
            `code`, `environment`.
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
    judge: Judge = judge,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[Result]:
    """The results of jobs, made where they are not in the folder yet.

    Args:
        jobs: in any order; one given twice is run once.
        folder: for the results; they lie in its `jobs/`.
        cache: as `TrainConfig.cache`.
        dry: only say what there is to do and how long it may take; nothing is returned then.
        judge: outcomes → what is kept of them; another one needs a folder of its own.
        say: takes a line of progress.

    Returns:
        One result a job, in their order.
    """
    if not jobs:
        raise ConfigError("no jobs", "give at least one config, category, shots and seed")
    kept = start_caches(cache)
    places = {job: folder / "jobs" / f"{name_of(job)}.json" for job in jobs}
    known = {job: document for job, path in places.items() if (document := _read(path))}
    # Two jobs of one name are one.
    pending = list({path: job for job, path in places.items() if job not in known}.values())
    estimate = Estimate(known.items())
    cost = {job: estimate.seconds(job, encoder_of(job.config)) for job in pending}
    programs = len({json.dumps(defined(job.settled)) for job in pending})
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
    work = _Work(kept, places, judge, say, cost)
    for batch in batches(pending):
        known |= work.do(batch)
    made = {places[job]: document for job, document in known.items()}
    return [Result(job, made[places[job]]) for job in jobs]


def batches(jobs: Sequence[Job]) -> list[list[list[Job]]]:
    """Jobs → calls of training → models → the jobs that judge one model.

    Models of one config are trained together, in calls of equal size as far as that goes; what is
    background is decided in their tokens, so that they may differ in it.
    """
    models: dict[Any, list[Job]] = {}
    for job in jobs:
        models.setdefault(replace(job, shift="none", transform=None), []).append(job)
    configs: dict[Config, list[list[Job]]] = {}
    for job, judged in models.items():
        configs.setdefault(replace(job.settled, background="auto"), []).append(judged)
    calls = []
    for same in configs.values():
        same.sort(key=lambda judged: judged[0].shots)  # of one shape: side by side
        size = -(-len(same) // -(-len(same) // TOGETHER))
        calls += [same[start : start + size] for start in range(0, len(same), size)]
    return calls


class Desk:
    """Jobs → tokens, truth and pictures.

    Args:
        cache: folder of the tokens.
    """

    def __init__(self, cache: Path):
        self._cache = cache
        self._banks: dict[Any, Bank] = {}

    def shots(self, job: Job) -> Features:
        """Tokens of what a job learns from, copies among them where its recipe asks for some."""
        data, _, origin = open_job(job)
        count = job.shots or len(data.train)
        keys = choose_shots(data.train.keys, count, job.draw, job.dataset, data.category)
        plan, seed = plan_of(job.config), job.config.seed
        shots = data.train.select(keys)
        return self._bank(job).get(data, shots, origin, copies=plan, seed=seed)[0]

    def tests(self, job: Job) -> tuple[Features, list[Truth]]:
        """Tokens and truth of the test scans, transformed as the job says."""
        data, _, origin = open_job(job)
        return self._bank(job).get(data, data.test, origin, job.transform)

    def views(self, job: Job, keys: Sequence[str]) -> list[Views]:
        """Pictures of some test scans, as the encoder sees them."""
        data, streams, _ = open_job(job)
        config = replace(job.settled, modalities=streams)
        found = read_ahead(changed(data.test, keys, job.transform), config, BATCH, None)
        return [views for _, views in found]

    def _bank(self, job: Job) -> Bank:
        config, (_, streams, _) = job.settled, open_job(job)
        encoder = encoder_of(config)
        key = (id(encoder), config.background, config.geometry, streams)
        if key not in self._banks:
            self._banks[key] = Bank(config, encoder, streams, self._cache)
        return self._banks[key]


def fit(jobs: Sequence[Job], shots: Sequence[Features]) -> list[PIRN]:
    """The trained detectors of jobs of one config, all of them trained together."""
    config = jobs[0].settled
    encoder = encoder_of(config)
    detectors = [PIRN(replace(config, seed=job.config.seed), encoder=encoder) for job in jobs]
    fit_models(detectors, shots, [str(k) for k in range(len(jobs))])
    return detectors


class _Work:
    """Trains and judges, and tells how far it has come."""

    def __init__(
        self,
        cache: Path,
        places: Mapping[Job, Path],
        judge: Judge,
        say: Callable[[str], None],
        cost: Mapping[Job, float],
    ):
        self.desk = Desk(cache)
        self._places, self._judge_outcomes, self._say, self._cost = places, judge, say, cost
        self._total, self._done, self._count = sum(cost.values()), 0.0, 0
        self._start = time.monotonic()
        self._config: Config | None = None

    def do(self, models: Sequence[Sequence[Job]]) -> dict[Job, dict[str, Any]]:
        """Train models of one config together, and judge each by its jobs."""
        config = replace(models[0][0].settled, background="auto")
        if config != self._config:
            jax.clear_caches()  # programs of another config; kept, they fill the memory
            self._config = config
        features = [self.desk.shots(judged[0]) for judged in models]
        start = time.perf_counter()
        detectors = fit([judged[0] for judged in models], features)
        training = (time.perf_counter() - start) / len(models)
        found = {}
        for detector, judged in zip(detectors, models, strict=True):
            for job in judged:
                found[job] = self._judge(detector, job, training / len(judged))
        return found

    def _judge(self, detector: PIRN, job: Job, training: float) -> dict[str, Any]:
        tokens, truths = self.desk.tests(job)
        start = time.perf_counter()
        outcomes = list(detector.judge_features(tokens))
        found = self._judge_outcomes(outcomes, truths)
        seconds = {"training": training, "judging": time.perf_counter() - start}
        document = {
            "format": FORMAT,
            "job": identity(job),
            "data": "generated" if job.dataset == "synthetic" else "real",
            "encoder": {"name": detector.encoder.config.name, "demo": detector.demo},
            **found,
            "seconds": seconds,
            "code": source_hash(),
            "environment": environment(),
        }
        write_json(self._places[job], document)
        self._tell(job, document["figures"])
        return document

    def _tell(self, job: Job, figures: Mapping[str, float]) -> None:
        self._done += self._cost[job]
        self._count += 1
        spent = time.monotonic() - self._start
        left = spent * (self._total / self._done - 1) if self._done else 0.0
        short = {"i_auroc": "I", "p_auroc": "P", "aupro_0.3": "PRO"}
        said = "  ".join(f"{short[k]} {figures[k]:.3f}" for k in short if k in figures)
        self._say(f"[{self._count}/{len(self._cost)}, {clock(left)} left] {describe(job)}: {said}")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        document = read_object(path)
    except BadInputError:
        return None
    return document if document.get("format") == FORMAT else None
