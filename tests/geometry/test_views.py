"""One geometry for every picture: there and back."""

import numpy as np
import pytest
from PIL import Image

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import Views, make_views, surface_normals
from pirn_jax.geometry.views import fit_frame, resize_nearest
from pirn_jax.scans import Scan
from tests.geometry.surfaces import angle

SHAPES = [
    ((80, 80), 56),
    ((60, 90), 56),
    ((90, 41), 56),
    ((70, 100), (56, 84)),
    ((90, 50), (56, 112)),
]


def picture(height, width, seed=0):
    """A smooth photograph, its xyz, and a mask."""
    row, column = np.mgrid[:height, :width]
    wave = 127 + 100 * np.sin(row[..., None] / 9 + np.arange(3)) * np.cos(column[..., None] / 7)
    z = 0.6 + 2e-3 * np.sin(row / 11) * np.cos(column / 8)
    xyz = np.stack([(column - width / 2) * 1e-3 * z, (row - height / 2) * 1e-3 * z, z], -1)
    mask = np.uint8((row > height // 3) & (row < height // 2) & (column > width // 2))
    return Scan(
        rgb=wave.astype(np.uint8),
        xyz=xyz.astype(np.float32),
        valid=np.ones((height, width), bool),
        normals=surface_normals(xyz.astype(np.float32), window=3),
        mask=mask * np.uint8(3),
        ignore=mask > 5,
    )


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_map_comes_back_to_the_scans_own_pixels(shape, size):
    """A map that holds each pixel's own place must hold the scan's own places afterwards."""
    frame = fit_frame(shape, (size, size) if isinstance(size, int) else size)
    for axis in (0, 1):
        scale = frame.window[axis] / frame.size[axis]
        place = (np.arange(frame.size[axis]) + 0.5) * scale - (frame.top, frame.left)[axis]
        there = np.moveaxis(
            np.broadcast_to(place, frame.size[::-1] if axis == 0 else frame.size), -1, axis
        )
        back = frame.to_scan(np.ascontiguousarray(there, np.float32))
        assert back.shape == shape
        expected = np.arange(shape[axis]) + 0.5
        inner = (expected > scale) & (expected < shape[axis] - scale)
        got = np.moveaxis(back, axis, 0)[inner]
        np.testing.assert_allclose(
            got, np.broadcast_to(expected[inner, None], got.shape), atol=2e-3
        )


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_every_field_shows_the_same_place(shape, size):
    scan = picture(*shape)
    views = make_views(scan, size)
    assert isinstance(views, Views)
    h, w = (size, size) if isinstance(size, int) else size
    assert views.rgb.shape == views.normals.shape == (h, w, 3)
    assert views.valid.shape == views.mask.shape == (h, w)
    assert views.rgb.dtype == views.normals.dtype == np.float32
    for field in (views.rgb, views.normals):
        assert field.min() >= 0
        assert field.max() <= 1
    padding = ~views.valid
    frame = views.frame
    rows = np.sum(views.valid.any(1)) * frame.window[0] / h
    columns = np.sum(views.valid.any(0)) * frame.window[1] / w
    assert abs(rows - shape[0]) <= 2 * frame.window[0] / h
    assert abs(columns - shape[1]) <= 2 * frame.window[1] / w
    assert not views.mask[padding].any()
    # The mask's centre of mass, taken back, is the mask's centre of mass.
    back = views.to_scan(views.mask.astype(np.float32))
    truth = np.argwhere(scan.mask > 0).mean(0)
    found = np.argwhere(back > 0.5).mean(0)
    np.testing.assert_allclose(found, truth, atol=1.0)
    # So does the photograph's: bicubic there, bilinear back, on a smooth picture.
    red = views.to_scan(np.ascontiguousarray(views.rgb[..., 0]))
    error = np.abs(red - scan.rgb[..., 0] / 255)[5:-5, 5:-5]
    assert error.max() < 0.06


def test_square_scans_are_resized_as_pillow_does():
    scan = picture(100, 100)
    expected = Image.fromarray(scan.rgb).resize((28, 28), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(make_views(scan, 28).rgb * 255, np.asarray(expected))
    nearest = Image.fromarray(scan.mask).resize((28, 28), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(make_views(scan, 28).mask, np.asarray(nearest) > 0)


def test_the_background_is_black_everywhere():
    scan = picture(80, 80)
    part = np.zeros((80, 80), bool)
    part[20:60, 20:60] = True
    before = scan.rgb.copy()
    views = make_views(scan, 40, part)
    outside = np.ones((40, 40), bool)
    outside[8:32, 8:32] = False  # bicubic reaches two pixels further
    assert not views.rgb[outside].any()
    assert not views.normals[outside].any()
    assert not views.valid[outside].any()
    assert views.valid[10:30, 10:30].all()
    np.testing.assert_array_equal(scan.rgb, before)


def test_a_hole_in_the_measurement_is_part_of_what_surrounds_it():
    """Burnt or black places return no point; the photograph shows them, and they are judged."""
    scan = picture(80, 80)
    valid = scan.valid.copy()
    valid[30:50, 30:50] = False
    valid[:, :10] = False  # what was not measured at the picture's edge is no part of anything
    part = np.zeros((80, 80), bool)
    part[20:60, 20:60] = True
    for kept in (None, part):
        views = make_views(scan._replace(valid=valid), 80, kept)
        assert views.valid[30:50, 30:50].all()
        assert not views.valid[:, :10].any()
    views = make_views(scan._replace(valid=valid), 80, part & (np.arange(80) < 40))
    assert not views.valid[30:50, 30:50].any()  # it is open to what is no part


def test_normals_are_encoded_and_stay_unit():
    views = make_views(picture(90, 60), 56)
    shown = views.normals.any(-1)
    decoded = views.normals[shown] * 2 - 1
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=-1), 1, atol=1e-5)
    assert (decoded[:, 2] < 0).all()


def test_averaging_normals_beats_the_nearest_pixel():
    """The surface and the figures of the module's docstring."""

    def waves(size):
        x, y = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size * 0.16 - 0.08])
        slopes = (1.2 * np.sin(60 * x) * np.cos(50 * y), np.cos(60 * x) * np.sin(50 * y))
        normal = np.stack([*slopes, -np.ones_like(x)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        return np.stack([x, y, 0.6 - 0.02 * np.cos(60 * x) * np.cos(50 * y)], -1), normal

    xyz, _ = waves(400)
    xyz[..., 2] += 0.2 * 0.16 / 400 * np.random.default_rng(0).standard_normal((400, 400))
    normals = surface_normals(xyz.astype(np.float32))
    scan = Scan(rgb=None, xyz=None, valid=np.ones((400, 400), bool), normals=normals)
    _, truth = waves(112)
    views = make_views(scan, 112)
    nearest = resize_nearest(normals, views.frame)
    averaged = np.median(angle(views.normals * 2 - 1, truth))
    assert averaged < 0.75 * np.median(angle(nearest, truth))
    assert averaged < 1


def test_holes_do_not_darken_normals():
    scan = picture(80, 80)
    random = np.random.default_rng(0)
    holes = random.random((80, 80)) < 0.3
    scan = scan._replace(normals=np.where(holes[..., None], 0, scan.normals).astype(np.float32))
    whole, pierced = make_views(picture(80, 80), 20).normals, make_views(scan, 20).normals
    shown = pierced.any(-1)  # where at least half of a pixel was measured
    assert shown.mean() > 0.9
    np.testing.assert_allclose(pierced[shown], whole[shown], atol=0.05)


def test_scans_of_one_modality():
    scan = picture(40, 40)
    photograph = scan._replace(xyz=None, normals=None, mask=None, ignore=None)
    views = make_views(photograph, 28)
    assert views.normals is None
    assert views.mask is None
    assert views.ignore is None
    assert views.valid.all()
    assert make_views(scan._replace(rgb=None), 28).rgb is None


def test_points_without_normals_have_no_view():
    """Normals have one home, and it is not here."""
    assert make_views(picture(40, 40)._replace(normals=None), 28).normals is None


def test_wrong_arguments():
    scan = picture(40, 40)
    with pytest.raises(ConfigError, match="size"):
        make_views(scan, 0)
    with pytest.raises(BadInputError, match="object pixels"):
        make_views(scan, 28, np.ones((41, 40), bool))
    with pytest.raises(BadInputError, match="anomaly map"):
        make_views(scan, 28).to_scan(np.zeros((14, 14), np.float32))


@pytest.mark.parametrize("strip", [1, 300, 1 << 21])
@pytest.mark.parametrize("shape", [(80, 60), (12, 150)])
def test_strips_are_what_pillow_makes_of_the_whole_window(shape, strip, monkeypatch):
    """To the last bit, and a line scan's window is the square of its length."""
    monkeypatch.setattr("pirn_jax.geometry.views._STRIP", strip)
    scan, rng = picture(*shape), np.random.default_rng(0)
    kept = rng.random(shape) < 0.8
    views = make_views(scan, 56, kept)
    frame = views.frame
    window = np.zeros((*frame.window, 3), np.uint8)
    place = (slice(frame.top, frame.top + shape[0]), slice(frame.left, frame.left + shape[1]))
    window[place] = scan.rgb * kept[..., None]
    whole = Image.fromarray(window).resize((56, 56), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(views.rgb, np.asarray(whole, np.float32) / np.float32(255))
    small = rng.random((56, 56), np.float32)
    back = Image.fromarray(small).resize(frame.window[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(views.to_scan(small), np.asarray(back)[place])
