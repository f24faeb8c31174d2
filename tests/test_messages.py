"""Every option that a message names exists on the command that says it, in both spellings."""

import ast
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import tyro

from pirn_jax import doctor, evaluate, predict, prepare, serve, train
from pirn_jax.metrics import __main__ as metrics
from pirn_jax.scans.formats.files import Limits
from pirn_jax.scans.formats.options import Options

ROOT = Path(__file__).resolve().parents[1] / "pirn_jax"
PLAIN = (tyro.conf.FlagCreatePairsOff,)


def flags_of(target) -> set[str]:
    text = io.StringIO()
    with redirect_stdout(text), pytest.raises(SystemExit):
        tyro.cli(target, args=["--help"], config=PLAIN)
    return set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text.getvalue()))


COMMANDS = {
    "train": flags_of(train.Arguments),
    "evaluate": flags_of(evaluate.Arguments),
    "predict": flags_of(predict.Arguments),
    "prepare": flags_of(prepare.Command),
    "serve": flags_of(serve.Arguments),
    "doctor": flags_of(doctor.main),
}
EVERYWHERE = set.intersection(*COMMANDS.values())
SOMEWHERE = set.union(
    *COMMANDS.values(), flags_of(metrics.Arguments), {"--version", "--help", "--debug"}
)


def messages(file: Path) -> str:
    """All text of a module but for docstrings."""
    tree = ast.parse(file.read_text())
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs.add(id(node.value))
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
    return "\n".join(texts)


FILES = sorted(ROOT.rglob("*.py"))
FLAG = re.compile(r"(?:\b(\w+) )?(?<!var\()(--[a-z][\w.-]*\w)")


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_flags_that_messages_name_exist(file):
    """What reads files may speak from any command; the others each have their own."""
    known = EVERYWHERE if "scans" in file.parts else SOMEWHERE
    if file.name == "judged.py":  # what is to be judged is given to predict alone
        known = COMMANDS["predict"]
    said = re.sub(r"pip install [^\n]*", "", messages(file))
    for command, flag in FLAG.findall(said):
        assert flag.replace("_", "-") in COMMANDS.get(command, known), (command, flag)


SPELLED = re.compile(r"\b([a-z_]+)=(?:…|True|Limits\(\w+=…\))(.{0,20})", re.DOTALL)


def test_messages_of_readers_name_both_spellings():
    """`scale=… (--scale)`: for those who call it from Python and for those who do not."""
    fields = {**Options.__dataclass_fields__, **Limits.__dataclass_fields__}
    found = 0
    for file in (ROOT / "scans").rglob("*.py"):
        for name, after in SPELLED.findall(messages(file)):
            if name in fields:
                flag = "--limits" if name == "limits" else f"--{name.replace('_', '-')}"
                assert flag in after, (file.name, name, after)
                found += 1
    assert found >= 8
