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

import functools
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.bank import Bank, Transform, Truth, encoder_of, source_hash
from experiments.estimate import Estimate
from experiments.judgement import judge
from pirn_jax.config import Config, TrainConfig
from pirn_jax.detector import PIRN, fit_models
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.judging import Outcome, plan_of
from pirn_jax.runs import environment, start_caches
from pirn_jax.saved import read_object, write_json
from pirn_jax.scans import Dataset, choose_shots, open_dataset

FORMAT = "pirn_jax experiment 1"
TOGETHER = 24
"""Models trained in one call: what a kill can cost, and what memory must hold."""
Judge = Callable[[Sequence[Outcome], Sequence[Truth]], dict[str, Any]]
_GENERATED = {"train": 50, "validation": 0, "test": 60}


@dataclass(frozen=True)
class Job:
    """One detector on one category.

    Attributes:
        config: the detector; its seed is that of the initialisation.
        category: as the dataset spells it.
        dataset: as for `open_dataset`.
        data_root: the folder of its categories.
        shots: how many good scans to learn from; 0: all.
        draw: seed of the choice of shots.
        shift: name of what is done to the test scans; "none".
        transform: does it, scan by scan: a function of a module, or a `functools.partial` of one.
        options: for `open_dataset`, as pairs: (("test", 20), ("size", 128)).
        tags: whatever a table wants to find the job by; no part of what defines it.
    """

    config: Config
    category: str
    dataset: str = "synthetic"
    data_root: str | None = None
    shots: int = 5
    draw: int = 0
    shift: str = "none"
    transform: Transform | None = field(default=None, compare=False)
    options: tuple[tuple[str, Any], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if (self.shift == "none") != (self.transform is None):
            raise ConfigError(
                f"shift {self.shift!r} with transform {self.transform}",
                "give a transform and a name other than none, or neither",
            )

    @property
    def settled(self) -> Config:
        """The detector with its background decided by the dataset, and seed 0."""
        config = replace(self.config, seed=0)
        run = TrainConfig(dataset=self.dataset, detector=config)
        return replace(config, background=run.background)


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


def grid(
    configs: Iterable[Config],
    categories: Iterable[str],
    *,
    shots: Iterable[int] = (5,),
    draws: Iterable[int] = (0,),
    seeds: Iterable[int] = (0,),
    shifts: Mapping[str, Transform | None] | None = None,
    **same: Any,
) -> list[Job]:
    """Every combination, as jobs.

    Args:
        configs: detectors.
        categories: of the dataset.
        shots: numbers of shots.
        draws: seeds of the shots.
        seeds: of the initialisation.
        shifts: transformations of the test scans by name, "none": None among them where unchanged
            scans are wanted too; without it they alone.
        **same: further fields of every job.
    """
    found = []
    whole = itertools.product(configs, categories, shots, draws, seeds, (shifts or {"none": None}))
    for config, category, k, draw, seed, shift in whole:
        change = (shifts or {}).get(shift)
        seeded = replace(config, seed=seed)
        found.append(
            Job(seeded, category, shots=k, draw=draw, shift=shift, transform=change, **same)
        )
    return found


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
    pending = list({path: job for job, path in places.items() if job not in known}.values())
    estimate = Estimate(known.items())
    cost = {job: estimate.seconds(job, encoder_of(job.config)) for job in pending}
    programs = len({json.dumps(_defined(job.settled)) for job in pending})
    say(
        f"{len(places)} jobs, {len(known)} done, {len(pending)} to do in {programs} programs: "
        f"about {_clock(sum(cost.values()) + estimate.compilation * programs)}"
    )
    if dry:
        for job in pending:
            say(f"  {describe(job)}  {cost[job]:.1f} s")
        return []
    if other := sum(document["code"] != source_hash() for document in known.values()):
        say(f"{other} of the results were made by another version of pirn_jax; to make them again, "
            f"remove them from {folder / 'jobs'}")  # fmt: skip
    work = _Work(kept, places, judge, say, cost)
    for batch in _batches(pending):
        known |= work.do(batch)
    made = {places[job]: document for job, document in known.items()}
    return [Result(job, made[places[job]]) for job in jobs]


def describe(job: Job) -> str:
    """One line."""
    c = job.config
    changed = " ".join((c.recipe, *c.change))
    where = f"{job.dataset}/{job.category} {job.shots or 'all'} shots"
    streams = "+".join(c.modalities)
    seeds = f"draw {job.draw} seed {c.seed}"
    shifted = "" if job.shift == "none" else f" under {job.shift}"
    return (
        f"{where} {c.method} [{changed}] {streams} {c.encoder} {c.image_size} px, {seeds}{shifted}"
    )


def name_of(job: Job) -> str:
    """The hash of what defines a job."""
    return hashlib.sha256(json.dumps(identity(job), sort_keys=True).encode()).hexdigest()[:24]


def identity(job: Job) -> dict[str, Any]:
    """What defines a job, as JSON; no path is part of it."""
    data, _, _ = _open(job)
    found: dict[str, Any] = {
        "detector": _defined(job.settled),
        "seed": job.config.seed,
        "dataset": job.dataset,
        "category": data.category or job.category,
        "scans": _scans(job),
        "shots": job.shots,
        "draw": job.draw,
        "shift": job.shift,
    }
    if job.transform is not None:
        from experiments.bank import transform_hash

        found["transform"] = transform_hash(job.transform)
    return found


def _defined(config: Config) -> dict[str, Any]:
    """A detector, the recipe spelled out and the encoder's weights by their hash."""
    encoder = encoder_of(config)
    document = asdict(config)
    for name in ("weights", "require_weights", "false_alarm_rate", "seed"):
        del document[name]
    document |= {
        "encoder": encoder.config.name,
        "weights": encoder.source.sha256,
        "layers": list(encoder.layers),
        "recipe": asdict(config.resolved_recipe()),
    }
    del document["change"]
    return document


def opened(job: Job) -> Dataset:
    """The scans of a job."""
    return _open(job)[0]


def _open(job: Job) -> tuple[Dataset, tuple[str, ...], str]:
    return _opened(job.dataset, job.data_root, job.category, job.options, job.config.modalities)


@functools.lru_cache(maxsize=256)
def _opened(
    dataset: str,
    root: str | None,
    category: str,
    options: tuple[tuple[str, Any], ...],
    modalities: tuple[str, ...],
) -> tuple[Dataset, tuple[str, ...], str]:
    """A category, the streams its scans have, and what they are beyond their files.

    Where both streams are there both are read, also for a detector of one: then it sees the same
    photographs, background and all, as the detector of both.
    """
    given = dict(options)
    if dataset == "synthetic":
        from pirn_jax.scans.synthetic import generator_hash

        data = open_dataset(dataset, None, category, **(_GENERATED | given))
        # Not their number: a scan is the same in a larger set.
        same = {name: given[name] for name in ("seed", "size") if name in given}
        return data, ("rgb", "normals"), json.dumps([generator_hash(), same])
    root = root or os.environ.get("PIRN_DATA")
    origin = json.dumps(given, sort_keys=True)
    if dataset == "mvtec2d":
        return open_dataset(dataset, root, category, **given), ("rgb",), origin
    if dataset == "folder":
        return open_dataset(dataset, root, category, **given), modalities, origin
    files = {"rgb": "rgb", "normals": "xyz"}
    both = ("rgb", "normals")
    for streams in dict.fromkeys((both, modalities)):
        try:
            wanted = tuple(files[name] for name in streams)
            data = open_dataset(dataset, root, category, **given, modalities=wanted)
        except BadInputError:
            if streams == modalities:
                raise
        else:
            break
    return data, streams, origin


def _scans(job: Job) -> str:
    """Hash of which scans there are: their keys, and their files' sizes where they have files."""
    data, streams, origin = _open(job)
    lines = [origin, str(streams)]
    for split in (data.train, data.test):
        for entry in split.entries:
            sizes = {role: Path(str(file)).stat().st_size for role, file in entry.files.items()}
            lines.append(json.dumps([entry.key, sizes], sort_keys=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _batches(jobs: Sequence[Job]) -> list[list[list[Job]]]:
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
        self._cache, self._places, self._say, self._cost = cache, places, say, cost
        self._judge_outcomes = judge
        self._banks: dict[Any, Bank] = {}
        self._total, self._done, self._count = sum(cost.values()), 0.0, 0
        self._start = time.monotonic()
        self._config: Config | None = None

    def do(self, models: Sequence[Sequence[Job]]) -> dict[Job, dict[str, Any]]:
        """Train models of one config together, and judge each by its jobs."""
        config = replace(models[0][0].settled, background="auto")
        if config != self._config:
            jax.clear_caches()  # programs of another config; kept, they fill the memory
            self._config = config
        encoder = encoder_of(config)
        detectors = [
            PIRN(replace(config, seed=judged[0].config.seed), encoder=encoder) for judged in models
        ]
        features = [self._shots(judged[0]) for judged in models]
        start = time.perf_counter()
        fit_models(detectors, features, [f"{k}" for k in range(len(models))])
        training = (time.perf_counter() - start) / len(models)
        found = {}
        for detector, judged in zip(detectors, models, strict=True):
            for job in judged:
                found[job] = self._judge(detector, job, training / len(judged))
        return found

    def _shots(self, job: Job) -> Any:
        data, _, origin = _open(job)
        count = job.shots or len(data.train)
        keys = choose_shots(data.train.keys, count, job.draw, job.dataset, data.category)
        plan, seed = plan_of(job.config), job.config.seed
        shots = data.train.select(keys)
        return self._bank(job).get(data, shots, origin, copies=plan, seed=seed)[0]

    def _judge(self, detector: PIRN, job: Job, training: float) -> dict[str, Any]:
        data, _, origin = _open(job)
        tokens, truths = self._bank(job).get(data, data.test, origin, job.transform)
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

    def _bank(self, job: Job) -> Bank:
        config, (_, streams, _) = job.settled, _open(job)
        encoder = encoder_of(config)
        key = (id(encoder), config.background, config.geometry, streams)
        if key not in self._banks:
            self._banks[key] = Bank(config, encoder, streams, self._cache)
        return self._banks[key]

    def _tell(self, job: Job, figures: Mapping[str, float]) -> None:
        self._done += self._cost[job]
        self._count += 1
        spent = time.monotonic() - self._start
        left = spent * (self._total / self._done - 1) if self._done else 0.0
        short = {"i_auroc": "I", "p_auroc": "P", "aupro_0.3": "PRO"}
        said = "  ".join(f"{short[k]} {figures[k]:.3f}" for k in short if k in figures)
        self._say(f"[{self._count}/{len(self._cost)}, {_clock(left)} left] {describe(job)}: {said}")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        document = read_object(path)
    except BadInputError:
        return None
    return document if document.get("format") == FORMAT else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
