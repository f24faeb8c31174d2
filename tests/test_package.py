"""The package as a whole: what importing costs, and which room may know which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "pirn_jax"
HEAVY = {"torch", "open3d", "openvino", "ott", "orbax", "jraph", "matplotlib", "transformers"} | {
    "jax",
    "flax",
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_costs_nothing_heavy_and_under_a_second():
    # Of processor time, so that a busy machine does not fail it.
    code = (
        "import time, sys; start = time.process_time(); import pirn_jax; "
        "print(time.process_time() - start, *sys.modules)"
    )
    seconds, *modules = run(code).split()
    assert HEAVY.isdisjoint(name.split(".")[0] for name in modules)
    assert float(seconds) < 1.0


def test_every_public_name_exists():
    run("import pirn_jax; [getattr(pirn_jax, name) for name in pirn_jax.__all__]")
    import pirn_jax

    assert len(pirn_jax.__all__) <= 15
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pirn_jax.nothing


def modules() -> list[str]:
    files = sorted(ROOT.rglob("*.py"))
    names = [".".join(f.relative_to(ROOT.parent).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def test_every_module_imports_where_the_fragile_packages_cannot_be_loaded():
    """Including open3d without its system libraries, and no torch at all."""
    run(
        "import importlib, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY - {'jax', 'flax'}}:\n"
        "            raise ImportError(f'{name} cannot be loaded here')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"for name in {modules()}: importlib.import_module(name)\n"
    )


# Imports go one way: a room may import the rooms named here, and errors.
ROOMS = {
    "errors": set(),
    "recipes": set(),
    "config": {"recipes"},
    "command": set(),
    "transport": set(),
    "metrics": {"command"},
    "scans": set(),
    "geometry": {"scans"},
    "encoder": {"command"},
    "decoder": {"transport", "recipes"},
    "scoring": {"metrics"},
    "training": {"recipes", "geometry", "encoder", "decoder"},
    "saved": {"config", "scans"},
    "prepare": {"command", "scans", "geometry"},
    "report": {"metrics", "scans", "scoring"},
}
# From scans to a run, each on the shoulders of the one before.
_MODEL = {
    "config",
    "recipes",
    "scans",
    "geometry",
    "encoder",
    "decoder",
    "metrics",
    "scoring",
    "training",
}
ROOMS |= {
    "baselines": _MODEL,
    "judging": _MODEL | {"baselines"},
    "detector": _MODEL | {"judging", "saved"},
    "runs": _MODEL | {"detector", "judging", "report", "saved"},
    "train": {"command", "config", "runs", "saved", "training"},
    "evaluate": {"command", "runs", "saved"},
    "predict": {"command", "runs"},
    "doctor": {"command", "config", "encoder", "judging", "runs", "scans"},
}


def imported_rooms(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "pirn_jax" and len(parts) > 1:
                found.add(parts[1])
    there = {path.stem for path in ROOT.iterdir()}
    return found & there


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    room = parts[0]
    if room == "__init__":
        return
    assert room in ROOMS, f"say in ROOMS what {room} may import"
    assert imported_rooms(file) <= ROOMS[room] | {room, "errors"}


def test_nothing_is_ever_unpickled():
    """Only the converter opens PyTorch's format, and only its tensors."""
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        assert "import pickle" not in text, file
        assert "allow_pickle=True" not in text, file
        for line in text.splitlines():
            if "torch.load(" in line:
                assert file.name == "convert.py"
                assert "weights_only=True" in line
