"""The bounded queue: what arrives together is judged together, and what does not fit is refused.

One thread judges. It takes the oldest part, waits a few milliseconds for others of its model, and
hands them to the judge in one call. A slot is taken before a part's files are read and given back
when its verdict is written down, so the queue bounds memory and disk as well as waiting.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from pirn_jax.deploy.service.journal import TRIES, Journal
from pirn_jax.deploy.service.judge import Judged, Part, Served
from pirn_jax.deploy.service.measures import Measures
from pirn_jax.deploy.service.pictures import write_pictures
from pirn_jax.deploy.service.sinks import FolderSink
from pirn_jax.detector.records import not_judged
from pirn_jax.errors import BadInputError, MachineError, PirnError
from pirn_jax.report.schema import Document

_log = logging.getLogger("pirn_jax")
_PRUNE_EVERY = 32  # verdicts


class _Waiting(NamedTuple):
    part: Part
    since: float
    future: Future[Document]
    alone: bool = False


class Batcher:
    """The queue and the thread that empties it.

    It begins with what an earlier process accepted and did not judge. Parts of models that are not
    served now are left for a process that serves them.

    Args:
        journal: where everything is written down.
        models: by name.
        sinks: names of those that get every record.
        measures: what is counted.
        batch: most parts a call.
        gather: seconds that the first waits for others.
        capacity: most parts that may wait, or whose files are being read.
        keep: newest parts whose files and pictures are kept; those marked always are.

    Raises:
        OSError: what an earlier process left cannot be read, or written to.
    """

    def __init__(
        self,
        journal: Journal,
        models: Mapping[str, Served],
        *,
        sinks: Sequence[str] = (),
        measures: Measures,
        batch: int = 4,
        gather: float = 0.004,
        capacity: int = 64,
        keep: int = 500,
    ):
        self._journal, self._models, self._sinks = journal, models, tuple(sinks)
        self._measures, self._batch, self._gather = measures, batch, gather
        self._slots = threading.BoundedSemaphore(capacity)
        self._keep, self._since_pruned = keep, 0
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._resume()

    def _resume(self) -> None:
        for folder in self._journal.unaccepted():
            shutil.rmtree(folder, ignore_errors=True)
        unserved: Counter[str] = Counter()
        for part, tries in self._journal.unfinished():
            if part.model not in self._models:
                unserved[part.model] += 1
            elif tries >= TRIES:
                error = MachineError(
                    f"the process ended {tries} times while it was judged", "see to it"
                )
                self._finish(part, error)
            else:  # alone, if it was being judged when the process ended: it may have ended it
                self._put(part, alone=tries > 0)
        for model, count in unserved.items():
            _log.warning("parts that wait until the model %s is served again: %d", model, count)
        for sink, count in self._journal.undelivered().items():
            if sink not in self._sinks:
                _log.warning("records that wait until the sink %s is given again: %d", sink, count)

    def start(self) -> None:
        """Begin to judge."""
        self._thread.start()

    def stop(self) -> None:
        """Judge what waits, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Parts in the queue."""
        return len(self._queue)

    def take_slot(self, *, wait: float | None = None) -> bool:
        """Take a place in the queue; False where there is none, after so many seconds."""
        return self._slots.acquire(blocking=wait is not None, timeout=wait)

    def free_slot(self) -> None:
        """Give back a place for which no part was put in."""
        self._slots.release()

    def put(self, part: Part) -> Future[Document]:
        """Queue a part that was accepted and has a slot; the future is its record, once written."""
        future = self._put(part)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def _put(self, part: Part, *, alone: bool = False) -> Future[Document]:
        waiting = _Waiting(part, time.monotonic(), Future(), alone)
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._judge(batch)
            except Exception as error:
                for waiting in batch:
                    if not waiting.future.done():
                        self._unwritten(waiting, error)

    def _unwritten(self, waiting: _Waiting, error: Exception) -> None:
        """No verdict could be written down, as on a full disk: it is judged after a restart."""
        _log.error("%s: not written down", waiting.part.key, exc_info=error)
        waiting.future.set_exception(error)

    def _next(self) -> list[_Waiting]:
        """The next parts of one model; none when all is done and the end has come."""
        with self._changed:
            while not self._queue:
                if self._stopping:
                    return []
                self._changed.wait()
            end = time.monotonic() + self._gather
            while len(self._queue) < self._batch and not self._stopping:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if self._queue[0].alone:
                return [self._queue.popleft()]
            model, taken, others = self._queue[0].part.model, [], []
            while self._queue and len(taken) < self._batch:
                waiting = self._queue.popleft()
                joins = waiting.part.model == model and not waiting.alone
                (taken if joins else others).append(waiting)
            self._queue.extendleft(reversed(others))
            return taken

    def _judge(self, batch: list[_Waiting]) -> None:
        parts = [waiting.part for waiting in batch]
        self._journal.begin([part.id for part in parts])
        start = time.monotonic()
        outcomes = self._outcomes(parts)
        self._measures.judged(len(batch), time.monotonic() - start)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            try:
                record = self._finish(waiting.part, outcome)
            except Exception as error:  # of this part; the others have their verdicts
                self._unwritten(waiting, error)
                continue
            self._measures.finished(record, time.monotonic() - waiting.since)
            waiting.future.set_result(record)
        self._since_pruned += len(batch)
        if self._since_pruned >= _PRUNE_EVERY:
            self._since_pruned = 0
            self._prune()

    def _outcomes(self, parts: list[Part]) -> list[Judged | PirnError]:
        try:
            return self._models[parts[0].model].judge.judge(parts)
        except Exception as error:
            if len(parts) > 1:  # one of them must not take the others with it
                return [outcome for part in parts for outcome in self._outcomes([part])]
            _log.exception("%s: unforeseen", parts[0].key)
            reason = str(error).partition("\n")[0][:200]
            return [MachineError(f"unforeseen: {type(error).__name__}: {reason}", "report it")]

    def _finish(self, part: Part, outcome: Judged | PirnError) -> Document:
        if isinstance(outcome, PirnError):
            record: Document = error_record(part, outcome)
        else:
            write_pictures(self._journal.place(part.id), outcome.shown)
            record = outcome.record
        return self._journal.finish(part.id, record, self._sinks)

    def _prune(self) -> None:
        sink = FolderSink.name  # it alone takes pictures, the others take records
        old = self._journal.prunable(self._keep, sink if sink in self._sinks else None)
        for request in old:
            shutil.rmtree(self._journal.place(request), ignore_errors=True)
        self._journal.pruned(old)


def error_record(part: Part, error: PirnError) -> Document:
    """The record of a part that could not be judged: that of `predict`, and as an answer of HTTP.

    It names files by role, not by place.
    """
    place = "" if error.path is None else error.path.rsplit("/", 1)[-1]
    kind = "input" if isinstance(error, BadInputError) else "machine"
    return {
        **not_judged(part.key, error),
        "error": error.problem,
        "remedy": error.remedy,
        "file": place,
        "kind": kind,
    }
