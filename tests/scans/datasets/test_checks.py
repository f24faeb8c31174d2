"""A look at all files before any work: headers, masks and labels."""

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans import check_dataset, open_dataset
from tests.scans import layouts
from tests.scans.hostile import clouds

RGB = layouts.photograph()


def notes_of(root):
    return check_dataset(open_dataset("mvtec2d", root, "hazelnut"))


@pytest.fixture
def here(tmp_path):
    return layouts.mvtec2d(tmp_path)


def mask(here, name, array):
    layouts.picture(here / "ground_truth/crack" / f"{name}_mask.png", array)


def test_a_sound_dataset_has_nothing_to_say(here):
    assert notes_of(here.parent) == ()


def test_an_empty_mask_on_a_defect_is_said_and_says_nothing(here):
    mask(here, "000", layouts.defect_mask(0))
    (note,) = notes_of(here.parent)
    assert "test/crack/000" in note.words
    assert note.touches == "pixels"
    data = open_dataset("mvtec2d", here.parent, "hazelnut")
    assert data.test[0].mask is None
    assert data.test[1].mask.any()


def test_masks_that_are_missing_for_some_are_said(here):
    (here / "ground_truth/crack/001_mask.png").unlink()
    (note,) = notes_of(here.parent)
    assert "1 of 2 defective scans have no mask: test/crack/001" in note.words
    assert note.touches == "pixels"


def test_a_mask_over_half_of_the_picture_is_believed_and_said(here):
    large = np.zeros(layouts.SIZE, np.uint8)
    large[1:-1, 1:-1] = 255
    mask(here, "000", large)
    (note,) = notes_of(here.parent)
    assert note.words == "masks over more than half of the picture: test/crack/000"
    assert note.touches == "pixels"


@pytest.mark.parametrize("names", [("000", "001"), ("000",)])
def test_masks_upside_down_are_refused(here, names):
    for name in ("000", "001"):
        (here / "ground_truth/crack" / f"{name}_mask.png").unlink()
    for name in names:
        mask(here, name, 255 - layouts.defect_mask(255))
    with pytest.raises(BadInputError, match="upside down") as caught:
        notes_of(here.parent)
    assert "invert" in caught.value.remedy


@pytest.mark.parametrize(("removed", "touches"), [("good", "scans"), ("crack", "all")])
def test_test_scans_of_one_kind_alone_are_said(here, removed, touches):
    for path in [*(here / "test" / removed).iterdir(), *(here / "ground_truth").glob("*/*")]:
        if path.parent.name == removed:
            path.unlink()
    assert touches in [note.touches for note in notes_of(here.parent)]


WHOLE = {
    "a.png": lambda path: layouts.picture(path, RGB),
    "a.jpg": lambda path: layouts.picture(path, RGB),
    "a.bmp": lambda path: layouts.picture(path, RGB),
    "a.gif": lambda path: layouts.picture(path, RGB[..., 0]),
    "a.webp": lambda path: layouts.picture(path, RGB),
    "a.tiff": lambda path: layouts.point_map(path, layouts.points()),
    "a.npy": lambda path: np.save(path, layouts.points()),
    "a.pcd": lambda path: path.write_bytes(clouds.pcd()),
    "a.ply": lambda path: path.write_bytes(clouds.ply()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass_and_those_cut_short_are_named(tmp_path, name):
    place = tmp_path / "test" / name
    place.parent.mkdir()
    WHOLE[name](place)
    assert check_dataset(open_dataset("folder", tmp_path, "")) == ()
    data = place.read_bytes()
    for length in (0, 3, len(data) // 2, len(data) - 4):
        if name == "a.bmp" and length > 3:
            continue  # a header does not tell; found when it is read
        place.write_bytes(data[:length])
        with pytest.raises(BadInputError) as caught:
            check_dataset(open_dataset("folder", tmp_path, ""))
        assert caught.value.path == str(place)


def test_every_unreadable_file_is_named_at_once(here):
    for name in ("train/good/001.png", "test/good/000.png", "test/crack/001.png"):
        (here / name).write_bytes((here / name).read_bytes()[:-20])
    with pytest.raises(BadInputError, match="3 files cannot be read") as caught:
        notes_of(here.parent)
    for name in ("good/001.png", "good/000.png", "crack/001.png"):
        assert name in caught.value.problem
