"""A folder is believed whole or not at all."""

import json

import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.manifest import MANIFEST, digest_of, is_ours, read_whole, write_manifest

KIND, FILES = "a test 1", ("a.bin", "b.bin")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(64)))
    (tmp_path / "b.bin").write_bytes(b"b" * 64)
    write_manifest(tmp_path, KIND, FILES, {"rate": 0.5})
    return tmp_path


def test_what_was_written_is_read(folder):
    whole = read_whole(folder, KIND, FILES)
    assert whole.files == {"a.bin": bytes(range(64)), "b.bin": b"b" * 64}
    assert whole.about == {"rate": 0.5}
    assert is_ours(folder, KIND)
    assert not is_ours(folder, "a test 2")
    assert not is_ours(folder / "nowhere", KIND)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found_and_the_file_named(folder, name):
    content = (folder / name).read_bytes()
    for bit in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(flipped)
        with pytest.raises(BadInputError, match="not the file that was saved") as error:
            read_whole(folder, KIND, FILES)
        assert error.value.path == str(folder / name)


def test_no_flipped_bit_of_the_manifest_is_passed_over(folder):
    content = (folder / MANIFEST).read_bytes()
    whole = read_whole(folder, KIND, FILES)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / MANIFEST).write_bytes(flipped)
        try:  # white space may turn into other white space, and what it is about is the caller's
            assert read_whole(folder, KIND, FILES).files == whole.files
        except BadInputError:
            continue


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a.bin").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / "a.bin").replace(folder / "b.bin"),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"format": KIND})),
        lambda folder: (folder / MANIFEST).write_text(
            json.dumps({"format": KIND, "files": {"a.bin": 3, "b.bin": None}, "about": {}})
        ),
        lambda folder: write_manifest(folder, "another 1", FILES),
        lambda folder: write_manifest(folder, KIND, FILES[:1]),
    ],
)
def test_what_is_not_whole_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(BadInputError):
        read_whole(folder, KIND, FILES)


def test_the_digest_of_a_document_is_that_of_its_values():
    assert digest_of({"a": (1, 2), "b": 0.1}) == digest_of({"b": 0.1, "a": [1, 2]})
    assert digest_of({"a": 1}) != digest_of({"a": True})
