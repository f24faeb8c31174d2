"""Our own files: whole or not at all, and never believed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from pirn_jax.errors import BadInputError
from pirn_jax.storage import (
    LARGEST_JSON,
    flatten,
    read_object,
    read_tensors,
    unflatten,
    whole_file,
    whole_folder,
    write_array,
    write_arrays,
    write_json,
    write_tensors,
    write_whole,
)

ROOT = Path(__file__).resolve().parents[1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- whole or not at all --------------------------------------------------------------------------


def test_a_file_is_written_replaced_and_readable_by_others(tmp_path):
    path = tmp_path / "new" / "folders" / ("long" * 60 + ".txt")  # 244 of the 255 letters there are
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # by the user's umask


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"old")

    def fail():
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            assert path.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    with pytest.raises(TypeError):
        write_whole(path, SimpleNamespace())  # what is no bytes
    assert names(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_what_it_led_to_is_not(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"another's")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "link", b"ours")
    assert (tmp_path / "elsewhere").read_bytes() == b"another's"
    assert (tmp_path / "link").read_bytes() == b"ours"


def fill(path, text):
    with whole_folder(path) as folder:
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "a.txt").write_text(text)
        (folder / f"{text}.txt").write_text(text)


@pytest.mark.parametrize("before", ["nothing", "a folder", "a file", "a link", "a broken link"])
def test_a_folder_takes_the_place_of_what_lay_there(tmp_path, before):
    path = tmp_path / "new" / "model"
    path.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.txt").write_text("kept")
    if before == "a folder":
        fill(path, "old")
    elif before == "a file":
        path.write_text("old")
    elif before == "a link":
        path.symlink_to(tmp_path / "elsewhere")
    elif before == "a broken link":
        path.symlink_to(tmp_path / "nowhere")
    fill(path, "new")
    assert files(path) == {"deep/er/a.txt": "new", "new.txt": "new"}
    assert not path.is_symlink()
    assert names(tmp_path / "new") == ["model"]
    assert files(tmp_path / "elsewhere") == {"kept.txt": "kept"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    path = tmp_path / "model"

    def fail():
        with whole_folder(path) as folder:
            (folder / "half.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []
    fill(path, "old")
    with pytest.raises(error):
        fail()
    assert files(path) == {"deep/er/a.txt": "old", "old.txt": "old"}
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model"
    fill(path, "old")
    replace = os.replace

    def refuse(source, target):
        # The new folder's way to its place alone: it holds a file that the old one does not.
        if target == path and (Path(source) / "new.txt").exists():
            raise OSError("no room")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no room"):
        fill(path, "new")
    assert files(path) == {"deep/er/a.txt": "old", "old.txt": "old"}
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files: Linux only")
def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """A rename may reach the disk before the bytes do, unless they are synced first."""
    events = []
    sync, replace = os.fsync, os.replace

    def synced(handle):
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    def replaced(source, target):
        events.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    fill(tmp_path / "model", "new")
    assert sorted(events[:-1]) == ["a.txt", "new.txt"]
    assert events[-1] == "rename to model"
    write_whole(tmp_path / "b.txt", b"b")
    assert events[-2].startswith(".b.txt.")
    assert events[-1] == "rename to b.txt"


def test_a_kill_at_any_time_leaves_one_whole_state(tmp_path):
    """A process that saves without end is killed: what lies under the name is whole."""
    program = """
import sys
from pathlib import Path
from pirn_jax.storage import whole_folder, write_whole
root, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_whole(root / "file", str(number).encode() * 20_000)
    with whole_folder(root / "folder") as folder:
        for name in range(20):
            (folder / str(name)).write_text(str(number))
    print(number, flush=True)
