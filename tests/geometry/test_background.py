"""The object's pixels: against the truth of generated scans, and against Open3D's DBSCAN."""

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import (
    GeometryWarning,
    background_of,
    choose_object,
    find_object,
    measured,
    remove_background,
)
from pirn_jax.scans import open_dataset
from pirn_jax.scans.synthetic.generator import CATEGORIES
from tests.geometry import surfaces


def iou(one, other):
    return np.sum(one & other) / np.sum(one | other)


@pytest.mark.parametrize("holes", [0.05, 0.3])
@pytest.mark.parametrize("kind", ["dome", "ring", "box"])
@pytest.mark.open3d
def test_both_methods_find_the_same_part(kind, holes):
    xyz, truth = surfaces.part_on_table(kind, holes=holes, seed=1)
    before = xyz.copy()
    ours, theirs = find_object(xyz), find_object(xyz, method="open3d")
    assert ours.reason == theirs.reason == ""
    assert iou(ours.object, theirs.object) >= 0.99
    assert iou(ours.object, truth) >= (0.9 if holes > 0.1 else 0.98)
    sign = np.sign(ours.plane[2]) * np.sign(theirs.plane[2])
    np.testing.assert_allclose(ours.plane, sign * theirs.plane, atol=1e-3)
    np.testing.assert_array_equal(xyz, before)


@pytest.mark.open3d
def test_both_methods_on_a_real_table(real_scan, request):
    """One of the scans shows a box on a table. The others are bins and heaps: several clusters of
    nearly the same size, of which the two methods may take different ones.
    """
    ours, theirs = find_object(real_scan), find_object(real_scan, method="open3d")
    agreement = iou(ours.object, theirs.object)
    if "test5" in request.node.callspec.id:
        assert agreement >= 0.99
    assert agreement >= 0.5


@pytest.mark.parametrize("method", ["grid", pytest.param("open3d", marks=pytest.mark.open3d)])
def test_the_same_seed_gives_the_same_pixels(method):
    xyz, _ = surfaces.part_on_table("dome", size=120, noise=1e-3)
    first = remove_background(xyz, seed=3, method=method)
    np.testing.assert_array_equal(first, remove_background(xyz, seed=3, method=method))


def test_only_the_largest_part_is_kept():
    xyz, truth = surfaces.part_on_table("dome", holes=0)
    xyz[20:40, 20:40, 2] -= 0.05  # a second, smaller part
    found = remove_background(xyz)
    assert not found[20:40, 20:40].any()
    assert iou(found, truth) > 0.98


def test_geometry_repeated_on_a_finer_grid():
    xyz, truth = surfaces.part_on_table("dome", size=120, holes=0)
    finer = xyz.repeat(2, axis=0).repeat(2, axis=1)
    assert iou(remove_background(finer), truth.repeat(2, axis=0).repeat(2, axis=1)) > 0.98


def test_unmeasured_pixels_inside_the_part_belong_to_it():
    xyz, truth = surfaces.part_on_table("box", holes=0)
    middle = tuple(np.argwhere(truth).mean(0).astype(int))
    inside = np.s_[middle[0] - 3 : middle[0] + 3, middle[1] - 3 : middle[1] + 3]
    xyz[inside] = 0
    xyz[15:20, 15:20] = np.nan  # and a hole in the table
    found = remove_background(xyz)
    assert found[inside].all()
    assert not found[15:20, 15:20].any()


def test_the_unit_of_depth_is_metres_and_a_gap_separates():
    """Two halves of a part 8 mm apart are two clusters, 3 mm apart are one."""
    for gap, together in ((0.008, False), (0.003, True)):
        xyz, _ = surfaces.part_on_table("box", holes=0)
        table = xyz[..., 2] > 0.585 + 0.1 * xyz[..., 0] - 0.05 * xyz[..., 1]
        middle = xyz[~table][:, 0].mean()
        xyz[np.abs(xyz[..., 0] - middle) < gap / 2] = 0
        found = remove_background(xyz)
        left, right = found & (xyz[..., 0] < middle), found & (xyz[..., 0] > middle)
        measured_pixels = measured(xyz)
        both = (left & measured_pixels).sum() > 500 and (right & measured_pixels).sum() > 500
        assert both == together


@pytest.mark.parametrize("method", ["grid", pytest.param("open3d", marks=pytest.mark.open3d)])
def test_a_border_without_a_plane_keeps_everything_and_says_so(method):
    random = np.random.default_rng(0)
    xyz = random.uniform(0.1, 1.0, (60, 60, 3)).astype(np.float32)
    with pytest.warns(GeometryWarning, match="no plane, nothing removed"):
        assert remove_background(xyz, method=method).all()
    assert "of the border's points" in find_object(xyz, method=method).reason


def test_an_unmeasured_border_keeps_everything_and_says_so():
    xyz, _ = surfaces.part_on_table("dome", size=120)
    xyz[:10], xyz[-10:], xyz[:, :10], xyz[:, -10:] = 0, 0, 0, 0
    with pytest.warns(GeometryWarning, match="0 measured points"):
        assert remove_background(xyz).all()


