"""Each released layout, in tiny files, through the real loaders."""

import json
import zipfile

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scans import list_categories, open_dataset
from tests.scans import layouts


def check_scan(scan, size):
    """What `Scan` promises of every scan."""
    assert scan.valid.shape == size
    assert scan.valid.dtype == bool
    if scan.rgb is not None:
        assert scan.rgb.shape == (*size, 3)
        assert scan.rgb.dtype == np.uint8
    if scan.xyz is not None:
        assert scan.xyz.dtype == np.float32
        assert np.isfinite(scan.xyz).all()
        assert np.array_equal((scan.xyz != 0).any(-1), scan.valid)
    if scan.normals is not None:
        length = np.linalg.norm(scan.normals, axis=-1)
        assert np.allclose(length[length > 0], 1, atol=1e-6)
        assert (scan.normals[..., 2] <= 0).all()
    if scan.label == 0:
        assert scan.defect == "good"
        assert scan.mask is not None
        assert not scan.mask.any()


def test_mvtec3d(tmp_path):
    layouts.mvtec3d(tmp_path)
    data = open_dataset("mvtec3d", tmp_path, "bagel")
    assert data.train.keys == ("train/good/000", "train/good/001", "train/good/002")
    assert len(data.validation) == 2
    assert data.test.labels == (1, 1, 1, 0, 0)
    assert data.test.defects == ("combined", "crack", "crack", "good", "good")
    for scan in (*data.train, *data.validation, *data.test):
        check_scan(scan, layouts.SIZE)
    scan = data.test[1]
    assert np.array_equal(scan.rgb, layouts.photograph(7))  # its own number, not its neighbour's
    assert np.array_equal(scan.xyz, layouts.points(7))  # metres as stored
    assert np.array_equal(scan.mask, layouts.defect_mask(254))
    assert not scan.valid[0].any()
    assert scan.valid[1:].all()
    assert scan.paths["xyz"].endswith("000.tiff")


def test_mvtec2d(tmp_path):
    layouts.mvtec2d(tmp_path)
    data = open_dataset("mvtec2d", tmp_path, "hazelnut")
    assert (len(data.train), len(data.validation), len(data.test)) == (3, 0, 4)
    for scan in (*data.train, *data.test):
        check_scan(scan, layouts.SIZE)
        assert scan.xyz is None
        assert scan.valid.all()
    assert data.test.keys[:2] == ("test/crack/000", "test/crack/001")
    assert np.array_equal(data.test[1].mask, layouts.defect_mask(255))
    assert np.array_equal(data.test[1].rgb, layouts.photograph(1))


