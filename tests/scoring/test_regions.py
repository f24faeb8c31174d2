"""Regions against analytic surfaces seen by a pinhole camera, and on generated scans."""

import inspect

import numpy as np
import pytest
from scipy import ndimage

from pirn_jax.errors import BadInputError
from pirn_jax.metrics.pixel import label_regions
from pirn_jax.scans.synthetic import generator, scene
from pirn_jax.scans.synthetic.defects import damage
from pirn_jax.scans.synthetic.parts import KINDS
from pirn_jax.scoring import find_regions
from pirn_jax.scoring.surface import pixel_areas, rectangle

FOCAL, SIZE = 500.0, 160  # pixels
RAYS = np.stack(
    [*np.meshgrid(*[(np.arange(SIZE) - SIZE / 2 + 0.5) / FOCAL] * 2), np.ones((SIZE, SIZE))], axis=2
)


def plane(tilt=(0.0, 0.0), distance=0.2):
    """Points on the plane n · p = distance (metres) that leans by these slopes, and its normal."""
    normal = np.array([*tilt, 1.0])
    normal /= np.linalg.norm(normal)
    depth = distance * normal[2] / (RAYS @ normal)
    return RAYS * depth[..., None], normal


def sphere(radius=0.04, distance=0.2):
    """Points on a ball before a wall, metres; zeros where a ray passes it by."""
    a, b = (RAYS**2).sum(2), RAYS[..., 2] * distance
    inside = b**2 - a * (distance**2 - radius**2)
    depth = (b - np.sqrt(np.maximum(inside, 0))) / a
    return RAYS * np.where(inside > 0, depth, 0.0)[..., None]


def only(mask, xyz=None, **options):
    scores = mask.astype(np.float32)
    regions = find_regions(mask, scores, xyz=xyz, **options)
    assert len(regions) == 1
    return regions[0]


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.5, 0.0), (-0.4, 0.8), (1.2, 0.3)])
def test_disc_on_a_leaning_plane(tilt):
    xyz, _ = plane(tilt)
    centre = xyz[80, 75]
    radius = 0.008
    mask = np.linalg.norm(xyz - centre, axis=2) < radius
    region = only(mask, xyz.astype(np.float32))
    pixel = 0.2 / FOCAL * 1e3 * np.sqrt(1 + tilt[0] ** 2 + tilt[1] ** 2)  # the longer step, mm
    assert region.area_mm2 == pytest.approx(np.pi * 8**2, rel=0.02)
    assert region.length_mm == pytest.approx(16, abs=2 * pixel)
    assert region.width_mm == pytest.approx(16, abs=2 * pixel)
    assert np.linalg.norm(np.subtract(region.centroid_m, centre)) < 2e-4
    assert abs(region.deviation_mm) < 1e-3
    assert region.measured_share == 1.0


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.2])
def test_rectangle_in_a_leaning_plane(angle):
    xyz, normal = plane((0.3, -0.4))
    along = np.array([1.0, 0.0, -normal[0] / normal[2]])
    along /= np.linalg.norm(along)
    across = np.cross(normal, along)
    along, across = (
        np.cos(angle) * along + np.sin(angle) * across,
        np.cos(angle) * across - np.sin(angle) * along,
    )
    off = xyz - xyz[80, 80]
    mask = (np.abs(off @ along) < 0.012) & (np.abs(off @ across) < 0.004)
    region = only(mask, xyz.astype(np.float32))
    assert region.length_mm == pytest.approx(24, abs=0.8)
    assert region.width_mm == pytest.approx(8, abs=0.8)
    assert region.area_mm2 == pytest.approx(24 * 8, rel=0.03)


@pytest.mark.parametrize("cap", [0.2, 0.5, 0.9])
def test_cap_of_a_sphere(cap):
    """Area 2 pi R h along the surface; the disc of its pixels is up to a third smaller."""
    xyz = sphere(radius=0.025)
    axis = np.array([0.0, 0.0, -1.0])
    cosine = (xyz - [0, 0, 0.2]) @ axis / 0.025
    mask = (xyz[..., 2] > 0) & (cosine > np.cos(cap))
    region = only(mask, xyz.astype(np.float32))
    want = 2 * np.pi * 25**2 * (1 - np.cos(cap))
    assert region.area_mm2 == pytest.approx(want, rel=0.02)
    assert region.length_mm == pytest.approx(50 * np.sin(cap), abs=0.8)
    if cap == 0.2:  # a quadratic fits a flat cap, 0.5 mm high
        assert abs(region.deviation_mm) < 0.05 * 25 * (1 - np.cos(cap))


