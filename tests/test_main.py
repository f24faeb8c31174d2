"""`python -m pirn_jax`: the list of commands, the version, and the way to each."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

import pirn_jax
from pirn_jax.__main__ import COMMANDS, main


def test_without_a_command_they_are_listed(capsys):
    for words in ([], ["--help"]):
        main(words)
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in COMMANDS)


def test_every_command_exists():
    assert all(importlib.util.find_spec(f"pirn_jax.{name}") for name in COMMANDS)


def test_the_version_is_the_package_s(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"pirn_jax {pirn_jax.__version__}\n"
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == pirn_jax.__version__
    assert project["scripts"] == {"pirn-jax": "pirn_jax.__main__:main"}


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predct"])
    assert stopped.value.code == 3
    assert "did you mean 'predict'?" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_command_gets_the_rest_of_the_words(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pirn-jax"])
    with pytest.raises(SystemExit) as stopped:
        main(["metrics", "--help"])
    assert stopped.value.code == 0
    assert "MAPS MASKS" in capsys.readouterr().out
