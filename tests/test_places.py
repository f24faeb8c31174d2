"""Folders of object stores, by the store that a process has in its own memory."""

import fsspec
import numpy as np
import pytest

from pirn_jax import places
from pirn_jax.errors import BadInputError, ConfigError, MachineError
from pirn_jax.geometry import PreparedCache, Settings, prepare_scan
from pirn_jax.scans import (
    File,
    Limits,
    Options,
    check_dataset,
    list_categories,
    open_dataset,
)
from pirn_jax.scans.datasets.judged import find_scans
from pirn_jax.scans.formats import read_bytes
from pirn_jax.storage import read_object, write_json
from tests.scans import layouts


@pytest.fixture
def store():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


def uploaded(store, folder, name="bucket/data"):
    store.put(str(folder), f"/{name}", recursive=True)
    return places.Path(f"memory://{name}")


@pytest.mark.parametrize("name", ["mvtec3d", "eyecandies", "real_iad_d3"])
def test_data_sets_are_read_as_from_a_disk(name, store, tmp_path):
    local = tmp_path / "data"
    getattr(layouts, name)(local)
    remote = uploaded(store, local)
    assert list_categories(name, remote) == list_categories(name, local)
    category = list_categories(name, local)[0]
    given = {"assume_aligned": True} if name == "real_iad_d3" else {}
    one, other = (open_dataset(name, root, category, **given) for root in (local, remote))
    assert check_dataset(other, Limits()) == check_dataset(one, Limits())
    for split in ("train", "validation", "test"):
        mine, theirs = getattr(one, split), getattr(other, split)
        assert mine.keys == theirs.keys
        for scan, again in zip(mine, theirs, strict=True):
            for array, same in zip(scan[:6], again[:6], strict=True):
                np.testing.assert_array_equal(array, same)


def test_scans_to_judge_are_found(store, tmp_path):
    for part in ("part_1", "deep/part_2"):
        layouts.picture(tmp_path / part / "rgb.png", layouts.photograph())
        layouts.point_map(tmp_path / part / "xyz.tiff", layouts.points())
    (tmp_path / "deep" / "notes.xyz").write_text("?")
    found = {}
    for root in (tmp_path, uploaded(store, tmp_path)):
        scans, left_out = find_scans([root], {}, ("rgb", "normals"), Options())
        found[root] = scans.keys, left_out, [scan.xyz.tobytes() for scan in scans]
    one, other = found.values()
    assert one == other
    assert len(one[0]) == 2


def test_caps_hold(store):
    store.pipe("/bucket/large.png", bytes(1000))
    file = File(places.Path("memory://bucket/large.png"))
    with pytest.raises(BadInputError, match=r"memory://bucket/large.png: 1,000 bytes, more than"):
        read_bytes(file, Limits(), most=999)
    assert read_bytes(file, Limits(), most=1000) == bytes(1000)
    with pytest.raises(BadInputError, match="no such file"):
        read_bytes(File(places.Path("memory://bucket/none.png")), Limits())


def test_prepared_scans_are_kept_there(store, tmp_path):
    layouts.mvtec3d(tmp_path / "data")
    scan = open_dataset("mvtec3d", tmp_path / "data", "bagel").train[0]
    settings = Settings("grid", "none")
    cache = PreparedCache(places.Path("memory://bucket/cache"))
    assert cache.read(scan, settings) is None
    made = prepare_scan(scan, settings)
    cache.write(scan, settings, made)
    np.testing.assert_array_equal(cache.read(scan, settings).normals, made.normals)
    PreparedCache(tmp_path / "local").write(scan, settings, made)
    (entry,) = (tmp_path / "local").glob("??/*.npz")
    assert store.cat(f"/bucket/cache/{entry.parent.name}/{entry.name}") == entry.read_bytes()


def test_a_file_is_put_whole_or_not_at_all(store, monkeypatch):
    path = places.Path("memory://bucket/run/a.json")
    write_json(path, {"a": 1})
    assert read_object(path) == {"a": 1}
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert read_object(path) == {"a": 1}

    def fails(*_):
        raise RuntimeError("secret=hunter2\nmore")

    monkeypatch.setattr(type(store), "put_file", fails)
    with pytest.raises(MachineError, match=r"memory://bucket/run/a.json: the store cannot be"):
        write_json(path, {"a": 2})


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:hunter2@bucket/data",
        "s3://bucket/data?X-Amz-Signature=hunter2",
        "gs://hunter2@bucket",
        "s3:/me:hunter2@bucket/data",
    ],
)
def test_secrets_in_an_address_are_refused_and_not_repeated(text, capsys):
    with pytest.raises(ConfigError, match="AWS_PROFILE") as raised:
        places.check_address(text)
    assert "hunter2" not in str(raised.value)

    from pirn_jax import train

    for flag in ([f"--data-root={text}"], ["--data-root", text]):
        with pytest.raises(SystemExit) as stopped:
            train.main(["--dataset", "mvtec3d", *flag, "--print-config"])
        assert stopped.value.code == 3
        printed = capsys.readouterr()
        assert "hunter2" not in printed.out + printed.err


def test_what_is_remote():
    assert places.address(places.Path("s3://a/b")) == "s3://a/b"
    assert places.is_remote("gs://a/b")
    for local in ("a/b", "/a/b", "C:/a", "s3", "file@host?x", "http://a/b"):
        assert not places.is_remote(local)
        assert places.address(local) == local
        places.check_address(local)
