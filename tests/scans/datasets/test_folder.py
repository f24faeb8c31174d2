"""Own folders: every arrangement the module's description names."""

import json

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import list_categories, open_dataset, open_files
from tests.scans import layouts
from tests.scans.hostile import clouds
from tests.scans.hostile import points as maps

RGB, XYZ = layouts.photograph(), layouts.points()
UP = np.zeros((*layouts.SIZE, 3), np.uint8) + np.array([128, 128, 255], np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".tif", ".tiff"):
        layouts.point_map(path, array)
    else:
        layouts.picture(path, array)


def test_splits_with_role_folders(tmp_path):
    for place, names in {
        "train/good": "ab",
        "validation/good": "c",
        "test/good": "d",
        "test/dent": "ef",
    }.items():
        for number, name in enumerate(names):
            save(tmp_path / "part" / place / "rgb" / f"{name}.png", layouts.photograph(number))
            points = layouts.points(number, unit=1000.0)  # millimetres, found out by itself
            save(tmp_path / "part" / place / "xyz" / f"{name}.tiff", points)
    save(tmp_path / "part/test/dent/gt/e.png", layouts.defect_mask(255))
    save(tmp_path / "part/train/good/ignore/b.png", layouts.defect_mask(255))
    assert list_categories("folder", tmp_path) == ("part",)
    data = open_dataset("folder", tmp_path, "part")
    assert data.train.keys == ("train/good/a", "train/good/b")
    assert data.validation.labels == (0,)
    assert data.test.defects == ("dent", "dent", "good")
    assert np.allclose(data.train[1].xyz, layouts.points(1), rtol=1e-6)
    assert data.train[0].ignore is None
    assert data.train[1].ignore.sum() == 15
    assert data.test[0].mask.sum() == 15 * 255
    assert data.test[1].mask is None  # masks are optional, and unknown is not good
    assert data.test[1].label == 1
    assert not data.test[2].mask.any()


def test_good_may_be_left_out_and_unsorted_test_scans_are_unknown(tmp_path):
    save(tmp_path / "train/rgb/a.png", RGB)
    save(tmp_path / "test/b.png", RGB)
    data = open_dataset("folder", tmp_path, "")
    assert data.train.keys == ("train/good/a",)
    assert data.train.labels == (0,)
    assert data.test.keys == ("test/b",)
    assert data.test.labels == (None,)
    assert data.test[0].mask is None


@pytest.mark.parametrize("points", [".tiff", ".npy", ".npz", ".ply", ".pcd"])
def test_flat_folders_of_files_side_by_side(tmp_path, points):
    writers = {
        ".tiff": lambda: layouts.tiff_bytes(XYZ),
        ".npy": lambda: maps.npy(XYZ),
        ".npz": lambda: clouds.SOUND_NPZ,
        ".ply": clouds.ply,
        ".pcd": clouds.pcd,
    }
    for name in "ab":
        save(tmp_path / f"{name}.jpg", RGB)
        (tmp_path / f"{name}{points.upper()}").write_bytes(writers[points]())
    save(tmp_path / "b_mask.png", layouts.defect_mask(3))
    (tmp_path / "notes.txt").write_text("ignored")
    data = open_dataset("folder", tmp_path, "")
    assert data.test.keys == ("a", "b")
    assert data.test.labels == (None, None)
    assert (len(data.train), len(data.validation)) == (0, 0)
    assert np.array_equal(data.test[0].xyz, XYZ)
    assert data.test[1].mask.max() == 3


def test_names_may_end_in_their_role(tmp_path):
    save(tmp_path / "a_rgb.tiff", RGB)
    save(tmp_path / "a_xyz.tiff", XYZ)
    save(tmp_path / "a_normals.png", UP)
    save(tmp_path / "a_ignore.png", layouts.defect_mask(1))
    data = open_dataset("folder", tmp_path, "")
    assert data.test.keys == ("a",)
    scan = data.test[0]
    assert np.array_equal(scan.rgb, RGB)
    assert np.array_equal(scan.xyz, XYZ)
    assert np.allclose(scan.normals, [0, 0, -1], atol=0.01)
    assert scan.ignore.any()


@pytest.mark.parametrize("role", ["rgb", "xyz", "depth", "normals"])
def test_one_modality_is_enough(tmp_path, role):
    if role == "depth":
        save(tmp_path / "part/depth/a.png", np.full(layouts.SIZE, 5000, np.uint16))
        camera = {"fx": 30, "fy": 30, "cx": 8, "cy": 6, "depth_scale": 1e-4}
        (tmp_path / "part/intrinsics.json").write_text(json.dumps(camera))
    else:
        array, suffix = {"rgb": (RGB, ".png"), "xyz": (XYZ, ".npy"), "normals": (UP, ".png")}[role]
        save(tmp_path / "part" / role / f"a{suffix}", array)
    scan = open_dataset("folder", tmp_path, "part").test[0]
    assert (scan.rgb is None) == (role != "rgb")
    assert (scan.xyz is None) == (role not in ("xyz", "depth"))
    assert (scan.normals is None) == (role != "normals")
    assert scan.valid.shape == layouts.SIZE
    if role == "depth":
        assert np.allclose(scan.xyz[..., 2], 0.5)