@pytest.mark.parametrize("height", [0.0006, -0.0006, 0.002, -0.002])
@pytest.mark.parametrize("noise", [0.0, 3e-5])
def test_height_of_a_bump_and_depth_of_a_dent_on_a_sphere(height, noise):
    generator = np.random.default_rng(0)
    xyz = sphere(radius=0.06, distance=0.25)
    outward = xyz - [0, 0, 0.25]
    outward /= np.linalg.norm(outward, axis=2, keepdims=True)
    centre = xyz[85, 78]
    distance = np.linalg.norm(xyz - centre, axis=2)
    reach = 0.005
    shape = np.where(distance < reach, np.cos(np.pi / 2 * distance / reach) ** 2, 0.0)
    scan = xyz + (height * shape)[..., None] * outward
    scan += noise * generator.normal(size=scan.shape) * (xyz[..., 2:] > 0)
    region = only((shape > 0.02) & (xyz[..., 2] > 0), scan.astype(np.float32))
    assert region.deviation_mm == pytest.approx(1e3 * height, abs=0.03 + 4e3 * noise)
    assert np.sign(region.deviation_mm) == np.sign(height)
    assert region.deviation_noise_mm == pytest.approx(1e3 * noise, rel=0.4, abs=5e-3)


def test_holes_in_the_measurement_do_not_shrink_the_area():
    xyz, _ = plane((0.4, 0.2))
    mask = np.linalg.norm(xyz - xyz[80, 75], axis=2) < 0.008
    whole = only(mask, xyz)
    scan = xyz.copy()
    scan[np.random.default_rng(0).random(mask.shape) < 0.3] = 0.0
    scan[74:84, 70:80] = np.nan
    holed = only(mask, scan)
    assert holed.area_mm2 == pytest.approx(whole.area_mm2, rel=0.03)
    assert holed.length_mm == pytest.approx(whole.length_mm, abs=0.5)
    left = mask & np.isfinite(scan[..., 0]) & (scan[..., 2] != 0)
    assert holed.measured_share == pytest.approx(left.sum() / mask.sum())
    assert holed.measured_share < 0.7


def test_a_jump_in_depth_is_no_surface():
    """A block 50 mm before a wall: the region at its edge has the block's area, not the gap's."""
    near, _ = plane(distance=0.15)
    far, _ = plane(distance=0.2)
    block = np.zeros((SIZE, SIZE), bool)
    block[40:120, 40:120] = True
    xyz = np.where(block[..., None], near, far)
    mask = np.zeros_like(block)
    mask[60:80, 100:120] = True
    region = only(mask, xyz)
    assert region.area_mm2 == pytest.approx((20 * 150 / FOCAL) ** 2, rel=0.01)
    assert abs(region.deviation_mm) < 1e-3


def test_another_face_in_the_ring_does_not_tilt_the_frame():
    """A third of the ring lies 2 mm lower, five pixels' pitch: too little for a jump."""
    upper, _ = plane(distance=0.2)
    lower, _ = plane(distance=0.202)
    xyz = np.where((np.arange(SIZE) < 95)[None, :, None], upper, lower)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[70:90, 70:90] = True
    region = only(mask, xyz.astype(np.float32))
    assert (region.length_mm, region.width_mm) == pytest.approx((8.0, 8.0), abs=0.4)
    assert abs(region.deviation_mm) < 0.02


