"""How far something is, for logs and for people."""

import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pirn_jax import progress
from pirn_jax.progress import progress_bars, shown_progress


def test_where_there_is_no_terminal_a_line_comes_now_and_then(capsys, monkeypatch):
    seconds = iter([0.0, 3.0, 10.5, 11.0, 19.0, 21.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with progress_bars() as tell:
        for done in range(1, 7):
            tell("scans", done, 6, "part_17" if done == 2 else "")
    said = capsys.readouterr().err.splitlines()
    assert said == ["scans 2/6, 10 s, part_17", "scans 5/6, 21 s", "scans 6/6, 60 s"]


def test_a_terminal_has_bars(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes it for a terminal
    before = logging.getLogger("pirn_jax").handlers
    with progress_bars() as tell:
        tell("shots", 1, 2, "")
        logging.getLogger("pirn_jax").warning("odd")
    said = capsys.readouterr().err
    assert "1/2" in said
    assert "odd" in said
    assert logging.getLogger("pirn_jax").handlers == before


@pytest.mark.parametrize(
    ("wanted", "notebook", "shown"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_from_python_it_is_shown_in_notebooks_or_where_wanted(wanted, notebook, shown, monkeypatch):
    told = []
    console = SimpleNamespace(is_jupyter=notebook, is_terminal=False)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    monkeypatch.setattr(
        progress, "_bars", lambda console: nullcontext(lambda *words: told.append(words))
    )
    monkeypatch.setattr(progress, "_lines", lambda console: lambda *words: told.append(words))
    with shown_progress(wanted) as tell:
        tell("shots", 1, 2, "")
    assert told == ([("shots", 1, 2, "")] if shown else [])
