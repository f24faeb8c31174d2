"""The README's Python, and the files and modules that the pages name."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "benchmarks", "experiments", "experiments/results")
    for path in (ROOT / folder).glob("*.md")
    if path.name != "CHANGELOG.md"  # it names what has gone
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_where_the_gate_looks_for_them():
    run, test = blocks("bash")
    assert "-m pirn_jax.train --shots 5" in run
    assert "-m pytest" in test


@pytest.mark.parametrize("page", PAGES)
def test_every_module_and_file_named_exists(page):
    text = (ROOT / page).read_text()
    for module in set(re.findall(r"-m (pirn_jax(?:\.\w+)*)", text)):
        assert importlib.util.find_spec(module) is not None, module
    for link in re.findall(r"\]\((?!\w+:)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), link
    folders = "benchmarks|experiments|pirn_jax|runtime|tests"
    for path in re.findall(rf"\b(?:{folders})/[\w/]+\.py\b", text):
        assert (ROOT / path).exists(), path


def test_a_decision_has_a_number_of_its_own():
    text = (ROOT / "docs" / "decisions.md").read_text()
    numbers = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert numbers
    assert len(numbers) == len(set(numbers))


def test_the_rooms_named_in_python_are_there():
    exec(compile(blocks("python")[1], "README.md", "exec"), {})


@pytest.mark.slow
def test_the_five_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    assert names["result"].pred_label in (0, 1)
    assert (tmp_path / "flange-model" / "model.safetensors").exists()