@pytest.mark.parametrize(("row", "column"), [(0, 1), (1, 0), (1, 1)])
def test_a_crack_one_pixel_wide(row, column):
    xyz, _ = plane()
    mask = np.zeros((SIZE, SIZE), bool)
    steps = np.arange(40)
    mask[60 + row * steps, 60 + column * steps] = True
    region = only(mask, xyz.astype(np.float32))
    step = np.hypot(row, column)
    pixel = 0.4
    assert region.length_mm == pytest.approx(40 * step * pixel, abs=2 * pixel)
    assert 0.8 * pixel < region.width_mm < 2 * pixel
    assert region.length_px == pytest.approx(40 * step, abs=1e-6)


def test_pixels_without_geometry():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 3:10] = True
    mask[12, 20] = mask[13, 21] = True  # touching at a corner: one region
    scores = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    scores[13, 21], scores[3, 4] = 7, 5
    first, second = find_regions(mask, scores)
    assert (first.box, first.pixels) == ((12, 20, 14, 22), 2)
    assert (first.peak, first.peak_pixel) == (7, (13, 21))
    assert (second.box, second.pixels, second.peak_pixel) == ((2, 3, 5, 10), 21, (3, 4))
    assert (second.length_px, second.width_px) == pytest.approx((7, 3))
    assert first.area_mm2 is None
    assert first.centroid_m is None
    assert first.shares == {}
    assert find_regions(np.zeros_like(mask), scores) == []
    unmeasured = find_regions(mask, scores, xyz=np.zeros((20, 30, 3), np.float32))
    assert [region.area_mm2 for region in unmeasured] == [None, None]
    assert unmeasured[0].measured_share == 0.0


def test_points_on_every_second_pixel_have_no_area_and_are_no_error():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[50:60, 50:60] = True
    sparse = np.zeros((SIZE, SIZE, 3))
    sparse[::2, ::2] = plane()[0][::2, ::2]
    region = only(mask, sparse, valid=np.ones_like(mask))
    assert region.measured_share == 0.25
    assert (region.area_mm2, region.length_mm, region.deviation_mm) == (None, None, None)


def test_which_modality_spoke():
    mask = np.zeros((20, 20), bool)
    mask[5:8, 5:8] = True
    mask[12:15, 12:15] = True
    rgb, normals = np.full((20, 20), 0.1), np.full((20, 20), 5.0)  # baselines do not count
    rgb[5:8, 5:8] += 0.3
    normals[5:8, 5:8] += 0.1
    normals[12:15, 12:15] += 1.0
    rgb[12:15, 12:15] -= 0.05
    first, second = find_regions(mask, rgb + normals, modalities={"rgb": rgb, "normals": normals})
    assert first.shares == pytest.approx({"rgb": 0.0, "normals": 1.0})
    assert second.shares == pytest.approx({"rgb": 0.75, "normals": 0.25})


def test_a_region_at_the_border_and_one_of_everything():
    xyz, _ = plane((0.2, 0.1))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:20, :30] = True
    assert only(mask, xyz).area_mm2 == pytest.approx(pixel_areas(xyz)[:20, :30].sum())
    everything = only(np.ones_like(mask), xyz)
    assert everything.area_mm2 == pytest.approx(pixel_areas(xyz).sum())
    assert everything.deviation_mm is None  # nothing around it to compare with
    dot = np.zeros_like(mask)
    dot[50, 50] = True
    region = only(dot, xyz)
    assert region.length_mm == pytest.approx(0.4, rel=0.15)
    assert region.deviation_mm == pytest.approx(0, abs=1e-3)


def test_areas_of_a_plane_are_exact():
    xyz, _ = plane()
    np.testing.assert_allclose(pixel_areas(xyz), 0.4**2, rtol=1e-9)
    valid = np.zeros((SIZE, SIZE), bool)
    with pytest.raises(BadInputError, match="no four neighbouring"):
        pixel_areas(xyz, valid)


def test_smallest_rectangle_against_all_directions():
    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=(30, 2)) * [1, 3]
        best = min(
            (np.prod(np.ptp(points @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], axis=0)))
            for a in np.linspace(0, np.pi / 2, 5001)
        )
        length, width = rectangle(points)
        assert length * width == pytest.approx(best, rel=2e-3)
        assert length * width <= best + 1e-12
        assert length >= width


