"""Many inputs in processes that may crash or hang: what is left of their part goes on in others."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.judging import FINDINGS, OUTCOMES, Judge, Kind

PATIENCE = 600.0  # seconds by the clock, on a busy machine, until an input is called a hang


def all_kinds() -> list[Kind]:
    """Every reader there is."""
    from tests.fuzz import folders, scans

    return [*scans.kinds(), *folders.kinds()]


def shares(kinds: Sequence[Kind], inputs: int) -> list[int]:
    """How many inputs each kind gets."""
    total = sum(kind.share for kind in kinds)
    return [max(1, round(inputs * kind.share / total)) for kind in kinds]


class Finding(NamedTuple):
    """An input that was not dealt with as it should be."""

    kind: str
    number: int
    outcome: str
    detail: str


class Found(NamedTuple):
    """What came of all inputs: how many of each of `OUTCOMES` by kind, and the findings."""

    counts: dict[str, dict[str, int]]
    findings: list[Finding]


class _Part(NamedTuple):
    """Inputs of one kind, [first, last)."""

    kind: str
    first: int
    last: int


def run(
    wanted: dict[str, int], seed: int, jobs: int, kinds: Callable[[], list[Kind]] = all_kinds
) -> Found:
    """Judge so many inputs of each kind, in so many processes.

    Args:
        wanted: inputs by kind.
        seed: of all of them.
        jobs: processes.
        kinds: makes the kinds in each process.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as report:
        watchers = []
        for job in range(jobs):
            parts = [
                _Part(name, number * job // jobs, number * (job + 1) // jobs)
                for name, number in wanted.items()
            ]
            watchers.append(threading.Thread(target=_watch, args=(kinds, parts, seed, report.name)))
            watchers[-1].start()
        for watcher in watchers:
            watcher.join()
        lines = [json.loads(line) for line in Path(report.name).read_text().splitlines()]
    counts = {name: dict.fromkeys(OUTCOMES, 0) for name in wanted}
    findings = []
    for name, number, outcome, detail in lines:
        if outcome in FINDINGS:
            findings.append(Finding(name, number, outcome, detail))
            counts[name][outcome] += 1
        else:
            counts[name][outcome] += number
    return Found(counts, findings)


def _watch(kinds: Callable[[], list[Kind]], parts: list[_Part], seed: int, report: str) -> None:
    """Have a part done by a process; start another behind each input that ended or hung one."""
    context = multiprocessing.get_context("spawn")
    while parts:
        at = context.Array("d", 3)  # part, input, and when it began; 0 between inputs
        process = context.Process(target=_work, args=(kinds, parts, seed, at, report))
        process.start()
        hung = False
        while process.is_alive():
            process.join(1.0)
            if at[2] and time.monotonic() - at[2] > PATIENCE:
                hung = True
                process.kill()
        if process.exitcode == 0:
            return
        place, number = int(at[0]), int(at[1])
        if not at[2]:
            _tell(report, parts[place].kind, number, "crash", "while its kind was made ready")
            return
        outcome = "hang" if hung else "crash"
        _tell(report, parts[place].kind, number, outcome, f"exit code {process.exitcode}")
        parts = [parts[place]._replace(first=number + 1), *parts[place + 1 :]]


def _work(
    make: Callable[[], list[Kind]],
    parts: list[_Part],
    seed: int,
    at: SynchronizedArray,
    report: str,
) -> None:
    """Judge a part; where it stands is kept in shared memory, which outlives a crash."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff says there what it thinks of each file
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    kinds = {kind.name: kind for kind in make()}
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        for place, (name, first, last) in enumerate(parts):
            at[0], at[1] = place, first
            judge, sound = Judge(kinds[name], Path(folder) / "inputs", seed), {}
            for number in range(first, last):
                at[1], at[2] = number, time.monotonic()
                verdict = judge.judge(number)
                at[2] = 0.0
                if verdict.outcome in FINDINGS:
                    _tell(report, name, number, verdict.outcome, verdict.detail)
                else:
                    sound[verdict.outcome] = sound.get(verdict.outcome, 0) + 1
                if sum(sound.values()) >= 1000:
                    _count(report, name, sound)
            _count(report, name, sound)


def _count(report: str, kind: str, sound: dict[str, int]) -> None:
    for outcome, number in sound.items():
        _tell(report, kind, number, outcome, "")
    sound.clear()


def _tell(report: str, kind: str, number: int, outcome: str, detail: str) -> None:
    with open(report, "a", encoding="utf-8") as lines:
        lines.write(json.dumps([kind, number, outcome, detail]) + "\n")
