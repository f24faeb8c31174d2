"""Parts that people marked as false alarms on the service's page: good scans, with their files.

They lie in the folder of its log (`serve --state`): `journal.sqlite` says which, and their files
are in `requests/<id>/`. The log is read, never written; the service may run meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Entry
from pirn_jax.scans.formats.files import File, join_inside

_LOG = "journal.sqlite"
_MARKED = (
    "SELECT id, model, files FROM requests WHERE mark = 'false_alarm' AND kept = 1 ORDER BY number"
)


def is_log(folder: Path) -> bool:
    """Whether the folder is a service's."""
    return (folder / _LOG).is_file()


def list_marked(folder: Path, model: str) -> list[Entry]:
    """The false alarms whose files are there; their keys are the requests' ids.

    Args:
        folder: of the log.
        model: whose they are, where the log has those of several.

    Raises:
        BadInputError: the log cannot be read.
    """
    path = folder / _LOG
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            rows = base.execute(_MARKED).fetchall()
        several = len({row[1] for row in rows}) > 1
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
            for request, name, files in rows
            if name == model or not several
        ]
    except (sqlite3.Error, ValueError, AttributeError) as error:
        raise BadInputError(f"the log cannot be read: {error}", "name another", path) from error
