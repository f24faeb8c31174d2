"""Damaged files give what they hold, or the one error: every reader, and the fuzzer itself.

`python -m tests.fuzz --inputs 1000000` is the long run; docs/reliability.md has its figures.
"""

import logging
import os
import time
import warnings

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from tests.fuzz import running
from tests.fuzz.judging import FINDINGS, SOUND, Judge, Kind
from tests.fuzz.mutations import mutate

INPUTS = 5000  # of all kinds, in the fast run


@pytest.fixture(scope="module")
def kinds():
    return running.all_kinds()


@pytest.fixture(scope="module")
def verdicts(kinds, tmp_path_factory):
    """Of every kind, what came of its inputs."""
    found = {}
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, number in zip(kinds, running.shares(kinds, INPUTS), strict=True):
            judge = Judge(kind, tmp_path_factory.mktemp("fuzz") / "inputs", seed=0)
            found[kind.name] = [judge.judge(n) for n in range(number)]
    logging.disable(logging.NOTSET)
    return found


def test_every_damaged_file_is_read_or_refused(verdicts):
    wrong = {
        (name, place): verdict
        for name, some in verdicts.items()
        for place, verdict in enumerate(some)
        if verdict.outcome not in SOUND
    }
    assert wrong == {}
    outcomes = [verdict.outcome for some in verdicts.values() for verdict in some]
    assert min(outcomes.count(name) for name in SOUND) > INPUTS / 10  # both ends are reached


def test_the_same_number_is_the_same_input(kinds, tmp_path):
    (kind,) = [kind for kind in kinds if kind.name == "NPZ points"]
    written = []
    for _ in range(2):
        judge = Judge(kind, tmp_path / "inputs", seed=3)
        judge.damage(17)
        written.append((tmp_path / "inputs" / "a.npz").read_bytes())
    assert written[0] == written[1]
    assert written[0] not in [files["a.npz"] for files in kind.sound]


def test_changes_reach_behind_checksums():
    """A share of damaged pictures and archives is whole for who only looks at sums."""
    import io
    import random
    import zipfile

    from tests.scans.hostile.clouds import SOUND_NPZ

    whole = 0
    for seed in range(60):
        data = mutate(SOUND_NPZ, random.Random(seed))
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                whole += archive.testzip() is None and data != SOUND_NPZ
        except Exception:
            continue
    assert whole > 15


# Readers with a fault each, which the fuzzer must find.


def careless(folder):
    raise KeyError("x")


def silent(folder):
    return (folder / "a").read_bytes()


def slow(folder):
    until = time.process_time() + 2.1
    while time.process_time() < until:
        pass


def greedy(folder):
    np.ones(100 << 20, np.uint8)


def nameless(folder):
    raise BadInputError("bad", "mend it")


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (careless, "foreign"),
        (nameless, "unnamed"),
        (silent, "changed"),
        (slow, "hang"),
        (greedy, "memory"),
    ],
)
def test_a_reader_that_does_wrong_is_found(tmp_path, read, outcome):
    def sound_when_whole(folder):
        return "sound" if (folder / "a").read_bytes() == b"sound" else read(folder)

    kind = Kind("a", [{"a": b"sound"}], sound_when_whole, sealed=True)
    judge = Judge(kind, tmp_path / "inputs", seed=0)
    assert outcome in [judge.judge(number).outcome for number in range(2)]
    assert outcome in FINDINGS


def die(folder):
    if (folder / "a").read_bytes() != b"sound":
        os.abort()


def planted():
    return [Kind("deadly", [{"a": b"sound"}], die), Kind("tame", [{"a": b"sound"}], str)]


def test_a_reader_that_ends_its_process_is_found_and_the_rest_goes_on():
    found = running.run({"deadly": 2, "tame": 5}, seed=0, jobs=1, kinds=planted)
    assert found.counts["deadly"]["crash"] == 2
    assert found.counts["tame"]["read"] == 5
    assert {finding.number for finding in found.findings} == {0, 1}


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused():
    kinds = running.all_kinds()
    wanted = dict(zip((k.name for k in kinds), running.shares(kinds, 60_000), strict=True))
    found = running.run(wanted, seed=1, jobs=1)
    assert found.findings == []
    assert sum(sum(row.values()) for row in found.counts.values()) == sum(wanted.values())
