"""Nothing unseen: what is part of no scan is named, and only known junk is quiet."""

import pytest

from pirn_jax.scans import open_dataset
from tests.scans import layouts

RGB = layouts.photograph()


def words(data):
    return " | ".join(note.words for note in data.notes)


def test_a_sound_dataset_has_nothing_to_say(tmp_path):
    layouts.mvtec3d(tmp_path)
    layouts.mvtec2d(tmp_path)
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini"):
        (tmp_path / "hazelnut/test/good" / name).write_bytes(b"x")
    assert open_dataset("mvtec3d", tmp_path, "bagel").notes == ()
    assert open_dataset("mvtec3d", tmp_path, "bagel", modalities=("rgb",)).notes == ()
    assert open_dataset("mvtec2d", tmp_path, "hazelnut").notes == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train/good/009.heic", "extension '.heic' is no photograph"),
        ("test/crack/009.pdf", "extension '.pdf'"),
        ("test/crack/noextension", "extension ''"),
        ("test/good/.000.png", "begins with a dot"),
        ("holdout/000.png", "no scan in this folder (1 file)"),
        ("stray.png", "it belongs to no scan"),
        ("test/good/deeper/000.png", "no scan in this folder"),
    ],
)
def test_files_and_folders_that_are_skipped_are_named(tmp_path, name, reason):
    here = layouts.mvtec2d(tmp_path)
    layouts.picture(here / "keep.png", RGB)
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / "keep.png").rename(here / name)
    said = words(open_dataset("mvtec2d", tmp_path, "hazelnut"))
    shown = name if "no scan in" not in reason else name.rsplit("/", 1)[0] + "/"
    assert f"left out: {shown}" in said
    assert reason in said


def test_many_files_of_one_kind_are_one_line(tmp_path):
    here = layouts.mvtec2d(tmp_path)
    for number in range(9):
        (here / "train/good" / f"{number}.raw").write_bytes(b"x")
    (note,) = open_dataset("mvtec2d", tmp_path, "hazelnut").notes
    assert "train/good/0.raw, train/good/1.raw, train/good/2.raw and 6 more" in note.words


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".jfif", ".tif"])
def test_pictures_that_pillow_reads_safely_are_read(tmp_path, suffix):
    for place in ("train/good", "test/good"):
        layouts.picture(tmp_path / place / "a.png", RGB)
        kind = {".jfif": "JPEG"}.get(suffix)
        from PIL import Image

        Image.fromarray(RGB).save(tmp_path / place / f"b{suffix}", format=kind)
    data = open_dataset("folder", tmp_path, "", modalities=("rgb",))
    assert data.train.keys == ("train/good/a", "train/good/b")
    assert data.notes == ()
    assert all(scan.rgb.shape == RGB.shape for scan in (*data.train, *data.test))
