"""The few-shot choice and its record."""

import hashlib
import json
import zipfile

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import choose_shots, open_dataset, write_split
from tests.scans import layouts

KEYS = [f"train/good/{number:03}" for number in range(200)]


def test_shots_are_nested_and_do_not_depend_on_the_order_of_the_files():
    five, ten, fifty = (choose_shots(KEYS, k, 0, "mvtec3d", "bagel") for k in (5, 10, 50))
    assert fifty[:10] == ten
    assert ten[:5] == five
    shuffled = [KEYS[i] for i in np.random.RandomState(0).permutation(len(KEYS))]
    assert choose_shots(shuffled, 5, 0, "mvtec3d", "bagel") == five
    assert len(set(fifty)) == 50


def test_shots_follow_the_stated_rule():
    digests = {
        key: hashlib.sha256(json.dumps([3, "mvtec3d", "rope", key]).encode()).hexdigest()
        for key in KEYS
    }
    assert choose_shots(KEYS, 200, 3, "mvtec3d", "rope") == tuple(sorted(KEYS, key=digests.get))


def test_shots_differ_by_seed_dataset_and_category_and_cover_all_alike():
    base = choose_shots(KEYS, 10, 0, "mvtec3d", "bagel")
    for other in ((1, "mvtec3d", "bagel"), (0, "folder", "bagel"), (0, "mvtec3d", "rope")):
        assert choose_shots(KEYS, 10, *other) != base
    counts = dict.fromkeys(KEYS, 0)
    for seed in range(1000):
        for key in choose_shots(KEYS, 10, seed, "mvtec3d", "bagel"):
            counts[key] += 1
    # Binomial(1000, 1/20): mean 50, deviation 6.9; 200 keys stay within 5 deviations.
    assert min(counts.values()) > 15
    assert max(counts.values()) < 85


def test_first_shots_are_the_first_of_the_sorted_keys():
    assert choose_shots(KEYS[::-1], 4, 9, "x", "y", order="first") == tuple(KEYS[:4])


@pytest.mark.parametrize("k", [0, -1, 201])
def test_impossible_numbers_are_refused(k):
    with pytest.raises(ConfigError, match=f"between 1 and the 200 training scans.*got {k}"):
        choose_shots(KEYS, k, 0, "mvtec3d", "bagel")
    with pytest.raises(ConfigError, match="twice"):
        choose_shots(KEYS + KEYS[:1], 5, 0, "mvtec3d", "bagel")


def test_split_json_holds_the_choice_and_the_hash_of_every_file(tmp_path):
    layouts.mvtec3d(tmp_path / "data")
    train = open_dataset("mvtec3d", tmp_path / "data", "bagel").train
    keys = choose_shots(train.keys, 2, 7, "mvtec3d", "bagel")
    path = tmp_path / "split.json"
    write_split(path, train.select(keys), seed=7, dataset="mvtec3d", category="bagel")
    document = json.loads(path.read_text())
    assert [document[name] for name in ("dataset", "category", "seed", "order")] == [
        *("mvtec3d", "bagel", 7, "hash")
    ]
    assert [shot["key"] for shot in document["shots"]] == list(keys)
    for shot in document["shots"]:
        split, defect, stem = shot["key"].split("/")
        here = tmp_path / "data" / "bagel" / split / defect
        files = {"rgb": here / f"rgb/{stem}.png", "xyz": here / f"xyz/{stem}.tiff"}
        assert shot["sha256"] == {
            role: hashlib.sha256(file.read_bytes()).hexdigest() for role, file in files.items()
        }
    assert [path.name for path in tmp_path.iterdir()].count("split.json") == 1
    assert len(list(tmp_path.iterdir())) == 2  # the data and the split, nothing left over


def test_splits_of_packed_scans_hash_the_members(tmp_path):
    layouts.real_iad_d3(tmp_path)
    train = open_dataset("real_iad_d3", tmp_path, "knob-cap").train
    path = tmp_path / "split.json"
    write_split(path, train[:1], seed=1, dataset="real_iad_d3", category="knob-cap")
    (shot,) = json.loads(path.read_text())["shots"]
    with zipfile.ZipFile(tmp_path / "realiad_d3_raw" / "knob-cap.zip") as archive:
        name = f"knob-cap/{shot['key'].removeprefix('train/')}.jpg"
        assert shot["sha256"]["rgb"] == hashlib.sha256(archive.read(name)).hexdigest()


def test_a_shot_that_cannot_be_hashed_leaves_no_split(tmp_path):
    layouts.mvtec3d(tmp_path)
    train = open_dataset("mvtec3d", tmp_path, "bagel").train
    (tmp_path / "bagel/train/good/rgb/001.png").unlink()
    with pytest.raises(BadInputError, match="No such file"):
        write_split(tmp_path / "split.json", train, seed=0, dataset="mvtec3d", category="bagel")
    assert not (tmp_path / "split.json").exists()
