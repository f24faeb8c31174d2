"""The log that loses nothing: accepted → judged or failed → delivered to each sink.

SQLite in write-ahead mode, synced at every step, so that whichever line the process dies at, the
next one finds each request in one of these states and goes on from there:

* accepted: its files lie in `requests/<id>/`; it is judged again, at most `TRIES` times, so that a
  part that kills the process does not do so for ever;
* judged, or failed with an error: its record is here, and a delivery for each sink;
* delivered to a sink: it is not sent there again.

A delivery that was made and not yet written down when the process died is made again: sinks get
every record at least once, with its `id`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pirn_jax.deploy.service.judge import Part
from pirn_jax.errors import MachineError
from pirn_jax.report.schema import Document

TRIES = 3
"""Times that a part is judged, where the process ended while it was."""
Mark = Literal["false_alarm", "missed"]
State = Literal["accepted", "judged", "failed"]
FORMAT = 1
_ANOTHER = "name another folder with --state"
_REQUEST = re.compile("[0-9a-f]{24}")  # as `pirn_jax.deploy.service.intake` names them

_TABLES = """
CREATE TABLE requests (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  source TEXT NOT NULL,
  origin TEXT UNIQUE,
  accepted TEXT NOT NULL,
  files TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'accepted',
  tries INTEGER NOT NULL DEFAULT 0,
  label INTEGER,
  record TEXT,
  mark TEXT,
  kept INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX unfinished ON requests (number) WHERE state = 'accepted';
CREATE INDEX kept ON requests (number) WHERE kept = 1;
CREATE TABLE deliveries (
  number INTEGER NOT NULL REFERENCES requests (number),
  sink TEXT NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '',
  done INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (number, sink)
);
CREATE INDEX undelivered ON deliveries (sink, due) WHERE done = 0;
"""


class Delivery(NamedTuple):
    """A record that is to go to a sink, and how often that has failed."""

    number: int
    id: str
    tries: int
    record: Document


class Journal:
    """The log of a service, in a folder of its own.

    Args:
        folder: made if missing.

    Raises:
        MachineError: what lies there is no log of this version, or parts without their log.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.requests = folder / "requests"
        self.requests.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        path = folder / "journal.sqlite"
        try:
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._base.row_factory = sqlite3.Row
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if any(self.requests.iterdir()):  # they would be taken for ones never accepted
                    raise MachineError(
                        "parts without their log",
                        "put journal.sqlite back, or name another folder with --state",
                        self.requests,
                    )
                with self._step() as base:
                    for statement in filter(str.strip, _TABLES.split(";")):
                        base.execute(statement)
                    base.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.DatabaseError as error:
            raise MachineError(f"the log cannot be opened: {error}", _ANOTHER, path) from error
        if version not in (0, FORMAT):
            raise MachineError(f"a log of format {version}, expected {FORMAT}", _ANOTHER, path)

    def close(self) -> None:
        """To be opened again."""
        with self._lock:
            self._base.close()

    @contextlib.contextmanager
    def _step(self) -> Iterator[sqlite3.Connection]:
        """All of it, on disk, or nothing.

        Raises:
            MachineError: the disk, or another process, keeps it from being written.
        """
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                yield self._base
                self._base.execute("COMMIT")
            except BaseException as error:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise MachineError(
                        f"the log cannot be written: {error}", "see to the disk", self.folder
                    ) from error
                raise

    def _ask(self, question: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._base.execute(question, values).fetchall()

    # --- a request's way

    def place(self, request: str) -> Path:
        """The folder of a request's files and pictures."""
        return self.requests / request

    def accept(self, part: Part, *, source: str, time: str, origin: str | None = None) -> None:
        """Write down a part whose files lie in its place; from now on it will have its verdict.

        Args:
            part: with files in `place(part.id)`.
            source: http or folder.
            time: when it came.
            origin: of a file that is to be accepted once only.
        """
        files = json.dumps({role: path.name for role, path in part.files.items()})
        with self._step() as base:
            base.execute(
                "INSERT INTO requests (id, key, model, source, origin, accepted, files)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (part.id, part.key, part.model, source, origin, time, files),
            )

    def begin(self, requests: Sequence[str]) -> None:
        """Write down that these are being judged."""
        with self._step() as base:
            base.executemany(
                "UPDATE requests SET tries = tries + 1 WHERE id = ?", [(r,) for r in requests]
            )

    def finish(self, request: str, record: Document, sinks: Sequence[str]) -> Document:
        """Write down a verdict, or the error in its place, and that it is to be delivered.

        Returns:
            The record, with the request's id.
        """
        record = {"id": request, **record}
        state: State = "failed" if "error" in record else "judged"
        text = json.dumps(record, allow_nan=False)
        with self._step() as base:
            base.execute(
                "UPDATE requests SET state = ?, label = ?, record = ? WHERE id = ?",
                (state, record.get("label"), text, request),
            )
            base.executemany(
                "INSERT INTO deliveries (number, sink) SELECT number, ? FROM requests WHERE id = ?",
                [(sink, request) for sink in sinks],
            )
        return record

    def unfinished(self) -> list[tuple[Part, int]]:
        """What was accepted and has no verdict, the oldest first; and how often it was tried."""
        rows = self._ask("SELECT * FROM requests WHERE state = 'accepted' ORDER BY number")
        return [(self._part(row), row["tries"]) for row in rows]

    def _part(self, row: sqlite3.Row) -> Part:
        place = self.place(row["id"])
        files = {role: place / name for role, name in json.loads(row["files"]).items()}
        return Part(row["id"], row["key"], row["model"], files)

    def has_seen(self, origin: str) -> bool:
        """Whether a file was accepted before."""
        return bool(self._ask("SELECT 1 FROM requests WHERE origin = ?", origin))

    # --- deliveries

    def due(self, sink: str, now: float, most: int = 20) -> list[Delivery]:
        """What is to be delivered to a sink by now, the oldest first."""
        rows = self._ask(
            "SELECT d.number, r.id, d.tries, r.record FROM deliveries d JOIN requests r USING"
            " (number) WHERE d.done = 0 AND d.sink = ? AND d.due <= ? ORDER BY d.number LIMIT ?",
            sink,
            now,
            most,
        )
        return [Delivery(r["number"], r["id"], r["tries"], json.loads(r["record"])) for r in rows]

    def delivered(self, delivery: Delivery, sink: str) -> None:
        """Write down that a sink has it."""
        with self._step() as base:
            base.execute(
                "UPDATE deliveries SET done = 1, error = '' WHERE number = ? AND sink = ?",
                (delivery.number, sink),
            )

    def postpone(self, delivery: Delivery, sink: str, error: str, due: float) -> None:
        """Write down that a sink did not take it, and when it is tried again."""
        with self._step() as base:
            base.execute(
                "UPDATE deliveries SET tries = tries + 1, error = ?, due = ?"
                " WHERE number = ? AND sink = ?",
                (error, due, delivery.number, sink),
            )

    def undelivered(self) -> dict[str, int]:
        """How many records wait, by sink."""
        rows = self._ask("SELECT sink, COUNT(*) AS n FROM deliveries WHERE done = 0 GROUP BY sink")
        return {row["sink"]: row["n"] for row in rows}

    # --- what is asked of it

    def result(self, request: str) -> Document | None:
        """What is known of one request; None for an unknown one."""
        rows = self._ask("SELECT * FROM requests WHERE id = ?", request)
        return _document(rows[0]) if rows else None

    def results(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        verdict: Literal["ok", "not_ok", "failed"] | None = None,
        mark: Mark | None = None,
        model: str | None = None,
        text: str = "",
        most: int = 50,
    ) -> list[Document]:
        """Requests, the newest first.

        Args:
            before: with smaller numbers than this.
            after: with larger ones.
            verdict: of this kind.
            mark: with this mark.
            model: judged by this one.
            text: in their keys.
            most: so many.
        """
        asked, values = ["1"], []
        for condition, value in (
            ("number < ?", before),
            ("number > ?", after),
            ("mark = ?", mark),
            ("model = ?", model),
            ("instr(lower(key), lower(?)) > 0", text or None),
        ):
            if value is not None:
                asked.append(condition)
                values.append(value)
        kinds = {
            "ok": "state = 'judged' AND label = 0",
            "not_ok": "label = 1",
            "failed": "state = 'failed'",
        }
        if verdict is not None:
            asked.append(kinds[verdict])
        # With `after`, the next ones after it, so that whoever follows along misses none.
        order = "ASC" if after is not None else "DESC"
        rows = self._ask(
            f"SELECT * FROM requests WHERE {' AND '.join(asked)} ORDER BY number {order} LIMIT ?",
            *values,
            most,
        )
        return [_document(row) for row in (reversed(rows) if after is not None else rows)]

    def mark(self, request: str, mark: Mark | None) -> bool:
        """Mark a verdict as wrong, or take that back; False for an unknown request."""
        with self._step() as base:
            done = base.execute("UPDATE requests SET mark = ? WHERE id = ?", (mark, request))
            return done.rowcount == 1

    def prunable(self, keep: int, sink: str | None = None) -> list[str]:
        """Requests whose files are older than the newest so many, not marked, and of no more use.

        Args:
            keep: so many.
            sink: that takes pictures: what it has not yet is kept for it.
        """
        rows = self._ask(
            "SELECT id FROM requests WHERE kept = 1 AND mark IS NULL AND state != 'accepted'"
            " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.number = requests.number AND"
            " d.done = 0 AND d.sink = ?) ORDER BY number DESC LIMIT -1 OFFSET ?",
            sink,
            keep,
        )
        return [row["id"] for row in rows]

    def pruned(self, requests: Sequence[str]) -> None:
        """Write down that their files are gone."""
        with self._step() as base:
            base.executemany("UPDATE requests SET kept = 0 WHERE id = ?", [(r,) for r in requests])

    def unaccepted(self) -> list[Path]:
        """Folders of parts that were never accepted, as the process ended before."""
        named = [place for place in self.requests.iterdir() if _REQUEST.fullmatch(place.name)]
        accepted = "SELECT 1 FROM requests WHERE id = ?"
        return [place for place in named if not self._ask(accepted, place.name)]


def _document(row: sqlite3.Row) -> Document:
    names = ("number", "id", "key", "model", "source", "accepted", "state", "mark")
    record = None if row["record"] is None else json.loads(row["record"])
    return {**{n: row[n] for n in names}, "kept": bool(row["kept"]), "record": record}
