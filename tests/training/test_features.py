"""Features: each picture's own tokens whatever the batch, kept whole or made again."""

import json
from itertools import count

import numpy as np
import pytest

from pirn_jax.decoder import Tokens
from pirn_jax.encoder import load_encoder
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import Views
from pirn_jax.geometry.views import fit_frame
from pirn_jax.storage import try_lock
from pirn_jax.training import FeatureCache, extract, token_validity
from pirn_jax.training import features as module


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("vit-tiny-16", weights="random", image_size=(32, 48), layers=(1,))


def views(number: int, normals: bool = True) -> list[Views]:
    random = np.random.default_rng(0)
    size = (32, 48)
    made = []
    for _ in range(number):
        rgb, xyz = random.random((2, *size, 3), np.float32)
        valid = random.random(size) > 0.999
        made.append(Views(rgb, xyz if normals else None, valid, None, None, fit_frame(size, size)))
    return made


@pytest.mark.parametrize("number", [1, 3, 5])
def test_each_token_belongs_to_its_own_picture(encoder, number):
    given, finished = views(number), []
    found = extract(encoder, iter(given), ("rgb", "normals"), batch=2, advance=finished.append)
    assert found.values.shape == (2, number, 6, 192)
    assert sum(finished) == number
    for i, view in enumerate(given):
        alone = encoder(np.stack([view.normals, view.rgb]))
        np.testing.assert_allclose(found.values[1, i], alone[0], atol=1e-5)
        np.testing.assert_allclose(found.values[0, i], alone[1], atol=1e-5)
        blocks = [view.valid[r : r + 16, c : c + 16] for r in (0, 16) for c in (0, 16, 32)]
        assert list(found.valid[i]) == [bool(b.any()) for b in blocks]


def test_one_modality_alone(encoder):
    found = extract(encoder, views(2, normals=False), ("rgb",), batch=2)
    assert found.values.shape == (1, 2, 6, 192)
    with pytest.raises(BadInputError, match="no normals"):
        extract(encoder, views(1, normals=False), ("rgb", "normals"))
    with pytest.raises(BadInputError, match="no scans"):
        extract(encoder, [], ("rgb",))


def test_one_valid_pixel_makes_a_token_valid():
    valid = np.zeros((4, 6), bool)
    valid[3, 2] = True
    assert list(token_validity(valid, (2, 3))) == [False, False, False, False, True, False]


def made(calls):
    def make() -> Tokens:
        value = next(calls)
        return Tokens(np.full((1, 2, 3, 4), value, np.float32), np.ones((2, 3), bool))

    return make


def test_kept_by_key_and_read_again(tmp_path):
    calls = count()
    cache = FeatureCache(tmp_path)
    first = cache.get({"weights": "a", "size": "224"}, made(calls))
    again = FeatureCache(tmp_path).get({"size": "224", "weights": "a"}, made(calls))
    np.testing.assert_array_equal(first.values, again.values)
    assert again.valid.dtype == bool
    assert cache.get({"weights": "b", "size": "224"}, made(calls)).values[0, 0, 0, 0] == 1
    assert next(calls) == 2
    assert FeatureCache(None).get({}, made(calls)).values[0, 0, 0, 0] == 3


def entries(folder):
    """All but locks, which are hidden."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty_record(entry):
    (entry / "entry.json").write_text(json.dumps({"sha256": {}}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: flip(entry / "values.npy"),
        lambda entry: (entry / "values.npy").write_bytes(b""),
        lambda entry: (entry / "valid.npy").unlink(),
        lambda entry: (entry / "entry.json").write_text("{"),
        lambda entry: (entry / "entry.json").write_text("[]"),
        lambda entry: (entry / "entry.json").unlink(),
        lambda entry: (entry / "entry.json").write_text('{"sha256": [1]}'),
        lambda entry: (entry / "entry.json").write_text("[" * 100_000),
        lambda entry: (entry / "entry.json").write_text('{"sha256": {"../values": "0"}}'),
        lambda entry: ((entry / "values.npy").unlink(), (entry / "values.npy").mkdir()),
        empty_record,
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path, damage, caplog):
    calls, cache = count(), FeatureCache(tmp_path)
    cache.get({"a": "b"}, made(calls))
    (entry,) = entries(tmp_path)
    damage(entry)
    assert cache.get({"a": "b"}, made(calls)).values[0, 0, 0, 0] == 1
    assert "damaged" in caplog.text
    assert cache.get({"a": "b"}, made(calls)).values[0, 0, 0, 0] == 1
    assert entries(tmp_path) == [entry]


def test_an_entry_that_another_process_writes_is_left_to_it(tmp_path):
    calls, cache = count(), FeatureCache(tmp_path)
    cache.get({"a": "b"}, made(calls))
    (entry,) = entries(tmp_path)
    flip(entry / "values.npy")
    damaged = (entry / "values.npy").read_bytes()
    with try_lock(tmp_path / f".{entry.name}.lock") as ours:
        assert ours
        assert cache.get({"a": "b"}, made(calls)).values[0, 0, 0, 0] == 1
    assert (entry / "values.npy").read_bytes() == damaged
    assert cache.get({"a": "b"}, made(calls)).values[0, 0, 0, 0] == 2
    assert (entry / "values.npy").read_bytes() != damaged


def test_an_entry_of_another_format_is_not_met(tmp_path, monkeypatch, caplog):
    calls, cache = count(), FeatureCache(tmp_path)
    cache.get({"a": "b"}, made(calls))
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert cache.get({"a": "b"}, made(calls)).values[0, 0, 0, 0] == 1
    assert not caplog.text
    assert len(entries(tmp_path)) == 2


def test_tokens_that_all_count_are_kept_as_such(tmp_path):
    cache, calls = FeatureCache(tmp_path), count()
    for _ in range(2):
        found = cache.get({}, lambda: made(calls)()._replace(valid=None))
        assert found.valid is None
    assert next(calls) == 1


def test_large_files_are_mapped(tmp_path, monkeypatch):
    calls, cache = count(), FeatureCache(tmp_path)
    cache.get({}, made(calls))
    monkeypatch.setattr(module, "MAPPED_BYTES", 200)
    found = cache.get({}, made(calls))
    assert isinstance(found.values, np.memmap)
    assert not isinstance(found.valid, np.memmap)
    assert next(calls) == 1


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = FeatureCache(tmp_path / "file" / "cache").get({}, made(count()))
    assert found.values[0, 0, 0, 0] == 0
    assert "could not be cached" in caplog.text
