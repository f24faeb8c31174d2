import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import list_categories, open_dataset
from pirn_jax.scans.synthetic.generator import (
    CATEGORIES,
    DEFECTS,
    GENERATOR_VERSION,
    HELD_OUT,
    MASK_VALUES,
    defects_of,
    describe,
    generator_hash,
    open_synthetic,
    render,
    write_mvtec3d,
)
from pirn_jax.scans.synthetic.defects import FLAWS, damage
from pirn_jax.scans.synthetic.parts import KINDS
from pirn_jax.scans.synthetic.scene import blocked, facing_normals, focal_length, points, take_view

ROOT = Path(__file__).resolve().parents[2]
ALL = [(category, defect) for category in CATEGORIES for defect in defects_of(category)]


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("rgb", "xyz", "valid", "mask")
    ) and (one.label, one.defect, one.key) == (other.label, other.defect, other.key)


def files_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_frozen():
    # A change of this hash is a change of the data: raise GENERATOR_VERSION, measure the difficulty
    # again (experiments/generator_difficulty.py), and pin the new hash.
    assert GENERATOR_VERSION == 1
    assert generator_hash() == ("d107978c288a72e259f0ad6dfc41da863878518e20b7a9c186b12fc35872d671")


def test_what_there_is():
    assert len(CATEGORIES) >= 6
    assert len(DEFECTS) >= 7
    assert len(HELD_OUT) == 2
    assert set(HELD_OUT) < set(CATEGORIES)
    assert {flaw.modality for flaw in FLAWS.values()} == {"texture", "geometry", "both"}
    assert min(flaw.shares[0] for flaw in FLAWS.values()) == 0.001
    assert max(flaw.shares[1] for flaw in FLAWS.values()) == 0.20
    assert list(MASK_VALUES.values()) == list(DEFECTS)


def test_splits():
    data = open_synthetic("housing")
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 10, 60)
    assert set(data.train.labels) == set(data.validation.labels) == {0}
    assert data.test.labels.count(0) == 24
    assert set(data.test.defects) == {"good", *DEFECTS}
    assert set(open_synthetic("rope").test.defects) == {"good", *DEFECTS} - {"print_missing"}
    assert all(data.test.defects.count(defect) == 4 for defect in DEFECTS)
    assert data.test.keys == tuple(sorted(set(data.test.keys)))
    assert data.test[0].key == data.test.keys[0] == "test/bump/000"


