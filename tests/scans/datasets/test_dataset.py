"""Splits: sequences that read a scan when it is looked at."""

import pickle

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans import list_categories, open_dataset
from tests.scans import layouts


def test_splits_behave_as_sequences(tmp_path):
    layouts.mvtec3d(tmp_path)
    test = open_dataset("mvtec3d", tmp_path, "bagel").test
    assert [scan.key for scan in test] == list(test.keys)
    assert test[-1].key == test.keys[-1]
    assert test[1:3].keys == test.keys[1:3]
    assert test.select([test.keys[3], test.keys[0]]).keys == (test.keys[3], test.keys[0])
    with pytest.raises(IndexError):
        test[len(test)]
    with pytest.raises(BadInputError, match=r"did you mean 'test/crack/001'"):
        test.select(["test/crak/001"])


@pytest.mark.parametrize("name", ["mvtec3d", "mvtec2d", "eyecandies", "real_iad_d3"])
def test_listing_decodes_nothing_and_datasets_are_picklable(tmp_path, name):
    getattr(layouts, name)(tmp_path)
    category = list_categories(name, tmp_path)[0]
    options = {"assume_aligned": True} if name == "real_iad_d3" else {}
    before = open_dataset(name, tmp_path, category, **options)
    again = pickle.loads(pickle.dumps(before))
    assert again.test.keys == before.test.keys
    first, second = before.test[-1], again.test[-1]
    assert np.array_equal(first.rgb, second.rgb)
    if name != "real_iad_d3":  # its archive would have to be damaged instead
        for file in tmp_path.rglob("*"):
            if file.suffix in (".png", ".tiff"):
                file.write_bytes(b"nothing that could be decoded")
        listed = open_dataset(name, tmp_path, category)
        assert listed.test.labels == before.test.labels
        with pytest.raises(BadInputError):
            listed.test[0]


def test_nothing_is_written_beside_the_originals(tmp_path):
    for name in ("mvtec3d", "mvtec2d", "eyecandies", "real_iad_d3"):
        getattr(layouts, name)(tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for name in ("mvtec3d", "mvtec2d", "eyecandies", "real_iad_d3"):
        root = tmp_path / name
        options = {"assume_aligned": True} if name == "real_iad_d3" else {}
        data = open_dataset(name, root, list_categories(name, root)[0], **options)
        assert sum(1 for _ in data.test) == len(data.test)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