def test_one_ignore_mask_serves_a_whole_fixture(tmp_path):
    for name in "ab":
        save(tmp_path / "part/train/good/rgb" / f"{name}.png", RGB)
    save(tmp_path / "part/train/good/ignore/b.png", np.zeros(layouts.SIZE, np.uint8))
    save(tmp_path / "part/ignore.png", layouts.defect_mask(255))
    data = open_dataset("folder", tmp_path, "part")
    assert data.train[0].ignore.sum() == 15
    assert data.train[1].ignore.sum() == 0  # its own comes first


def test_calibration_beside_the_data_is_used(tmp_path):
    save(tmp_path / "a.png", layouts.photograph(size=(24, 32)))
    save(tmp_path / "a_depth.npy", np.full((12, 16), 0.5, np.float32))
    camera = {"fx": 30, "fy": 30, "cx": 7.5, "cy": 5.5}
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera))
    rgb = {"fx": 60, "fy": 60, "cx": 15.5, "cy": 11.5}
    pose = {"rotation": np.eye(3).tolist(), "translation": [0, 0, 0]}
    (tmp_path / "calibration.json").write_text(json.dumps({"rgb": rgb, **pose}))
    scan = open_dataset("folder", tmp_path, "").test[0]
    assert scan.xyz.shape == (24, 32, 3)
    assert scan.valid.mean() > 0.9
    # Both cameras look along one axis, so the nearest of 12×16 points lies within half its pitch.
    x = (np.nonzero(scan.valid)[1] - 15.5) / 60 * 0.5
    assert np.abs(scan.xyz[scan.valid][:, 0] - x).max() <= 0.5 / 30 * 0.5 + 1e-6


def removed(tmp_path, arrange, name):
    for number in range(2):
        for role, array in (("rgb", RGB), ("xyz", XYZ)):
            suffix = ".png" if role == "rgb" else ".tiff"
            save(tmp_path / arrange(role, f"{number}", suffix), array)
    (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["rgb/1.png", "xyz/0.tiff"])
def test_a_removed_file_of_a_role_folder_is_named(tmp_path, name):
    removed(tmp_path, lambda role, stem, suffix: f"{role}/{stem}{suffix}", name)
    role, stem = name.split(".")[0].split("/")
    with pytest.raises(BadInputError, match=rf"no {role} file for {stem}\."):
        open_dataset("folder", tmp_path, "")


@pytest.mark.parametrize("name", ["1.png", "0.tiff"])
def test_a_removed_file_of_a_flat_folder_is_named(tmp_path, name):
    removed(tmp_path, lambda role, stem, suffix: f"{stem}{suffix}", name)
    with pytest.raises(BadInputError, match=rf"no (rgb|xyz) file for {name[0]}\."):
        open_dataset("folder", tmp_path, "")


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    save(tmp_path / "a.png", RGB)
    save(tmp_path / "a.bmp", RGB)
    with pytest.raises(BadInputError, match="are both the rgb of 'a'"):
        open_dataset("folder", tmp_path, "")
    (tmp_path / "a.bmp").unlink()
    save(tmp_path / "b_mask.png", layouts.defect_mask(1))
    with pytest.raises(BadInputError, match="no rgb file for b_mask"):
        open_dataset("folder", tmp_path, "")


def test_two_masks_for_one_scan_and_overlooked_masks_are_refused(tmp_path):
    for role in ("rgb", "gt", "mask"):
        save(tmp_path / "part/test/dent" / role / "a.png", layouts.defect_mask(1))
    with pytest.raises(BadInputError, match="are both the mask of 'a'"):
        open_dataset("folder", tmp_path, "part")
    layouts.mvtec2d(tmp_path)
    with pytest.raises(BadInputError, match="ground_truth") as caught:
        open_dataset("folder", tmp_path, "hazelnut")
    assert "mvtec2d" in caught.value.remedy


def test_scans_of_a_category_must_have_the_same_modalities(tmp_path):
    save(tmp_path / "part/train/good/rgb/a.png", RGB)
    save(tmp_path / "part/train/good/xyz/a.tiff", XYZ)
    save(tmp_path / "part/test/dent/rgb/a.png", RGB)
    with pytest.raises(BadInputError, match=r"test/dent/a has \['rgb'\]"):
        open_dataset("folder", tmp_path, "part")


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(BadInputError, match="no scans found"):
        open_dataset("folder", tmp_path, "")
    with pytest.raises(ConfigError, match="did you mean 'unit'"):
        open_dataset("folder", tmp_path, "", units="mm")


def test_files_named_one_by_one(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png", RGB)
        save(tmp_path / f"{name}.tiff", XYZ)
    files = sorted(tmp_path.iterdir())
    scans = open_files(files)
    assert scans.keys == ("a", "b")
    assert np.array_equal(scans[1].xyz, XYZ)
    with pytest.raises(BadInputError, match=r"extension '\.txt'"):
        open_files([tmp_path / "a.txt"])
    with pytest.raises(BadInputError, match="same modalities"):
        open_files(files[:3])