def test_nothing_is_rendered_before_it_is_read():
    # In a process of its own: the run-time type checks of this one look into every split.
    program = """
from pirn_jax.scans import open_dataset, synthetic
calls = []
synthetic.render = lambda *arguments: calls.append(arguments)
data = open_dataset("synthetic", None, "foam", test=1000)
assert len(data.test.keys) == len(data.test[:1000].labels) == 1000
assert data.test.defects.count("good") == 400
assert calls == []
data.test[3]
assert calls == [("foam", "test/bump/003", 0, 256)]
print("lazy")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "lazy\n", run.stderr


def test_a_scan_depends_on_category_seed_and_key_alone():
    data = open_synthetic("biscuit", size=64)
    key = data.test.keys[7]
    scan = data.test[7]
    assert same(scan, open_synthetic("biscuit", size=64, test=55, train=1).test.select([key])[0])
    assert same(scan, pickle.loads(pickle.dumps(data)).test[7])
    assert not same(scan, open_synthetic("biscuit", seed=1, size=64).test[7])
    train, validation = data.train[0], data.validation[0]
    assert not np.array_equal(train.rgb, validation.rgb)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_scan_is_plausible(category):
    size = 256
    scan = open_synthetic(category, size=size).train[0]
    assert scan.rgb.dtype == np.uint8
    assert scan.rgb.shape == scan.xyz.shape == (size, size, 3)
    assert scan.xyz.dtype == np.float32
    assert np.array_equal(scan.valid, scan.xyz.any(-1))
    assert np.all(scan.xyz[~scan.valid] == 0)
    assert 0.0 < 1 - scan.valid.mean() < 0.25
    x, y, z = scan.xyz[scan.valid].T
    assert 0.35 < z.min() < z.max() < 0.75
    # Organised: every point lies on its pixel's ray.
    row, column = np.nonzero(scan.valid)
    focal = focal_length(KINDS[category], size)
    np.testing.assert_allclose(x / z * focal + (size - 1) / 2, column, atol=1e-3)
    np.testing.assert_allclose(y / z * focal + (size - 1) / 2, row, atol=1e-3)
    # The part: what stands more than 5 mm above the plane of the border.
    edge = (np.minimum(row, column) < 8) | (np.maximum(row, column) >= size - 8)
    design = np.column_stack([x, y, np.ones_like(x)]).astype(float)
    plane = np.linalg.lstsq(design[edge], z[edge].astype(float), rcond=None)[0]
    lifted = design @ plane - z
    assert np.abs(lifted[edge]).max() < 0.001
    part = lifted > 0.005
    assert 0.12 < part.mean() < 0.6
    extent = np.hypot(np.ptp(x[part]), np.ptp(y[part]))
    assert 0.06 < extent < 0.14
    assert not edge[part].any()


def test_the_table_is_a_plane_and_its_normals_are_right():
    view = take_view(np.random.default_rng(3), KINDS["rope"], 96)
    for height in (0.0, 0.02):  # parallel planes, as far apart as the height says
        xyz = points(view, np.full((96, 96), height))
        slope_x, slope_y, distance = np.linalg.lstsq(
            np.column_stack([xyz[..., :2].reshape(-1, 2), np.ones(96 * 96)]),
            xyz[..., 2].ravel(),
        )[0]
        normal = np.array([slope_x, slope_y, -1]) / np.sqrt(slope_x**2 + slope_y**2 + 1)
        np.testing.assert_allclose(
            facing_normals(xyz), np.broadcast_to(normal, xyz.shape), atol=1e-8
        )
        if height == 0:
            table, table_distance = normal, distance
    np.testing.assert_allclose(normal, table, atol=1e-9)
    assert (table_distance - distance) * -normal[2] == pytest.approx(0.02, abs=1e-9)


def test_a_shadow_is_as_long_as_the_light_is_low():
    height = np.zeros((128, 128))
    height[:, 60:64] = 0.010  # a wall; light from the left at 10 mm of height per 20 mm
    shadow = blocked(height, 0.001, np.pi, 0.5, 1e-6)[64] > 0.5
    assert not shadow[:64].any()
    lengths = np.flatnonzero(shadow) - 63
    assert lengths.min() == 1
    assert abs(lengths.max() - 20) <= 2


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_parts_differ(category):
    scans = list(open_synthetic(category, size=64).train)
    for k, one in enumerate(scans):
        for other in scans[:k]:
            assert np.abs(one.rgb.astype(int) - other.rgb).mean() > 2
            both = one.valid & other.valid
            assert np.abs(one.xyz - other.xyz)[both].mean() > 2e-4


@pytest.mark.parametrize(("category", "defect"), ALL)
def test_a_flaw_changes_its_mask_and_its_modality_alone(category, defect):
    kind = KINDS[category]
    for number in range(2):
        key = f"test/{defect}/{number:03d}"
        record = describe(category, key)
        rng = np.random.default_rng(number)
        view = take_view(rng, kind, 160)
        good = kind.draw(rng, view.u, view.v, view.pixel)
        bad, mask = damage(rng, defect, good, view, record.share, record.strength)
        part = good.cover > 0.5
        assert mask.any()
        assert not (mask & ~part).any()
        changed = {
            name: getattr(good, name) != getattr(bad, name)
            for name in ("height", "albedo", "gloss", "ink")
        }
        changed["albedo"] = changed["albedo"].any(-1)
        assert np.array_equal(good.cover, bad.cover)
        texture = changed["albedo"] | changed["gloss"] | changed["ink"]
        if record.modality == "texture":
            assert not changed["height"].any()
        if record.modality == "geometry":
            assert not texture.any()
        if record.modality == "both":
            assert changed["height"].any()
            assert texture.any()
        assert not ((changed["height"] | texture) & ~mask).any()
        # The very outline of a dent may move by nothing.
        assert ((changed["height"] | texture) & mask).sum() >= mask.sum() - 3
        share = mask.sum() / part.sum()
        if defect == "print_missing":
            assert share <= record.share + 1e-3  # there may be less print than that
        else:
            assert abs(share - record.share) <= 3 / part.sum()


@pytest.mark.parametrize(("category", "defect"), ALL)
def test_a_defective_scan_and_its_good_twin(category, defect):
    key = f"test/{defect}/001"
    scan, twin = render(category, key, size=128), render(category, key, size=128, flawless=True)
    assert (scan.label, twin.label) == (1, 0)
    assert (scan.defect, twin.defect) == (defect, "good")
    assert set(np.unique(scan.mask)) == {0, next(v for v, d in MASK_VALUES.items() if d == defect)}
    assert not twin.mask.any()
    inside = scan.mask > 0
    assert not np.array_equal(scan.rgb[inside], twin.rgb[inside])  # geometry: by its shading
    if FLAWS[defect].modality == "texture":
        assert np.array_equal(scan.xyz, twin.xyz)
        far = ~binary_dilation(inside, iterations=3)  # the lens spreads a pixel or two
        assert np.array_equal(scan.rgb[far], twin.rgb[far])
    else:
        both = scan.valid & twin.valid & ~binary_dilation(inside, iterations=2)
        assert np.array_equal(scan.xyz[both], twin.xyz[both])
        moved = np.abs(scan.xyz - twin.xyz)[scan.valid & twin.valid & inside]
        assert moved.size == 0 or moved.max() > 5e-5
    corner = np.s_[:6, :6]
    assert np.array_equal(scan.rgb[corner], twin.rgb[corner])  # nothing global gives it away


def test_records_run_from_plain_to_barely_visible():
    for defect, flaw in FLAWS.items():
        records = [describe("housing", f"test/{defect}/{number:03d}") for number in range(24)]
        strengths = np.array([record.strength for record in records])
        shares = np.array([record.share for record in records])
        for values, (low, high) in (
            (strengths, flaw.strengths),
            (np.log(shares), np.log(flaw.shares)),
        ):
            assert low <= values.min() < low + 0.15 * (high - low)
            assert high >= values.max() > high - 0.15 * (high - low)
        assert abs(np.corrcoef(strengths, np.log(shares))[0, 1]) < 0.4


def test_written_and_read_by_the_mvtec_reader(tmp_path):
    numbers = {"train": 2, "validation": 1, "test": 30}
    folder = write_mvtec3d(tmp_path / "a", "housing", seed=3, size=96, **numbers)
    drawn = open_synthetic("housing", seed=3, size=96, **numbers)
    read = open_dataset("mvtec3d", tmp_path / "a", "housing")
    assert list_categories("mvtec3d", tmp_path / "a") == ("housing",)
    for split in ("train", "validation", "test"):
        assert getattr(read, split).keys == getattr(drawn, split).keys
        assert all(
            same(one, other)
            for one, other in zip(getattr(read, split), getattr(drawn, split), strict=True)
        )
    assert read.mask_values == drawn.mask_values

    document = json.loads((folder / "generated.json").read_text())
    assert document["version"] == GENERATOR_VERSION
    assert document["hash"] == generator_hash()
    known = {record["key"]: record for record in document["scans"]}
    assert len(known) == 33
    for scan in drawn.test:
        record = known[scan.key]
        assert record["pixels"] == np.count_nonzero(scan.mask)
        assert record["defect"] == scan.defect
        assert (record["strength"] > 0) == (record["share"] > 0) == bool(scan.label)
    camera = json.loads((folder / "calibration" / "camera_parameters.json").read_text())
    scan = drawn.train[0]
    row, column = np.argwhere(scan.valid)[1000]
    x, _, z = scan.xyz[row, column]
    assert x / z * camera["focus"] / camera["sx"] + camera["cx"] == pytest.approx(column, abs=1e-3)

    again = write_mvtec3d(tmp_path / "b", "housing", seed=3, size=96, **numbers)
    assert files_of(again) == files_of(folder)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["housing"]
    with pytest.raises(BadInputError, match="already"):
        write_mvtec3d(tmp_path / "a", "housing")


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="did you mean 'flange'"):
        open_synthetic("flang")
    with pytest.raises(ConfigError, match="size=16"):
        open_synthetic("flange", size=16)
    with pytest.raises(ConfigError, match="test=-1"):
        open_synthetic("flange", test=-1)
    for category, key in (
        ("rope", "test/print_missing/000"),
        ("flange", "train/crack/000"),
        ("flange", "test/crack"),
        ("flange", "test/crack/one"),
    ):
        with pytest.raises(ConfigError, match="is not a scan of the generated category"):
            describe(category, key)
