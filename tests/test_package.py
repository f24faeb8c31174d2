"""The package as a whole: what importing costs, and which room may know which."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "pirn_jax"
HEAVY = {
    "torch", "open3d", "openvino", "ott", "orbax", "jraph", "matplotlib", "transformers", "sklearn",
    "jax", "flax", "ray", "s3fs",
}  # fmt: skip
SLIM_LACKS = ("open3d", "scikit-learn", "transformers")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    modules = run("import sys, pirn_jax; print(*sys.modules)").split()
    assert HEAVY.isdisjoint(name.split(".")[0] for name in modules)


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


def test_the_slim_installation_is_the_whole_one_but_for_three_packages():
    """`tests/e2e` runs the commands without these three."""
    with (ROOT.parent / "pyproject.toml").open("rb") as file:
        whole = tomllib.load(file)["project"]["dependencies"]
    lines = (ROOT.parent / "requirements-slim.txt").read_text().splitlines()
    slim = [line for line in lines if line and not line.startswith("#")]
    assert slim == [need for need in whole if not need.startswith(SLIM_LACKS)]


# Imports go one way: a room may import the rooms named here, and `errors`.
_MODEL = {
    "config", "decoder", "encoder", "geometry", "manifest", "methods", "metrics", "places", "scans",
    "scoring", "storage", "training",
}  # fmt: skip
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "__main__": {"command"},
    "places": set(),
    "storage": {"places"},
    "cluster": set(),
    "pixels": set(),
    "manifest": {"storage"},
    "progress": set(),
    "command": {"places", "progress"},
    "transport": set(),
    "scans": {"manifest", "places", "storage"},
    "metrics": {"command", "places", "scans", "storage"},
    "geometry": {"pixels", "places", "scans", "storage"},
    "encoder": {"command", "geometry", "places", "storage"},
    "decoder": {"transport"},
    "scoring": {"metrics", "pixels"},
    "training": {"decoder", "encoder", "geometry", "manifest", "storage"},
    "methods": {"decoder", "encoder", "geometry", "training", "transport"},
    "config": {"decoder", "encoder", "methods", "scans"},
    "config_json": {"config", "methods", "scans"},
    "detector": _MODEL | {"config_json", "progress"},
    "report": {"metrics", "scans", "scoring", "storage"},
    "runs": _MODEL | {"cluster", "config_json", "detector", "report"},
    "deploy": _MODEL | {"config_json", "detector", "report", "runs"},
    "serve": {"command", "deploy", "detector", "places", "runs", "scans", "storage"},
    "train": {
        "command",
        "config",
        "config_json",
        "methods",
        "places",
        "report",
        "runs",
        "scans",
        "storage",
        "training",
    },
    "evaluate": {"cluster", "command", "places", "report", "runs", "scans", "storage"},
    "predict": {"cluster", "command", "detector", "manifest", "places", "runs", "scans"},
    "prepare": {"cluster", "command", "geometry", "runs", "scans", "storage"},
    "export": {"command", "deploy", "runs"},
    "doctor": {"command", "config", "detector", "encoder", "runs", "scans"},
}


def test_there_is_no_circle_of_rooms():
    order = list(graphlib.TopologicalSorter(ROOMS).static_order())  # raises on a circle
    assert set(order) == set(ROOMS)
    there = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert set(ROOMS) == there - {"__init__"}  # no room is left over, none is missing


def test_there_is_no_circle_of_modules():
    """Those inside functions, which only put a circle off, included."""
    graph = {name: imported_modules(file) for name, file in named_files().items()}
    for module in graph:  # a package's face is imported by whoever imports from it
        assert module not in graph[module]
    faces = {name for name, file in named_files().items() if file.name == "__init__.py"}
    inner = {m: {n for n in found if n not in faces} for m, found in graph.items()}
    list(graphlib.TopologicalSorter(inner).static_order())


def test_no_file_is_long():
    for file in ROOT.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 400, file


def test_architecture_names_what_is_there():
    """Every file in the ten lines exists, and defines what is said to be in it."""
    text = (ROOT.parent / "docs/architecture.md").read_text()
    way = text.split("## The way of one scan")[1].split("## ")[0]
    lines = re.findall(r"^\d+\. (.*)$", way, re.MULTILINE)
    assert len(lines) == 10
    for line in lines:
        places = [word for word in re.findall(r"`([^`]+)`", line) if "/" in word]
        assert places
        for place in places:
            assert (ROOT.parent / place).exists(), place
        sources = "\n".join(
            file.read_text()
            for place in places
            for file in ([ROOT.parent / place] if place.endswith(".py") else ())
        )
        names = [w for w in re.findall(r"`(\w+)`", line) if not w.islower() or "_" in w]
        assert names
        known = {*re.findall(r"^(?:class|def) (\w+)", sources, re.MULTILINE)}
        known |= set(FLOWS)
        assert set(names) <= known, set(names) - known


FLOWS = ("Scan", "Views", "Tokens", "Prediction")
"""Named in the ten lines, and defined in rooms that they do not name."""


def named_files() -> dict[str, Path]:
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imported_modules(file: Path) -> set[str]:
    """Modules of ours that a file names, except for the type checker alone."""
    known, found = named_files(), set()
    tree = ast.parse(file.read_text())
    skipped = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(known)
            found |= inner or {node.module or ""}
    return found & set(known)


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
    """Not by PyTorch's restricted reader either: the converter reads checkpoints as data."""
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        assert "import pickle" not in text, file
        assert "allow_pickle=True" not in text, file
        assert "torch.load(" not in text, file
        assert "Unpickler(" not in text, file