def test_arrays_of_different_size():
    find = inspect.unwrap(find_regions)  # without the suite's type checks, as users have it
    mask = np.ones((4, 4), bool)
    with pytest.raises(BadInputError, match="normals has shape"):
        find(mask, np.ones((4, 4)), modalities={"normals": np.ones((4, 5))})
    with pytest.raises(BadInputError, match="anomaly_map has shape"):
        find(mask, np.ones((5, 4)))


SLOW = [pytest.param(c, marks=pytest.mark.slow) for c in ("housing", "heatsink", "foam", "rope")]
CATEGORIES = ["biscuit", "webbing", "flange", "dowel", *SLOW]


def noise_free(category, key, size=256):
    """The surface the generator renders, before the sensor: points in metres and the mask."""
    record, kind = generator.describe(category, key), KINDS[category]

    def stream(purpose):
        return generator.random_stream(category, 0, key, purpose)

    view = scene.take_view(stream("pose"), kind, size)
    surface = kind.draw(stream("part"), view.u, view.v, view.pixel)
    surface, mask = damage(
        stream("flaw"), record.defect, surface, view, record.share, record.strength
    )
    return scene.points(view, surface.height), mask


def fine_area(points, mask, times=4):
    """Area in mm² of the bilinear surface through the points over the mask's whole pixels."""
    (window,) = ndimage.find_objects(mask.astype(int))
    axes = [
        (np.arange(part.start * times, part.stop * times + 1) / times - 0.5).clip(0, size - 1)
        for part, size in zip(window, mask.shape, strict=True)
    ]
    place = np.meshgrid(*axes, indexing="ij")
    fine = np.stack(
        [ndimage.map_coordinates(points[..., i] * 1e3, place, order=1) for i in range(3)], axis=2
    )
    a, b, c, d = fine[:-1, :-1], fine[:-1, 1:], fine[1:, :-1], fine[1:, 1:]
    cells = np.linalg.norm(np.cross(b - a, c - a), axis=2) / 2
    cells += np.linalg.norm(np.cross(b - d, c - d), axis=2) / 2
    return cells[np.repeat(np.repeat(mask[window], times, 0), times, 1)].sum()


@pytest.mark.parametrize("category", CATEGORIES)
def test_regions_of_generated_scans(category):
    """Given the true mask: area within 5 % of the true surface, sizes within two pixels.

    For defects the sensor sees: 97 % of the mask and of three pixels around it were measured, as
    what lies inside a steep or shadowed pit is not in the scan. Sizes are compared in the picture
    plane, so only where most of the surface faces the camera to within 14 degrees.
    """
    compared = sized = 0
    for defect in generator.defects_of(category):
        key = f"test/{defect}/000"
        scan = generator.render(category, key)
        points, mask = noise_free(category, key)
        np.testing.assert_array_equal(scan.mask > 0, mask)
        regions = find_regions(mask, mask.astype(np.float32), xyz=scan.xyz, valid=scan.valid)
        assert sum(region.pixels for region in regions) == mask.sum()
        if scan.valid[ndimage.binary_dilation(mask, iterations=3)].mean() < 0.97:
            continue
        compared += 1
        total = sum(region.area_mm2 for region in regions)
        assert total == pytest.approx(fine_area(points, mask), rel=0.05), key
        labels = label_regions(mask)
        for region in (region for region in regions if region.pixels >= 30):
            top, left, bottom, right = region.box
            window = (slice(top, bottom), slice(left, right))
            if np.median(facing(points)[window]) < 0.97:
                continue
            inside = labels[window] == labels[region.peak_pixel]
            pixel = np.median(np.diff(points[..., 0], axis=1)) * 1e3
            corners = pixel * np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
            x_y = points[window][inside][:, None, :2] * 1e3 + corners
            length, width = rectangle(x_y.reshape(-1, 2))
            assert region.length_mm == pytest.approx(length, abs=2 * pixel), key
            assert region.width_mm == pytest.approx(width, abs=2 * pixel), key
            sized += 1
    assert compared >= 1
    assert sized >= 1 or category not in ("biscuit", "flange", "dowel", "housing", "foam")


def facing(points):
    """Cosine between the true surface's normal and the camera's axis."""
    normal = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    return np.abs(normal[..., 2]) / np.linalg.norm(normal, axis=2)
