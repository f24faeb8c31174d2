"""The README's Python and the files and modules it names."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_where_the_gate_looks_for_them():
    run, test = blocks("bash")
    assert "-m pirn_jax.train --shots 5" in run
    assert "-m pytest" in test


def test_every_module_and_file_named_exists():
    for module in set(re.findall(r"-m (pirn_jax[.\w]*)", README)):
        assert importlib.util.find_spec(module) is not None, module
    for path in re.findall(r"\]\(([^):#]+)", README) + re.findall(r"python (\w+/\S+\.py)", README):
        assert (ROOT / path).exists(), path


def test_the_rooms_named_in_python_are_there():
    exec(compile(blocks("python")[1], "README.md", "exec"), {})


@pytest.mark.slow
def test_the_five_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    assert names["result"].pred_label in (0, 1)
    assert (tmp_path / "flange-model" / "model.safetensors").exists()
