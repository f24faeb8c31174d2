"""Spellings of splits and of good parts: understood, or refused by name."""

import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans import list_categories, open_dataset
from pirn_jax.scans.datasets.names import defect_of
from tests.scans import layouts

RGB = layouts.photograph()


@pytest.mark.parametrize("dataset", ["mvtec2d", "folder"])
@pytest.mark.parametrize(
    ("train", "validation", "good", "bad"),
    [
        ("train/good", "validation/good", "test/good", "test/crack"),
        ("Train/good", "val/good", "test/OK", "test/NG"),
        ("train/normal", "Val/ok", "test/Good", "test/defective"),
        ("training/OK", "valid/normal", "TEST/no_defect", "TEST/not good"),
    ],
)
def test_common_spellings_are_understood(tmp_path, dataset, train, validation, good, bad):
    for number, place in enumerate((train, validation, good, bad)):
        layouts.picture(tmp_path / "part" / place / "0.png", layouts.photograph(number))
    assert list_categories(dataset, tmp_path) == ("part",)
    data = open_dataset(dataset, tmp_path, "part")
    assert data.train.keys == ("train/good/0",)  # the same keys, and so the same shots
    assert data.validation.keys == ("validation/good/0",)
    assert dict(zip(data.test.keys, data.test.labels, strict=True)) == {
        "test/good/0": 0,
        f"test/{bad.split('/')[1]}/0": 1,
    }
    assert data.notes == ()


@pytest.mark.parametrize("name", ["good_parts2", "goood", "Goods", "ok-line3", "normales"])
def test_what_may_be_good_or_a_defect_is_refused_by_name(tmp_path, name):
    layouts.picture(tmp_path / "train/good/0.png", RGB)
    layouts.picture(tmp_path / "test" / name / "0.png", RGB)
    with pytest.raises(BadInputError, match=f"'{name}' good ones") as caught:
        open_dataset("folder", tmp_path, "")
    assert caught.value.path == str(tmp_path / "test" / name)


@pytest.mark.parametrize("name", ["nok", "NG", "not_good", "bad", "crack", "broken", "goodyear"])
def test_defects_keep_their_names(tmp_path, name):
    assert defect_of(name, tmp_path) == name


def test_two_folders_for_one_split_or_label_are_refused(tmp_path):
    for place in ("train/good", "val/good", "validation/good"):
        layouts.picture(tmp_path / place / "0.png", RGB)
    with pytest.raises(BadInputError, match="val and validation are both the validation scans"):
        open_dataset("folder", tmp_path, "")
    layouts.picture(tmp_path / "root/two/train/good/0.png", RGB)
    layouts.picture(tmp_path / "root/two/train/OK/0.png", RGB)
    with pytest.raises(BadInputError, match="two scans have the key 'train/good/0'"):
        open_dataset("mvtec2d", tmp_path / "root", "two")


def test_a_root_that_is_itself_the_category(tmp_path):
    here = layouts.mvtec2d(tmp_path)
    assert list_categories("mvtec2d", here) == ("",)
    assert open_dataset("mvtec2d", here, "").train.keys[0] == "train/good/000"


def test_masks_of_one_kind_may_be_missing(tmp_path):
    here = layouts.mvtec2d(tmp_path)
    layouts.picture(here / "test/bent/000.png", RGB)
    data = open_dataset("mvtec2d", tmp_path, "hazelnut")
    masks = {scan.key: scan.mask is not None for scan in data.test}
    assert masks == {key: key != "test/bent/000" for key in masks}
