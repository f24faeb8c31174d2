"""Which data a run is made of: by content, whatever its folders are called."""

import shutil
from dataclasses import replace

import pytest

from pirn_jax.config import Config, TrainConfig
from pirn_jax.errors import BadInputError
from pirn_jax.runs.items import check_items, list_items, open_category, shots_of
from tests.scans import layouts


def config_of(dataset, root, **changes):
    return TrainConfig(dataset=dataset, data_root=str(root), shots=2, **changes,
                       detector=Config(modalities=("rgb",)))  # fmt: skip


def shots(config):
    (item,) = list_items(config)
    return shots_of(config, item)


@pytest.mark.parametrize("dataset", ["folder", "mvtec2d"])
def test_renaming_a_root_that_is_the_category_does_not_change_the_shots(tmp_path, dataset):
    here = layouts.mvtec2d(tmp_path)
    shutil.rmtree(here / "ground_truth")
    for number in range(3, 20):
        layouts.picture(here / "train/good" / f"{number:03}.png", layouts.photograph(number))
    before = shots(config_of(dataset, here))
    here.rename(tmp_path / "another name")
    assert shots(config_of(dataset, tmp_path / "another name")) == before
    (tmp_path / "another name/train").rename(tmp_path / "another name/Training")
    (tmp_path / "another name/Training/good").rename(tmp_path / "another name/Training/OK")
    assert shots(config_of(dataset, tmp_path / "another name")) == before


def test_renaming_a_category_of_own_files_does_not_change_the_shots(tmp_path):
    here = layouts.mvtec2d(tmp_path / "root")
    shutil.rmtree(here / "ground_truth")
    for number in range(3, 20):
        layouts.picture(here / "train/good" / f"{number:03}.png", layouts.photograph(number))
    before = shots(config_of("folder", tmp_path / "root"))
    here.rename(tmp_path / "root/other")
    assert shots(config_of("folder", tmp_path / "root")) == before


@pytest.mark.parametrize("other", ["hazelnut", "another", "another/inner"])
def test_another_root_goes_by_its_content(tmp_path, other):
    here = layouts.mvtec2d(tmp_path / "old")
    config = config_of("mvtec2d", tmp_path / "old")
    assert len(open_category(config, "hazelnut").train) == 3
    (tmp_path / other).parent.mkdir(exist_ok=True)
    shutil.copytree(here, tmp_path / other)
    root = tmp_path / other if "/" not in other else (tmp_path / other).parent
    moved = replace(config, data_root=str(root))
    assert len(open_category(moved, "hazelnut", elsewhere=True).train) == 3
    if "/" in other:  # in training the name that was asked for must be there
        with pytest.raises(BadInputError, match="no category 'hazelnut'"):
            open_category(moved, "hazelnut")


def test_a_truncated_test_scan_is_found_before_any_work(tmp_path):
    here = layouts.mvtec2d(tmp_path)
    config = config_of("mvtec2d", tmp_path)
    assert check_items(list_items(config), config)[0].data.notes == ()
    path = here / "test/crack/000.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInputError, match="cut short") as caught:
        check_items(list_items(config), config)
    assert caught.value.path == str(path)


def test_what_is_odd_is_said_before_any_work(tmp_path, caplog):
    here = layouts.mvtec2d(tmp_path)
    (here / "ground_truth/crack/000_mask.png").unlink()
    (here / "test/good/notes.doc").write_text("x")
    config = config_of("mvtec2d", tmp_path)
    (item,) = check_items(list_items(config), config)
    assert [note.touches for note in item.data.notes] == ["", "pixels"]
    said = caplog.text
    assert "notes.doc" in said
    assert "1 of 2 defective scans have no mask" in said


def test_photographs_as_tiff_beside_nothing_are_read_for_rgb_alone(tmp_path):
    for place in ("train/good", "test/good"):
        layouts.picture(tmp_path / place / "a.tiff", layouts.photograph())
    (item,) = list_items(replace(config_of("folder", tmp_path), shots=1))
    assert item.data.train[0].rgb is not None
    assert item.data.train[0].xyz is None
