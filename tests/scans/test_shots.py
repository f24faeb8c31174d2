"""The few-shot choice and its record."""

import hashlib
import json

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import choose_shots, open_dataset, read_split, write_split
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
    text = json.dumps([3, "mvtec3d", "rope", KEYS[0]]).encode()
    digests = {
        key: hashlib.sha256(json.dumps([3, "mvtec3d", "rope", key]).encode()).hexdigest()
        for key in KEYS
    }
    assert hashlib.sha256(text).hexdigest() == digests[KEYS[0]]
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


@pytest.fixture
def chosen(tmp_path):
    layouts.mvtec3d(tmp_path / "data")
    train = open_dataset("mvtec3d", tmp_path / "data", "bagel").train
    keys = choose_shots(train.keys, 2, 0, "mvtec3d", "bagel")
    write_split(
        tmp_path / "split.json",
        train.select(keys),
        seed=0,
        dataset="mvtec3d",
        category="bagel",
    )
    return tmp_path / "split.json", train, keys


def test_split_json_holds_the_keys_and_hashes(chosen):
    path, train, keys = chosen
    document = json.loads(path.read_text())
    assert [shot["key"] for shot in document["shots"]] == list(keys)
    for shot in document["shots"]:
        entry = train.select([shot["key"]]).entries[0]
        for role, file in entry.files.items():
            digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
            assert shot["sha256"][role] == digest
    assert read_split(path) == keys
    assert read_split(path, train) == keys
    assert not list(path.parent.glob("*.partial"))


def test_a_changed_file_or_another_dataset_is_noticed(chosen, tmp_path):
    path, train, keys = chosen
    file = train.select(keys).entries[1].files["rgb"].path
    layouts.picture(file, layouts.photograph(99))
    with pytest.raises(BadInputError, match="not the one of the split") as caught:
        read_split(path, train)
    assert caught.value.path == str(file)
    with pytest.raises(BadInputError, match="no scan has the key"):
        read_split(path, train.select([]))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": "other", "shots": []}', '{"format": 1, "shots": 5}']
)
def test_other_documents_are_refused(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(BadInputError, match="not a split"):
        read_split(tmp_path / "split.json")


def test_splits_of_packed_scans_hash_the_members(tmp_path):
    layouts.real_iad_d3(tmp_path)
    train = open_dataset("real_iad_d3", tmp_path, "knob-cap").train
    write_split(
        tmp_path / "split.json", train[:1], seed=1, dataset="real_iad_d3", category="knob-cap"
    )
    assert read_split(tmp_path / "split.json", train) == train.keys[:1]
