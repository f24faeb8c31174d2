"""A list of scans judged by the workers of a cluster: the same results as on one machine.

The list is cut into parts of whole batches (`PIRN.look` says why their results are the same, bit
for bit). A part is a task: read, judged, and written or handed back. What a worker writes are the
pictures of its scans and, last, the part's records under `<out>/.parts/`; so a part that is there
is whole, one that is done twice is the same, and a job that is started again does what is left.
When all are there, they are put together in order, and the folder of parts goes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pirn_jax.cluster import Cluster, Steps
from pirn_jax.detector import PIRN, ScanResult
from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.preprocessing import BATCH
from pirn_jax.detector.records import calibration_id
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.geometry import Views
from pirn_jax.manifest import digest_of, is_ours
from pirn_jax.report.schema import Document
from pirn_jax.runs.folder import Progress
from pirn_jax.runs.outputs import PREDICTIONS_FORMAT, going_on, writing
from pirn_jax.runs.predictions import JUDGED_BY_THRESHOLD, Writing, in_order
from pirn_jax.runs.sources import ModelSource, loaded
from pirn_jax.scans import Scan, Split
from pirn_jax.scans.datasets.inputs import PREDICTIONS
from pirn_jax.storage import (
    open_regular,
    read_object,
    whole_file,
    write_json,
    write_whole,
)

PARTS = ".parts"
_JOB = "job.json"
BATCHES = 8
"""Of a part that is written: reading runs ahead of judging in it, and a kill costs no more."""


class Part(NamedTuple):
    """Some scans of a list.

    Attributes:
        first: the place of the first one.
        scans: of whole batches, but for the list's last.
    """

    first: int
    scans: Split

    def __str__(self) -> str:
        return f"{self.scans.keys[0]} … {self.scans.keys[-1]}"


class _Seen(NamedTuple):
    """A part, read: its batches, and why scans were left out of them, by key."""

    part: Part
    batches: list[list[tuple[Scan, Views]]]
    left_out: dict[str, PirnError]


class _Judged(NamedTuple):
    """A part, judged."""

    part: Part
    results: list[ScanResult]
    left_out: dict[str, PirnError]


class _Job(NamedTuple):
    """What all parts have in common.

    Attributes:
        source: of the model.
        batch: scans a call of the device.
        judging: rules and zones.
        place: where pictures and parts are written.
        out: what that place will be called, and is in records.
    """

    source: ModelSource
    batch: int
    judging: Judging = JUDGED_BY_THRESHOLD
    place: Path = Path()
    out: Path = Path()


def cut(scans: Split, size: int) -> Iterator[Part]:
    """The parts of a list, of so many scans."""
    for first in range(0, len(scans), size):
        yield Part(first, scans[first : first + size])


# --- results handed back --------------------------------------------------------------------------


class _OnCluster(PIRN):
    """A detector whose scans are judged by the workers of a cluster."""

    cluster: Cluster
    source: ModelSource

    def predict_scans(
        self,
        scans: Iterable[Scan],
        *,
        batch: int = BATCH,
        failed: Callable[[str, PirnError], None] | None = None,
    ) -> Iterator[ScanResult]:
        """As of `PIRN`, of a `Split`."""
        assert isinstance(scans, Split)
        steps = Steps(_read_and_judge, _read, _judge, _hand_back)
        # One batch is a part: what comes back are whole scans, and some wait for their turn.
        for judged in self.cluster.map(steps, _Job(self.source, batch), cut(scans, batch)):
            for key, error in judged.left_out.items():
                if failed is None:
                    raise error
                failed(key, error)
            yield from judged.results


def load_on(cluster: Cluster, source: ModelSource, encoder: Encoder | None = None) -> PIRN:
    """A model whose `predict_scans` is done by the workers of a cluster.

    Args:
        cluster: at work.
        source: of the model.
        encoder: one at hand; used if it is the right one.
    """
    model = source.load(encoder, _OnCluster)
    assert isinstance(model, _OnCluster)
    model.cluster, model.source = cluster, source
    return model


# --- records written by the workers ---------------------------------------------------------------


def is_unfinished(out: Path) -> bool:
    """Whether a job of `predict_on` was stopped there before its end."""
    parts = out / PARTS
    begun = parts.is_dir() and not (out / PREDICTIONS).exists()
    return (begun or (parts / _JOB).is_file()) and is_ours(out, PREDICTIONS_FORMAT)


def predict_on(
    cluster: Cluster,
    source: ModelSource,
    model: PIRN,
    scans: Split,
    out: Path,
    failed: Callable[[str, PirnError], None],
    progress: Progress | None = None,
    *,
    batch: int = 4,
    judging: Judging = JUDGED_BY_THRESHOLD,
    reading: str = "",
    resume: bool = False,
) -> Iterator[Document]:
    """`pirn_jax.runs.predict_scans` on a cluster; what an earlier call left undone, and no more.

    Args:
        cluster: at work.
        source: of the model, for the workers.
        model: the same, loaded.
        scans: to predict.
        out: folder for the records and pictures, as `check_free` has let it pass.
        failed: called with the key of each scan that cannot be used, and why.
        progress: see `Progress`.
        batch: scans a call of the device.
        judging: rules and zones.
        reading: how files are understood, in words: a job is gone on with under the same alone.
        resume: go on with the job that is unfinished there, as `is_unfinished` says.

    Yields:
        The records, in the scans' order, once all are there.

    Raises:
        ConfigError: what is unfinished there is another job.
    """
    if batch < 1:
        raise ConfigError(f"batch: expected 1 or more, got {batch}", "use 4")
    judging.check(model.looking, model.calibration is not None)
    batch = max(1, min(batch, len(scans)))
    with (going_on if resume else writing)(out, PREDICTIONS_FORMAT) as place:
        here, parts = place.absolute(), list(cut(scans, batch * BATCHES))
        _begin(here / PARTS, _identity(model, scans, batch, judging, reading, out), out)
        left = [part for part in parts if not _records_of(here, part).is_file()]
        done = len(scans) - sum(len(part.scans) for part in left)
        job = _Job(source, batch, judging, here, out)
        steps = Steps(_read_judge_and_write, _read, _judge, _write)
        for written in cluster.map(steps, job, left):
            done += written
            if progress is not None:
                progress("scans", done, len(scans), "")
        with whole_file(here / PREDICTIONS) as file, file.open("wb") as lines:
            for part in parts:
                with open_regular(_records_of(here, part)) as records:
                    shutil.copyfileobj(records, lines)
        shutil.rmtree(here / PARTS)
    with (out / PREDICTIONS).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if "not_judged" in record:
                failed(record["key"], BadInputError(record["not_judged"]))
            yield record


def _identity(
    model: PIRN, scans: Split, batch: int, judging: Judging, reading: str, out: Path
) -> str:
    """What makes two jobs the same: model, scans and how they are read, batches, rules, zones.

    And the encoder's runtime, which rounds otherwise, and the folder as it is named in records.
    """
    digest = hashlib.sha256(repr(judging.rules).encode())
    for leaf in jax.tree.leaves(judging.zones):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    files = [
        [entry.key, {role: str(file) for role, file in entry.files.items()}]
        for entry in scans.entries
    ]
    threshold = calibration_id(model.calibration)
    told = [model.model_id, model.config.runtime, threshold, batch, digest.hexdigest()]
    return digest_of([*told, reading, files, str(out)])


def _begin(folder: Path, identity: str, out: Path) -> None:
    """Say which job's parts the folder holds, or see that they are this one's."""
    if not (folder / _JOB).is_file():
        write_json(folder / _JOB, {"job": identity})
    elif read_object(folder / _JOB).get("job") != identity:
        raise ConfigError(
            "an unfinished job is there, of another model, other scans or other flags",
            "give the command it was started with again, or --overwrite, or another --out",
            out,
        )


def _records_of(place: Path, part: Part) -> Path:
    return place / PARTS / f"{part.first}.jsonl"


# --- in the workers -------------------------------------------------------------------------------


def _look(
    job: _Job, part: Part, left_out: dict[str, PirnError]
) -> Iterator[list[tuple[Scan, Views]]]:
    model = loaded(job.source)
    find_part = part_finder(model.looking, model.prepared)
    laid = part.scans.changed(lambda scan: job.judging.lay_on(scan, find_part))
    return model.look(laid, batch=job.batch, failed=left_out.__setitem__)


def _read(job: _Job, part: Part) -> _Seen:
    left_out: dict[str, PirnError] = {}
    return _Seen(part, list(_look(job, part, left_out)), left_out)


def _judge(job: _Job, seen: _Seen) -> _Judged:
    results = list(loaded(job.source).judge(seen.batches, batch=job.batch))
    return _Judged(seen.part, results, seen.left_out)


def _hand_back(job: _Job, judged: _Judged) -> _Judged:
    del job
    return judged


def _write(job: _Job, judged: _Judged) -> int:
    return _written(job, judged.part, judged.results, judged.left_out)


def _read_and_judge(job: _Job, part: Part) -> _Judged:
    left_out: dict[str, PirnError] = {}
    results = loaded(job.source).judge(_look(job, part, left_out), batch=job.batch)
    return _Judged(part, list(results), left_out)


def _read_judge_and_write(job: _Job, part: Part) -> int:
    """All three, with no more scans in memory than one machine alone would hold."""
    left_out: dict[str, PirnError] = {}
    results = loaded(job.source).judge(_look(job, part, left_out), batch=job.batch)
    return _written(job, part, results, left_out)


def _written(
    job: _Job, part: Part, results: Iterable[ScanResult], left_out: Mapping[str, PirnError]
) -> int:
    """Write pictures and, when they are there, the records; returns how many."""
    write = Writing(loaded(job.source), job.judging, job.place, str(job.out))
    records = [
        json.dumps(record) + "\n"
        for record in in_order(part.scans.keys, results, left_out, write.record)
    ]
    write_whole(_records_of(job.place, part), "".join(records).encode())
    return len(records)
