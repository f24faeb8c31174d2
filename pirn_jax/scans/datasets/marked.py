"""Parts that people marked as false alarms on the service's page: good scans, with their files.

They lie in the folder of its log (`serve --state`): `journal.sqlite` says which, and their files
are in `requests/<id>/`. The log is read, never written; the service may run meanwhile.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from pirn_jax.errors import BadInputError, printable
from pirn_jax.scans.datasets.dataset import Entry
from pirn_jax.scans.formats.files import File, join_inside

_LOG = "journal.sqlite"
_KEPT = "SELECT id, model, files, mark FROM requests WHERE kept = 1 ORDER BY number LIMIT 1000000"
_NAMES = "SELECT DISTINCT model FROM requests LIMIT 1000"
_log = logging.getLogger("pirn_jax")


def is_log(folder: Path) -> bool:
    """Whether the folder is a service's."""
    return (folder / _LOG).is_file()


def list_marked(folder: Path, model: str, ids: Collection[str] | None = None) -> list[Entry]:
    """The false alarms whose files are there; their keys are the requests' ids.

    Args:
        folder: of the log.
        model: whose they are, where the log has parts of several.
        ids: these, whosever they are and whatever they are marked as now; None: what is marked.

    Raises:
        BadInputError: the log cannot be read.
    """
    path = folder / _LOG
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            kept = base.execute(_KEPT).fetchall()
            several = len(base.execute(_NAMES).fetchall()) > 1
        if ids is None:
            marked = [row for row in kept if row[3] == "false_alarm"]
            rows = [row for row in marked if row[1] == model or not several]
            if len(rows) < len(marked):
                others = sorted({str(row[1]) for row in marked} - {model})
                count, named = len(marked) - len(rows), printable(", ".join(others))
                _log.warning("%d marked parts are of %s, not of %s: left out", count, named, model)
        else:
            rows = [row for row in kept if row[0] in ids]
        return [
            Entry(
                str(request),
                {
                    str(role): File(
                        join_inside(folder / "requests", f"{request}/{name}", path),
                        root=folder,
                    )
                    for role, name in json.loads(files).items()
                },
            )
            for request, _, files, _ in rows
        ]
    except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
        raise BadInputError(f"the log cannot be read: {error}", "name another", path) from error
