"""What our readers and writers refuse: no file, a disk that fails, a place that is read."""

import errno
import io
import os

import pytest

from pirn_jax import storage
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.places import check_apart
from pirn_jax.storage import read_object, read_tensors


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("circle", "Too many levels of symbolic links"),
        ("device", "not a regular file"),
        ("long", "File name too long"),
        ("zero byte", "null"),
    ],
)
def test_what_is_no_file_is_named_and_nothing_hangs(tmp_path, kind, message):
    path = tmp_path / {"long": "a" * 300, "zero byte": "a\0b"}.get(kind, "config.json")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    for read in (read_object, read_tensors):
        with pytest.raises(BadInputError, match=message):
            read(path)


def test_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, most=-1):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(storage, "open_regular", lambda path: Failing())
    with pytest.raises(BadInputError, match="cannot be read: Input/output error"):
        read_object(tmp_path / "config.json")


def test_what_is_written_lies_apart_from_what_is_read(tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (tmp_path / "link").symlink_to(masks)
    check_apart(tmp_path / "out.json", masks, None)
    for out in (masks, masks / "000.png", tmp_path / "link" / "new.json"):
        with pytest.raises(ConfigError, match="which is read"):
            check_apart(out, tmp_path / "other", masks)