"""
    seen = 0
    for attempt in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert child.stdout is not None
        child.stdout.readline()  # something is there from now on
        time.sleep(0.011 * attempt)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        text = (tmp_path / "file").read_text()
        assert len(text) % 20_000 == 0
        assert text == text[: len(text) // 20_000] * 20_000
        if (tmp_path / "folder").exists():  # between two renames it stands beside its place
            seen += 1
            contents = files(tmp_path / "folder")
            assert len(contents) == 20
            assert len(set(contents.values())) == 1
    assert seen >= 1


# --- JSON and arrays ------------------------------------------------------------------------------


def test_json_comes_back_and_is_for_people_too(tmp_path):
    document = {"a": [1, 2.5, None, True], "größe": {"b": "ε"}}
    write_json(tmp_path / "a.json", document)
    assert read_object(tmp_path / "a.json") == document
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_object(tmp_path / "a.json") == document


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "expected a JSON object, got list"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": [-Infinity]}', "-Infinity is no JSON number"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
    ],
)
def test_documents_that_are_no_json_object(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=message) as caught:
        read_object(path)
    assert caught.value.path == str(path)


def test_documents_that_are_missing_or_huge(tmp_path):
    with pytest.raises(BadInputError, match="No such file"):
        read_object(tmp_path / "a.json")
    (tmp_path / "b.json").touch()
    os.truncate(tmp_path / "b.json", LARGEST_JSON + 1)
    with pytest.raises(BadInputError, match="larger than 16 MiB"):
        read_object(tmp_path / "b.json")


FIELD = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ANY_ORDER = {
    "c": FIELD,
    "turned": np.moveaxis(FIELD, 0, 1),
    "strided": FIELD[:, ::2],
    "fortran": np.asfortranarray(FIELD),
    "big_endian": FIELD.astype(">f4"),
    "number": np.array(3, np.int64),
    "none": np.zeros((0, 3), bool),
}


@pytest.mark.parametrize("name", ANY_ORDER)
def test_an_array_in_any_memory_order_comes_back(tmp_path, name):
    write_array(tmp_path / "a.npy", ANY_ORDER[name])
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert found.shape == ANY_ORDER[name].shape
    np.testing.assert_array_equal(found, ANY_ORDER[name])


def test_arrays_come_back_under_any_name_and_in_the_same_bytes(tmp_path, monkeypatch):
    arrays = ANY_ORDER | {"file": FIELD + 1, "allow_pickle": FIELD + 2}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == sorted(arrays)
        for name, array in arrays.items():
            assert found[name].shape == array.shape
            np.testing.assert_array_equal(found[name], array)
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((2031, *[1] * 8)))
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    write_arrays(tmp_path / "b.npz", {"a": np.zeros((500, 500))})
    assert (tmp_path / "b.npz").stat().st_size < 50_000  # compressed


def test_objects_are_never_pickled(tmp_path):
    objects = np.array([{}], object)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "a.npy", objects)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "a.npz", {"a": objects})
    assert names(tmp_path) == []


# --- trees of tensors -----------------------------------------------------------------------------


def test_tensors_in_any_memory_order_come_back(tmp_path):
    write_tensors(tmp_path / "a.safetensors", ANY_ORDER)
    found = read_tensors(tmp_path / "a.safetensors")
    assert set(found) == set(ANY_ORDER)
    for name, array in ANY_ORDER.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def header(document):
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing of the kind",
        (2**62).to_bytes(8, "little") + b"{}",
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}) + bytes(8),
        header({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 16]}}) + bytes(16),
        header({"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 16]}}) + bytes(16),
        header({"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}) + bytes(16),
    ],
    ids=["empty", "words", "endless", "cut", "overflow", "unknown type", "no type of numpy"],
)
def test_tensor_files_that_are_damaged_missing_or_a_folder(tmp_path, content):
    for wrong in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(BadInputError, match=r"cannot be (read|opened)|not a regular file"):
            read_tensors(wrong)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        read_tensors(path)
    assert caught.value.path == str(path)


TREE = {
    "layers": {
        0: {"kernel": FIELD, "bias": FIELD[0, 0]},
        1: {"kernel": -FIELD, "bias": FIELD[1, 1]},
        10: {"kernel": FIELD * 2, "bias": FIELD[0, 1]},
    },
    "scale": np.float32(2.0),
    "nothing": {},
}


def test_a_tree_is_named_by_its_paths_and_comes_back(tmp_path):
    flat = flatten("decoder", TREE)
    assert set(flat) == {
        "decoder.scale",
        *(f"decoder.layers.{n}.{name}" for n in (0, 1, 10) for name in ("kernel", "bias")),
    }
    save_file(flat, tmp_path / "a.safetensors")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.float32), TREE)
    found = unflatten("decoder", shapes, read_tensors(tmp_path / "a.safetensors"), tmp_path)
    assert jax.tree.structure(found) == jax.tree.structure(TREE)  # numbers are numbers again
    jax.tree.map(np.testing.assert_array_equal, found, TREE)


def test_device_arrays_are_leaves_and_two_of_one_name_are_not_lost():
    leaf = flatten("a", {"b": jnp.arange(3.0)})["a.b"]
    assert isinstance(leaf, np.ndarray)
    assert leaf.tolist() == [0, 1, 2]
    with pytest.raises(AssertionError, match=r"two arrays are called x\.a\.b"):
        flatten("x", {"a": {"b": FIELD}, "a.b": FIELD})


def stand_in(*shape):
    return SimpleNamespace(shape=shape)


def test_minus_one_is_any_size_but_none():
    tensors = {"x.a": np.zeros((5, 3)), "x.other": np.zeros(2)}
    for shape in ((-1, 3), (5, -1), (-1, -1), (5, 3)):
        assert unflatten("x", {"a": stand_in(*shape)}, tensors, Path("f"))["a"].shape == (5, 3)
    with pytest.raises(BadInputError, match=r"shape \(-1, 3\), got shape \(0, 3\)"):
        unflatten("x", {"a": stand_in(-1, 3)}, {"x.a": np.zeros((0, 3))}, Path("f"))


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (None, "nothing"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((3, 1)), r"shape \(3, 1\)"),
        (np.zeros(()), r"shape \(\)"),
        (np.array([0, np.nan, 0]), "NaN or infinite"),
        (np.array([0, 0, -np.inf]), "NaN or infinite"),
    ],
)
def test_a_tensor_that_is_not_the_one_wanted_is_named_with_its_file(array, problem):
    tensors = {} if array is None else {"x.layers.0.a": array}
    with pytest.raises(BadInputError, match=rf"x\.layers\.0\.a: .*got {problem}") as caught:
        unflatten("x", {"layers": {0: {"a": stand_in(3)}}}, tensors, Path("here/f.safetensors"))
    assert caught.value.path == str(Path("here/f.safetensors"))