def test_eyecandies(tmp_path):
    layouts.eyecandies(tmp_path)
    data = open_dataset("eyecandies", tmp_path, "GummyBear", shipped_normals=True)
    assert data.train.keys == ("train/000", "train/001")
    assert data.test.keys == ("test_public/00", "test_public/01", "test_public/02")
    assert data.test.defects == ("good", "bumps", "combined")
    for scan in (*data.train, *data.validation, *data.test):
        check_scan(scan, layouts.SIZE)
    scan = data.test[1]
    assert np.array_equal(scan.rgb, layouts.photograph(41))  # light 4
    assert np.array_equal(scan.mask > 0, layouts.defect_mask(255) > 0)
    # The owners' formula, point by point: inverse camera matrix times (u, v, 1, 1/d) times d.
    height, width = layouts.SIZE
    low, high = layouts.EYECANDIES_DEPTH
    counts = np.linspace(0, 65535, height * width).astype(np.uint16).astype(np.float64)
    depth = counts / 65535 * (high - low) + low
    camera = np.eye(4)
    camera[0, 0] = camera[1, 1] = 711.11
    camera[0, 2], camera[1, 2] = width / 2, height / 2
    pixels = [(i % width, i // width, 1, 1 / depth[i]) for i in range(len(depth))]
    expected = (depth[:, None] * (np.linalg.inv(camera) @ np.array(pixels).T).T)[:, :3]
    assert np.allclose(scan.xyz.reshape(-1, 3), expected, atol=1e-6)
    # The documentation's conversion of the normals: [-1, 1], length 1, y and z turned.
    stored = np.array([128, 200, 230]) / 127.5 - 1
    expected = stored / np.linalg.norm(stored) * [1, -1, -1]
    assert np.allclose(scan.normals, expected, atol=1e-6)


@pytest.mark.parametrize("light", range(6))
def test_eyecandies_lights(tmp_path, light):
    layouts.eyecandies(tmp_path)
    data = open_dataset("eyecandies", tmp_path, "gummybear", light=light, modalities=("rgb",))
    assert np.array_equal(data.train[1].rgb, layouts.photograph(10 * light + 1))
    assert data.train[1].xyz is None


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folders"])
def test_real_iad_d3(tmp_path, packed):
    layouts.real_iad_d3(tmp_path, packed=packed)
    assert list_categories("real_iad_d3", tmp_path) == ("knob-cap",)
    data = open_dataset("real_iad_d3", tmp_path, "knob_cap", assume_aligned=True)
    assert (len(data.train), len(data.validation), len(data.test)) == (2, 1, 3)
    assert data.test.labels == (0, 1, 1)
    assert data.test.defects == ("good", "scratch", "scratch")
    for scan in (*data.train, *data.validation, *data.test):
        check_scan(scan, layouts.D3_RGB)
    scan = data.test[2]
    assert scan.mask is not None
    assert scan.mask.sum() == 255 * 15
    # Millimetres to metres; the first of twelve rows, NaN, covers the first two of 24.
    assert not scan.valid[:2].any()
    assert scan.valid[2:].all()
    expected = layouts.points(1, layouts.D3_XYZ)
    assert np.allclose(scan.xyz[2::2, ::9], expected[1:, ::4], atol=1e-6)
    assert np.allclose(scan.xyz[3::2, ::9], expected[1:, ::4], atol=1e-6)


def test_real_iad_d3_with_its_splits_still_packed(tmp_path):
    split = layouts.real_iad_d3(tmp_path)
    with zipfile.ZipFile(tmp_path / "realiad_d3_jsons.zip", "w") as archive:
        archive.write(split, f"realiad_d3_jsons/{split.name}")
        archive.writestr(f"__MACOSX/realiad_d3_jsons/._{split.name}", b"\0")
    split.unlink()
    split.parent.rmdir()
    data = open_dataset("real_iad_d3", tmp_path, "knob_zap", modalities=("rgb",))
    check_scan(data.test[1], layouts.D3_RGB)


def test_unproven_alignment_is_an_error_that_names_the_ways_out(tmp_path):
    layouts.real_iad_d3(tmp_path)
    data = open_dataset("real_iad_d3", tmp_path, "knob-cap")
    with pytest.raises(BadInputError, match=r"12×16 pixels for a photograph of 24×36") as caught:
        data.train[0]
    for way in ("calibration", "scale", "assume_aligned", "modalities"):
        assert way in caught.value.remedy
    xyz = open_dataset("real_iad_d3", tmp_path, "knob-cap", modalities=("xyz",)).train[0]
    check_scan(xyz, layouts.D3_XYZ)
    rgb = open_dataset("real_iad_d3", tmp_path, "knob-cap", modalities=("rgb",)).train[0]
    check_scan(rgb, layouts.D3_RGB)


REMOVED = {
    "mvtec3d xyz": ("mvtec3d", "bagel", "bagel/train/good/xyz/001.tiff", "001"),
    "mvtec3d rgb": ("mvtec3d", "bagel", "bagel/validation/good/rgb/000.png", "000"),
    "mvtec2d photograph": ("mvtec2d", "hazelnut", "hazelnut/test/crack/000.png", "000"),
    "eyecandies image": ("eyecandies", "GummyBear", "GummyBear/train/data/001_image_4.png", "001"),
    "eyecandies depth": ("eyecandies", "GummyBear", "GummyBear/val/data/000_depth.png", "depth"),
    "eyecandies bounds": (
        *("eyecandies", "GummyBear", "GummyBear/train/data/000_info_depth.yaml"),
        "000_info_depth",
    ),
    "eyecandies metadata": (
        *("eyecandies", "GummyBear", "GummyBear/test_public/data/01_metadata.yaml"),
        "01_metadata",
    ),
    "eyecandies mask": ("eyecandies", "GummyBear", "GummyBear/test_public/data/02_mask.png", "02"),
    "d3 photograph": (
        *("real_iad_d3", "knob-cap"),
        "realiad_d3_raw/knob-cap/GOOD/rgb/train_OK_S0001/knob-cap_L05_RGB.jpg",
        "train_OK_S0001",
    ),
    "d3 xyz": (
        *("real_iad_d3", "knob-cap"),
        "realiad_d3_raw/knob-cap/scratch/xyz/test_scratch_S0001.tiff",
        "test_scratch_S0001",
    ),
    "d3 mask": (
        *("real_iad_d3", "knob-cap"),
        "realiad_d3_raw/knob-cap/scratch/gt/rgb/test_scratch_S0000.png",
        "gt/rgb/test_scratch_S0000",
    ),
}


@pytest.mark.parametrize("case", REMOVED)
def test_a_removed_file_is_named_at_listing(tmp_path, case):
    name, category, removed, expected = REMOVED[case]
    if name == "real_iad_d3":
        layouts.real_iad_d3(tmp_path, packed=False)
    else:
        getattr(layouts, name)(tmp_path)
    (tmp_path / removed).unlink()
    with pytest.raises(BadInputError, match=expected):
        open_dataset(name, tmp_path, category)


def test_a_member_missing_from_an_archive_is_named(tmp_path):
    split = layouts.real_iad_d3(tmp_path)
    document = json.loads(split.read_text())
    document["train"][0]["xyz_path"] = "GOOD/xyz/lost.tiff"
    split.write_text(json.dumps(document))
    with pytest.raises(BadInputError, match=r"knob-cap\.zip!knob-cap/GOOD/xyz/lost\.tiff"):
        open_dataset("real_iad_d3", tmp_path, "knob-cap")


def test_without_point_clouds_the_way_out_is_named_and_works(tmp_path):
    here = layouts.mvtec3d(tmp_path)
    for folder in here.glob("*/*/xyz"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    with pytest.raises(BadInputError, match=r"modalities=\('rgb',\)"):
        open_dataset("mvtec3d", tmp_path, "bagel")
    data = open_dataset("mvtec3d", tmp_path, "bagel", modalities=("rgb",))
    assert data.test[0].xyz is None
    assert data.test[0].valid.all()


def test_masks_of_good_parts_may_be_missing_but_not_marked(tmp_path):
    here = layouts.mvtec3d(tmp_path)
    layouts.picture(here / "test/good/gt/000.png", layouts.defect_mask(255))
    data = open_dataset("mvtec3d", tmp_path, "bagel")
    with pytest.raises(BadInputError, match="good part whose mask marks a defect"):
        data.test[3]
    for file in (here / "test/good/gt").iterdir():
        file.unlink()
    scan = open_dataset("mvtec3d", tmp_path, "bagel").test[3]
    assert not scan.mask.any()


def test_extensions_in_capitals_pair_all_the_same(tmp_path):
    here = layouts.mvtec3d(tmp_path)
    (here / "train/good/rgb/000.png").rename(here / "train/good/rgb/000.PNG")
    (here / "train/good/xyz/001.tiff").rename(here / "train/good/xyz/001.TIF")
    data = open_dataset("mvtec3d", tmp_path, "bagel")
    assert np.array_equal(data.train[0].rgb, layouts.photograph(0))
    assert np.array_equal(data.train[1].xyz, layouts.points(1))


def test_pairs_are_made_by_stem_where_positions_would_shift(tmp_path):
    here = layouts.mvtec3d(tmp_path) / "train/good"
    (here / "rgb/000.png").unlink()
    (here / "xyz/000.tiff").unlink()
    data = open_dataset("mvtec3d", tmp_path, "bagel")
    assert np.array_equal(data.train[0].rgb, layouts.photograph(1))
    assert np.array_equal(data.train[0].xyz, layouts.points(1))


def test_defects_among_training_scans_are_refused(tmp_path):
    here = layouts.mvtec3d(tmp_path)
    (here / "test/crack").rename(here / "train/crack")
    with pytest.raises(BadInputError, match=r"defective parts \(crack\) among the train scans"):
        open_dataset("mvtec3d", tmp_path, "bagel")
