"""The one door: names, suggestions, and what a new dataset takes."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pirn_jax import scans
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import list_categories, open_dataset
from pirn_jax.scans.datasets import registry
from tests.scans import layouts


def test_unknown_names_get_a_suggestion(tmp_path):
    layouts.mvtec3d(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'mvtec3d'"):
        open_dataset("mvtec3", tmp_path, "bagel")
    with pytest.raises(BadInputError, match="did you mean 'bagel'"):
        open_dataset("mvtec3d", tmp_path, "bagle")
    with pytest.raises(ConfigError, match="did you mean 'modalities'"):
        open_dataset("mvtec3d", tmp_path, "bagel", modalitys=("rgb",))
    with pytest.raises(ConfigError, match="modalities must be"):
        open_dataset("mvtec3d", tmp_path, "bagel", modalities="rgb")
    with pytest.raises(BadInputError, match="no such folder"):
        open_dataset("mvtec3d", tmp_path / "absent", "bagel")
    assert list_categories("mvtec3d", tmp_path) == ("bagel",)


def test_reading_scans_does_not_load_jax():

    code = "import sys, pirn_jax.scans; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


NEW_DATASET = '''
"""Photographs of nuts, one folder for each batch, defective ones named so."""

from functools import partial

from pirn_jax.scans.datasets.dataset import Dataset, Entry, Split
from pirn_jax.scans.datasets.listing import files_by_stem, subfolders
from pirn_jax.scans.datasets.reading import read_entry
from pirn_jax.scans.datasets.registry import DatasetLayout
from pirn_jax.scans.formats import Options


def open_nuts(root, category, *, first=1):
    found = files_by_stem(root / category, root, (".png",))
    entries = [
        Entry(stem, {"rgb": file}, int("bad" in stem), "bad" if "bad" in stem else "good")
        for stem, file in found.items()
    ]
    reader = partial(read_entry, options=Options())
    splits = (entries[:first], [], entries[first:])
    return Dataset(*(Split(part, reader) for part in splits), name="nuts", category=category)


LAYOUT = DatasetLayout(open_nuts, lambda root: subfolders(root, root), modalities=("rgb",))
'''


def test_a_new_dataset_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "new_dataset_of_nuts.py").write_text(NEW_DATASET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.DATASETS, "nuts", "new_dataset_of_nuts")
    for batch in ("m4", "m6"):
        for number, name in enumerate(("a", "b", "c_bad")):
            path = tmp_path / "data" / batch / f"{name}.png"
            layouts.picture(path, layouts.photograph(number))

    assert list_categories("nuts", tmp_path / "data") == ("m4", "m6")
    data = open_dataset("nuts", tmp_path / "data", "M6", first=2)
    assert (data.name, data.category) == ("nuts", "m6")
    assert (data.train.keys, data.test.keys) == (("a", "b"), ("c_bad",))
    assert data.test.labels == (1,)
    assert np.array_equal(data.train[1].rgb, layouts.photograph(1))
    assert registry.find_layout("nuts").modalities == ("rgb",)
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        open_dataset("nuts", tmp_path / "data", "m6", frist=2)
    with pytest.raises(BadInputError, match="did you mean 'm4'"):
        open_dataset("nuts", tmp_path / "data", "m40")
    with pytest.raises(ConfigError, match="did you mean 'nuts'"):
        list_categories("nut", tmp_path / "data")


@pytest.mark.parametrize("name", registry.DATASETS)
def test_every_registered_dataset_has_its_layout(name, tmp_path):
    layout = registry.find_layout(name)
    assert layout.modalities
    assert not {"root", "category"} & set(layout.options)
    assert all(isinstance(category, str) for category in layout.categories(tmp_path))


WINGS = ("formats", "datasets", "synthetic")  # each may import those before it


def imported(file: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("wing", ["scan", *WINGS])
def test_the_wings_import_one_way(wing):
    root = Path(scans.__file__).parent
    place = {name: number for number, name in enumerate(("scan", *WINGS))}
    files = [root / "scan.py"] if wing == "scan" else sorted((root / wing).glob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            parts = name.split(".")
            if parts[0] != "pirn_jax":
                assert parts[0] not in ("jax", "flax"), file
            elif parts[1] != "scans":
                assert parts[1] in ("errors", "manifest", "places", "storage"), file
            else:
                assert place[parts[2]] <= place[wing], f"{file} imports {name}"
