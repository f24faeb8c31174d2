"""Exit codes and last words of every command, and names that would steer the terminal."""

import errno
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pirn_jax.command import Console, exits, progress_bars, results_table, run
from pirn_jax.errors import (
    BadInputError,
    ConfigError,
    MachineError,
    MissingDependencyError,
    PirnError,
    WeightsError,
    printable,
)

ROOT = Path(__file__).resolve().parents[1]


def ended_by(error, *words):
    with pytest.raises(SystemExit) as stopped, exits(words):
        raise error
    return stopped.value.code


class DeviceError(RuntimeError):
    """As JAX's, of which the words alone tell."""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no such method", "use pirn"), 3, "no such method\n  → use pirn"),
        (BadInputError("cut short", path="a.png"), 2, "a.png: cut short"),
        (WeightsError("of another network"), 2, "of another network"),
        (PirnError("the score is not finite"), 2, "the score is not finite"),
        (MissingDependencyError("no openvino"), 4, "no openvino"),
        (MachineError("another run is writing"), 4, "another run is writing"),
        (OSError(errno.ENOSPC, "No space left", "out/a.png"), 4, "out/a.png: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", b"x"), 4, "Permission denied"),
        (MemoryError("Unable to allocate 3 TiB"), 4, "not enough memory: Unable to allocate"),
        (MemoryError(), 4, "not enough memory"),
        (DeviceError("RESOURCE_EXHAUSTED: 3 GB\nmore"), 4, "not enough memory: RESOURCE"),
        (ZeroDivisionError("division by zero\nand more"), 4, "unforeseen: ZeroDivisionError: div"),
        (RecursionError(), 4, "unforeseen: RecursionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_has_its_code_and_a_line(error, code, said, capsys):
    assert ended_by(error) == code
    words = capsys.readouterr().err
    assert words.startswith(f"error: {said}")
    assert words.count("\n") == 1 + said.count("\n")
    assert "Traceback" not in words


def test_the_traceback_is_shown_where_asked_for(capsys):
    assert ended_by(ZeroDivisionError(), "--debug") == 4
    words = capsys.readouterr().err
    assert "Traceback" in words
    assert "test_command.py" in words


def test_an_interrupt_is_no_error(capsys):
    assert ended_by(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_a_command_that_ends_well_gives_its_own_code():
    with exits(["a", "--debug", "b"]) as words:
        assert words == ["a", "b"]
    assert ended_by(SystemExit(1)) == 1


@dataclass(frozen=True)
class Options:
    """A command to try."""

    shots: int = 5
    """Some."""


def test_wrong_usage_has_its_own_code_and_help_none(capsys):
    assert run(lambda given: given.shots, Options, ["--shots", "3", "--debug"]) == 3
    for words, code in ((["--shot", "3"], 3), (["--shots", "x"], 3), (["--help"], 0)):
        with pytest.raises(SystemExit) as stopped:
            run(print, Options, words)
        assert stopped.value.code == code
    assert "--debug" in capsys.readouterr().out


def process(code: str, **more) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = "import sys\nfrom pirn_jax.command import Console, exits\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code], env=environment, stderr=subprocess.PIPE, **more
    )


@pytest.mark.parametrize(
    "line",
    [
        "with exits([]):\n    for i in range(10**6): print(i)",
        "with exits([]):\n    for i in range(10**5): Console().print(i)",
        "with exits([]):\n    sys.stdin.read(); print(1)",  # found at the very end
    ],
    ids=["print", "rich", "last"],
)
def test_a_closed_pipe_is_quiet(line):
    done = process(line, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert done.stdout is not None
    assert done.stdin is not None
    assert done.stderr is not None
    done.stdout.close()
    done.stdin.close()
    with done:
        assert done.stderr.read() == b""
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_the_machines_fault():
    with open("/dev/full", "wb") as full:
        done = process("with exits([]):\n    print(1)", stdout=full)
        _, said = done.communicate(timeout=60)
    assert done.returncode == 4
    assert said == b"error: No space left on device\n"


HOSTILE = "a\x1b[31m\x9bred\r\x07\u202egnp\udcff.png"


def test_names_do_not_steer_the_terminal(capsys, monkeypatch):
    # Not into pytest's own record either, which is sent as UTF-8 where tests run in parallel.
    monkeypatch.setattr(logging.getLogger("pirn_jax"), "propagate", False)
    shown = r"a\x1b[31m\x9bred\r\x07\u202egnp\udcff.png"
    assert printable(HOSTILE) == shown
    assert printable("Größe\t→ 3 µm\n") == "Größe\t→ 3 µm\n"
    assert ended_by(BadInputError("cut short", path=HOSTILE)) == 2
    with exits([]):
        logging.getLogger("pirn_jax").warning("%s: damaged", HOSTILE)
        Console(stderr=True, width=200).print(HOSTILE, markup=False)
    metrics = {"encoder": {"name": HOSTILE}, "categories": {HOSTILE: {"seed0": {}}}, "mean": {}}
    Console(stderr=True, width=200).print(results_table(metrics))
    with progress_bars() as tell:
        logging.getLogger("pirn_jax").warning("%s: damaged", HOSTILE)
        tell("scans", 1, 1, HOSTILE)
    said = capsys.readouterr().err
    for steering in ("\x1b[31m\x9b", "\x9b", "\u202e", "\x07"):
        assert steering not in said
    assert said.count(shown) >= 4


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ({}, "no test scans"),
        ({"a": {"seed0": {"scans": 4.0, "defective": 0.0}}}, "known to be defective"),
        ({"a": {"seed0": {"scans": 4.0, "defective": 4.0}}}, "known to be good"),
        ({"a": {"seed0": {"scans": 4.0, "defective": 2.0, "i_auroc": 1.0}}}, "masks are not"),
    ],
)
def test_a_dash_in_the_table_has_its_reason(categories, words, capsys):
    metrics = {"encoder": {"name": "pirn-tiny"}, "categories": categories, "mean": {}}
    Console(width=200).print(results_table(metrics))
    assert words in capsys.readouterr().out
