"""Folders and tars of pictures, sound and hostile."""

import io
import struct
import tarfile
import zlib

import numpy as np
import pytest
from distil.crops import Batches, crop, hold_out, whole
from distil.pictures import SMALLEST_SIDE, decode, read_pictures, source_names
from PIL import Image

from pirn_jax.errors import BadInputError, ConfigError
from tests.experiments.distil.problems import SIDE, png, some_pictures

GOOD = 5


def announced_png(width: int, height: int) -> bytes:
    """A PNG whose header promises much and whose pixels are a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b""))
    )


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def hostile_tar(path):
    pictures = some_pictures(GOOD)
    with tarfile.open(path, "w") as tar:
        for i, picture in enumerate(pictures):
            add(tar, f"good/{i}.png", png(picture))
        sound = png(pictures[0])
        add(tar, "../../escape.png", sound)
        add(tar, "/absolute.png", sound)
        add(tar, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.png", type=tarfile.LNKTYPE, linkname="good/0.png")
        add(tar, "device.png", type=tarfile.CHRTYPE)
        add(tar, "bomb.png", announced_png(60_000, 60_000))
        add(tar, "large.png", announced_png(9_000, 9_000))
        add(tar, "lying.png", announced_png(500, 500))
        add(tar, "text.png", b"this is no picture")
        add(tar, "cut.png", sound[: len(sound) // 2])
        add(tar, "empty.jpg")
        add(tar, "small.png", png(pictures[0][:8, :8]))
        add(tar, "deep.png", _deep())
        add(tar, "evil.pkl", b"cos\nsystem\n")
    return path


def _deep() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(stream, "PNG")
    return stream.getvalue()


def read(*sources, **changes):
    return read_pictures(list(sources), SIDE, **{"threads": 2, "memory": 1.0, **changes})


def test_bad_members_are_named_with_a_reason_and_nothing_is_written(tmp_path):
    path = hostile_tar(tmp_path / "some.tar")
    before = sorted(tmp_path.rglob("*"))
    found = read(path)
    assert found.names == tuple(f"some.tar/good/{i}.png" for i in range(GOOD))
    for array, expected in zip(found.arrays, some_pictures(GOOD), strict=True):
        np.testing.assert_array_equal(array, expected)
    reasons = {s.name.removeprefix("some.tar/"): s.reason for s in found.skipped}
    expected = {
        "../../escape.png": "leads out",
        "/absolute.png": "leads out",
        "link.png": "no regular file",
        "hard.png": "no regular file",
        "device.png": "no regular file",
        "bomb.png": "",
        "large.png": "at most",
        "lying.png": "",
        "text.png": "",
        "cut.png": "",
        "empty.jpg": "",
        "small.png": f"at least {SMALLEST_SIDE}",
        "deep.png": "8 bits",
        "evil.pkl": "no picture",
    }
    assert reasons.keys() == expected.keys()
    assert all(reasons[name] and part in reasons[name] for name, part in expected.items()), reasons
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_is_read_with_all_below_it_but_not_through_links(tmp_path):
    for i, picture in enumerate(some_pictures(GOOD)):
        path = tmp_path / "set" / str(i % 2) / f"{i}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture))
    (tmp_path / "set" / "link.png").symlink_to(path)
    (tmp_path / "set" / "notes.txt").write_text("no picture")
    found = read(tmp_path / "set")
    assert len(found.arrays) == GOOD
    assert [s.name for s in found.skipped] == ["set/link.png"]


def test_a_tar_that_is_cut_short_gives_what_is_whole(tmp_path):
    path = hostile_tar(tmp_path / "some.tar")
    with tarfile.open(path) as tar:
        end = tar.getmember(f"good/{GOOD - 1}.png").offset_data + 10
    (tmp_path / "cut.tar").write_bytes(path.read_bytes()[:end])
    found = read(tmp_path / "cut.tar")
    assert len(found.arrays) == GOOD - 1
    within, after = sorted(found.skipped, key=lambda skipped: -len(skipped.name))
    assert within == (f"cut.tar/good/{GOOD - 1}.png", "the archive ends within it")
    assert after.name == "cut.tar"
    assert after.reason.startswith(f"what follows good/{GOOD - 1}.png")


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read(tmp_path / "missing")
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(BadInputError, match="uncompressed tar"):
        read(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        add(tar, "a.png", b"x")
    with pytest.raises(BadInputError, match="uncompressed tar"):
        read(tmp_path / "b.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="four pictures"):
        read(tmp_path / "empty")


def test_what_does_not_fit_in_memory_is_named(tmp_path):
    size = SIDE * SIDE * 3
    found = read(hostile_tar(tmp_path / "some.tar"), memory=(4 * size + 10) / 2**30)
    assert len(found.arrays) == 4
    assert sum("no room" in s.reason for s in found.skipped) == 1


def test_large_pictures_are_kept_smaller_and_turned_upright():
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[:200] = 255
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the bright top becomes the right
    Image.fromarray(picture).save(stream, "JPEG", exif=exif)
    found = decode(stream.getvalue(), SIDE)
    assert found.shape[0] > found.shape[1] == round(1.6 * SIDE)
    left, right = np.array_split(found.astype(float), 2, axis=1)
    assert right.mean() > 250 > 5 > left.mean()


def test_sources_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "train", tmp_path / "b" / "train", tmp_path / "c.tar"]
    names = source_names(paths)
    assert names[:2] == ["a/train", "b/train"]
    assert len(set(names)) == 3


def test_pictures_held_out_are_never_drawn_and_weights_count():
    parts = hold_out([0] * 50 + [1] * 50, [1, 3], 0.1, 0, 512)
    assert len(parts.held_out) == 10
    assert not set(parts.held_out) & set(parts.train)
    assert set(parts.held_out) | set(parts.train) == set(range(100))
    times = np.bincount(parts.train, minlength=100)
    assert set(times[:50]) <= {0, 1}
    assert set(times[50:]) <= {0, 3}


def test_a_batch_depends_on_its_step_alone():
    pictures = list(some_pictures(6, 100))
    with Batches(pictures, np.arange(6), 4, SIDE, 7, 3) as batches:
        through = [next(steps) for steps in [batches.from_step(0)] for _ in range(6)]
        later = next(batches.from_step(4))
    assert later.shape == (4, SIDE, SIDE, 3)
    np.testing.assert_array_equal(through[4], later)
    assert not np.array_equal(through[3], through[4])


def test_crops_stay_within_the_picture():
    inside = np.full((37, 90, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert (crop(inside, SIDE, rng) == 200).all()
    half = np.zeros((40, 80, 3), np.uint8)
    half[:, 20:60] = 255
    assert (whole(half, SIDE)[:, 1:-1] == 255).all()