def test_an_empty_table_keeps_everything_and_says_so():
    xyz = surfaces.plane(120, (0.1, 0.1, -1))[0].astype(np.float32)
    with pytest.warns(GeometryWarning, match="nothing rises"):
        assert remove_background(xyz).all()


def test_the_plane_is_found_under_a_crowded_border():
    xyz, _ = surfaces.part_on_table("box", holes=0)
    clutter = np.random.default_rng(0).uniform(0.01, 0.08, (240, 70))
    xyz[:, :70, 2] -= clutter.astype(np.float32)  # over 40 % of the border
    found = find_object(xyz)
    assert found.reason == ""
    expected = np.array([-0.1, 0.05, 1.0, -surfaces.DISTANCE])
    expected /= np.linalg.norm(expected[:3])
    np.testing.assert_allclose(np.abs(found.plane), np.abs(expected), atol=5e-3)


@pytest.mark.parametrize("kind", ["dome", "ring", "box"])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_part_on_a_table_stands_on_a_plane(kind, noise):
    xyz, _ = surfaces.part_on_table(kind, size=120, holes=0.05, noise=noise)
    assert find_object(xyz).stands


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_generated_part_stands_on_a_plane(category):
    (scan,) = open_dataset(
        "synthetic", None, category, size=96, train=1, validation=1, test=1
    ).train
    assert find_object(scan.xyz).stands


@pytest.mark.parametrize("height", [0.0, 0.006, 0.012])
def test_a_part_that_is_the_plane_does_not(height):
    """A sheet that fills the picture: waves of that height in metres, and a dent in the middle."""
    xyz = surfaces.plane(120, (0.1, 0.1, -1))[0].astype(np.float32)
    rows, columns = np.mgrid[:120, :120] / 120
    waves = height * np.sin(17 * rows + 3) * np.cos(13 * columns)
    dent = 0.03 * np.exp(-((rows - 0.5) ** 2 + (columns - 0.4) ** 2) / 0.003)
    xyz[..., 2] += waves + (dent if height else 0)
    assert not find_object(xyz).stands


def test_real_parts_stand_on_a_plane(real_scan):
    assert find_object(real_scan).stands


def test_a_road_is_the_plane_itself(shared):
    root = shared / "data" / "mvtec3d_rgbxyz"
    if not (root / "road").is_dir():
        pytest.skip("road is not at hand")
    data = open_dataset("mvtec3d", root, "road")
    assert not any(find_object(scan.xyz).stands for scan in data.train)


def test_two_ways_to_say_what_the_object_is():
    xyz, _ = surfaces.part_on_table("dome", size=120)
    valid = measured(xyz)
    plane = choose_object(xyz, valid)
    np.testing.assert_array_equal(plane.object, remove_background(xyz))
    assert plane.stands
    nothing = choose_object(xyz, valid, "none")
    assert nothing.object.all()
    assert not nothing.reason
    assert choose_object(None, valid).object.all()
    assert choose_object(None, valid).reason
    with pytest.raises(ConfigError, match="plane or none"):
        choose_object(xyz, valid, "sky")


def test_points_that_are_not_valid_have_no_say():
    """Clutter that the scan calls invalid, over most of the border, would hide the table."""
    xyz, truth = surfaces.part_on_table("dome", size=120)
    clutter = np.ones((120, 120), bool)
    clutter[15:, 10:-10] = False
    xyz[clutter, 2] += np.random.default_rng(0).uniform(0.05, 1.0, clutter.sum())
    clutter[:, -10:] = False  # what is left of the border is the table's
    xyz[:, -10:] = surfaces.part_on_table("dome", size=120)[0][:, -10:]
    assert "no plane" in find_object(xyz).reason
    found = choose_object(xyz, ~clutter)
    assert not found.reason
    assert iou(found.object[15:, 10:], truth[15:, 10:]) > 0.9


def test_the_majority_of_witnesses_decides_the_background():
    table = find_object(surfaces.part_on_table("box", size=120)[0])
    sheet = find_object(surfaces.plane(120, (0.1, 0.1, -1))[0].astype(np.float32))
    assert (table.stands, sheet.stands) == (True, False)
    assert background_of([table, sheet, sheet]) == "none"
    assert background_of([table, sheet, table]) == "plane"
    assert background_of([table, sheet]) == "plane"
    assert background_of([]) == "plane"


def test_wrong_arguments():
    xyz, _ = surfaces.part_on_table("dome", size=60)
    with pytest.raises(ConfigError, match="method"):
        remove_background(xyz, method="fast")
    with pytest.raises(BadInputError, match="H, W, 3"):
        remove_background(xyz.reshape(-1, 3))
    with pytest.raises(BadInputError, match="pixel grids"):
        remove_background(xyz, np.zeros((61, 60, 3), np.uint8))
