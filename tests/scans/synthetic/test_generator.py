"""The generator: frozen, lazy, each scan a function of its category, seed and key."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import list_categories, open_dataset
from pirn_jax.scans.synthetic.defects import FLAWS
from pirn_jax.scans.synthetic.generator import (
    CATEGORIES,
    DEFECTS,
    GENERATOR_VERSION,
    HELD_OUT,
    MASK_VALUES,
    describe,
    generator_hash,
    open_synthetic,
    write_mvtec3d,
)

ROOT = Path(__file__).resolve().parents[3]


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("rgb", "xyz", "valid", "mask")
    ) and (one.label, one.defect, one.key) == (other.label, other.defect, other.key)


def files_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_frozen():
    # A change of this hash is a change of the data: raise GENERATOR_VERSION, measure the difficulty
    # again (experiments/studies/generator_difficulty.py), and pin the new hash.
    assert GENERATOR_VERSION == 1
    assert generator_hash() == ("d107978c288a72e259f0ad6dfc41da863878518e20b7a9c186b12fc35872d671")


def test_what_there_is():
    assert len(CATEGORIES) >= 6
    assert len(DEFECTS) >= 7
    assert len(HELD_OUT) == 2
    assert set(HELD_OUT) < set(CATEGORIES)
    assert {flaw.modality for flaw in FLAWS.values()} == {"texture", "geometry", "both"}
    assert min(flaw.shares[0] for flaw in FLAWS.values()) == 0.001
    assert max(flaw.shares[1] for flaw in FLAWS.values()) == 0.20
    assert list(MASK_VALUES.values()) == list(DEFECTS)


def test_splits():
    data = open_synthetic("housing")
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 10, 60)
    assert set(data.train.labels) == set(data.validation.labels) == {0}
    assert data.test.labels.count(0) == 24
    assert set(data.test.defects) == {"good", *DEFECTS}
    assert set(open_synthetic("rope").test.defects) == {"good", *DEFECTS} - {"print_missing"}
    assert all(data.test.defects.count(defect) == 4 for defect in DEFECTS)
    assert data.test.keys == tuple(sorted(set(data.test.keys)))
    assert data.test[0].key == data.test.keys[0] == "test/bump/000"


def test_nothing_is_rendered_before_it_is_read():
    # In a process of its own: the run-time type checks of this one look into every split.
    program = """
from pirn_jax.scans import open_dataset
from pirn_jax.scans.synthetic import generator
calls = []
generator.render = lambda *arguments: calls.append(arguments)
data = open_dataset("synthetic", None, "foam", test=1000)
assert len(data.test.keys) == len(data.test[:1000].labels) == 1000
assert data.test.defects.count("good") == 400
assert calls == []
data.test[3]
assert calls == [("foam", "test/bump/003", 0, 256)]
print("lazy")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "lazy\n", run.stderr


def test_a_scan_depends_on_category_seed_and_key_alone():
    data = open_synthetic("biscuit", size=64)
    key = data.test.keys[7]
    scan = data.test[7]
    assert same(scan, open_synthetic("biscuit", size=64, test=55, train=1).test.select([key])[0])
    assert same(scan, pickle.loads(pickle.dumps(data)).test[7])
    assert not same(scan, open_synthetic("biscuit", seed=1, size=64).test[7])
    train, validation = data.train[0], data.validation[0]
    assert not np.array_equal(train.rgb, validation.rgb)


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_parts_differ(category):
    scans = list(open_synthetic(category, size=64).train)
    for k, one in enumerate(scans):
        for other in scans[:k]:
            assert np.abs(one.rgb.astype(int) - other.rgb).mean() > 2
            both = one.valid & other.valid
            assert np.abs(one.xyz - other.xyz)[both].mean() > 2e-4


def test_written_and_read_by_the_mvtec_reader(tmp_path):
    numbers = {"train": 2, "validation": 1, "test": 30}
    folder = write_mvtec3d(tmp_path / "a", "housing", seed=3, size=96, **numbers)
    drawn = open_synthetic("housing", seed=3, size=96, **numbers)
    read = open_dataset("mvtec3d", tmp_path / "a", "housing")
    assert list_categories("mvtec3d", tmp_path / "a") == ("housing",)
    for split in ("train", "validation", "test"):
        assert getattr(read, split).keys == getattr(drawn, split).keys
        assert all(
            same(one, other)
            for one, other in zip(getattr(read, split), getattr(drawn, split), strict=True)
        )

    document = json.loads((folder / "generated.json").read_text())
    assert document["version"] == GENERATOR_VERSION
    assert document["hash"] == generator_hash()
    known = {record["key"]: record for record in document["scans"]}
    assert len(known) == 33
    for scan in drawn.test:
        record = known[scan.key]
        assert record["pixels"] == np.count_nonzero(scan.mask)
        assert record["defect"] == scan.defect
        assert (record["strength"] > 0) == (record["share"] > 0) == bool(scan.label)
    camera = json.loads((folder / "calibration" / "camera_parameters.json").read_text())
    scan = drawn.train[0]
    row, column = np.argwhere(scan.valid)[1000]
    x, _, z = scan.xyz[row, column]
    assert x / z * camera["focus"] / camera["sx"] + camera["cx"] == pytest.approx(column, abs=1e-3)

    again = write_mvtec3d(tmp_path / "b", "housing", seed=3, size=96, **numbers)
    assert files_of(again) == files_of(folder)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["housing"]
    with pytest.raises(BadInputError, match="already"):
        write_mvtec3d(tmp_path / "a", "housing")


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="did you mean 'flange'"):
        open_synthetic("flang")
    with pytest.raises(ConfigError, match="size=16"):
        open_synthetic("flange", size=16)
    with pytest.raises(ConfigError, match="test=-1"):
        open_synthetic("flange", test=-1)
    for category, key in (
        ("rope", "test/print_missing/000"),
        ("flange", "train/crack/000"),
        ("flange", "test/crack"),
        ("flange", "test/crack/one"),
    ):
        with pytest.raises(ConfigError, match="is not a scan of the generated category"):
            describe(category, key)
