"""Photographs, masks and normal maps in every pixel format that has one meaning."""

import inspect
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import Limits, Options, read_scan
from tests.scans import layouts
from tests.scans.hostile import pictures

RGB = layouts.photograph()


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.tiff"])
def test_lossless_photographs_come_back_exactly(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name)
    assert np.array_equal(read_scan({"rgb": tmp_path / name}).rgb, RGB)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_photographs(tmp_path, compression):
    Image.fromarray(RGB).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_scan({"rgb": tmp_path / "a.tif"}).rgb, RGB)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_photographs_equal_pillows_own_reading(tmp_path, options):
    Image.fromarray(RGB).save(tmp_path / "a.jpeg", **options)
    expected = np.asarray(Image.open(tmp_path / "a.jpeg").convert("RGB"))
    assert np.array_equal(read_scan({"rgb": tmp_path / "a.jpeg"}).rgb, expected)


def test_grey_palette_and_opaque_alpha_are_resolved(tmp_path):
    grey = RGB[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_scan({"rgb": tmp_path / "grey.png"}).rgb, np.dstack([grey] * 3))
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read_scan({"rgb": tmp_path / "palette.png"}).rgb, expected)
    opaque = np.dstack([RGB, np.full(layouts.SIZE, 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "alpha.png")
    assert np.array_equal(read_scan({"rgb": tmp_path / "alpha.png"}).rgb, RGB)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("size", [(1, 2), (5, 3), (8, 8), (13, 21)])
def test_interlaced_and_narrow_pngs_pass_the_count_of_their_bytes(tmp_path, mode, size):
    """Adam7 has seven passes, some of them empty in small pictures."""
    source = np.random.RandomState(0).randint(0, 256, size, np.uint8)
    height, width = size
    bits = {"1": 1, "L": 8, "P": 2, "RGB": 24}[mode]
    rows = []
    for left, top, right, down in adam7_passes():
        columns = len(range(left, width, right))
        for _ in range(top, height, down):
            if columns:
                rows.append(bytes(1 + (columns * bits + 7) // 8))
    colour, depth = {"1": (0, 1), "L": (0, 8), "P": (3, 2), "RGB": (2, 8)}[mode]
    before = [pictures.chunk(b"PLTE", bytes(range(12)))] if mode == "P" else []
    data = pictures.png(
        width, height, depth, colour, b"\0\0\1", zlib.compress(b"".join(rows)), before
    )
    (tmp_path / "interlaced.png").write_bytes(data)
    mask = read_scan({"xyz": sound_points(tmp_path, size), "mask": tmp_path / "interlaced.png"})
    assert mask.mask.shape == size
    Image.fromarray(source).save(tmp_path / "plain.png")
    scan = read_scan({"xyz": sound_points(tmp_path, size), "mask": tmp_path / "plain.png"})
    assert np.array_equal(scan.mask, source)


def adam7_passes():
    """The seven passes of Adam7 as the PNG specification's table gives them."""
    starts = [(0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1)]
    steps = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)]
    return [(*start, *step) for start, step in zip(starts, steps, strict=True)]


def sound_points(folder, size):
    """Points spread over 10 cm, whatever the size."""
    xyz = np.random.RandomState(1).rand(*size, 3).astype(np.float32) * 0.1 + 0.1
    np.save(folder / "points.npy", xyz)
    return folder / "points.npy"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_masks_keep_their_grey_values(tmp_path, mode):
    values = layouts.defect_mask(255 if mode == "1" else 2)
    picture = Image.fromarray(values)
    if mode == "P":
        picture = picture.convert("P")
        picture.putpalette([9, 9, 9] * 256)  # the index is the value, whatever its colour
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "m.png")
    layouts.picture(tmp_path / "a.png", RGB)
    scan = read_scan({"rgb": tmp_path / "a.png", "mask": tmp_path / "m.png"}, label=1)
    assert np.array_equal(scan.mask, values)


def test_ignore_masks_become_true_and_false(tmp_path):
    layouts.picture(tmp_path / "a.png", RGB)
    layouts.picture(tmp_path / "i.png", layouts.defect_mask(7))
    scan = read_scan({"rgb": tmp_path / "a.png", "ignore": tmp_path / "i.png"})
    assert scan.ignore.dtype == bool
    assert np.array_equal(scan.ignore, layouts.defect_mask(1) == 1)


@pytest.mark.parametrize(
    ("frame", "signs"),
    [("opengl", (1, -1, -1)), ("directx", (1, 1, -1)), ("camera", (1, 1, 1))],
)
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_normal_maps_come_into_the_camera_frame(tmp_path, frame, signs, suffix):
    source = np.random.RandomState(0).randn(12, 16, 3)
    source[..., 2] = -np.abs(source[..., 2]) - 0.2  # towards the sensor
    camera = source / np.linalg.norm(source, axis=-1, keepdims=True)
    stored = camera * np.array(signs)
    if suffix == ".png":
        picture = np.rint(stored * 127.5 + 127.5).astype(np.uint8)
        picture[:2] = 0  # black: undefined
        layouts.picture(tmp_path / "n.png", picture)
    else:
        stored[:2] = 0
        np.save(tmp_path / "n.npy", stored)
    scan = read_scan({"normals": tmp_path / f"n{suffix}"}, Options(normal_frame=frame))
    assert not scan.valid[:2].any()
    assert not scan.normals[:2].any()
    angles = np.degrees(np.arccos(np.clip((scan.normals * camera).sum(-1), -1, 1)))[2:]
    assert angles.max() < 0.6  # half a step of 8 bits


def test_photographs_and_geometry_share_the_caps(tmp_path):
    layouts.picture(tmp_path / "a.png", RGB)
    for limits in (Limits(pixels=191), Limits(memory=100)):
        with pytest.raises(BadInputError, match="more than the cap") as caught:
            read_scan({"rgb": tmp_path / "a.png"}, Options(limits=limits))
        assert caught.value.path == str(tmp_path / "a.png")
    assert (
        read_scan({"rgb": tmp_path / "a.png"}, Options(limits=Limits(pixels=192))).rgb is not None
    )


def test_wrong_options_and_roles_are_named(tmp_path):
    with pytest.raises(ConfigError, match="unknown role"):
        read_scan({"colour": tmp_path / "a.png"})
    with pytest.raises(BadInputError, match="neither photograph nor geometry"):
        read_scan({})
    with pytest.raises(ConfigError, match="scale must be"):
        Options(scale=0.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"unit": "cm"}, "unit: expected one of m, mm, auto; got 'cm'"),
        ({"normal_frame": "open_gl"}, "did you mean 'opengl'"),
    ],
)
def test_options_outside_their_choices_are_refused(option, message):
    unchecked = object.__new__(Options)  # without the suite's type checks, as users have it
    vars(unchecked).update({**vars(Options()), **option})
    with pytest.raises(ConfigError, match=message):
        inspect.unwrap(Options.__post_init__)(unchecked)


def deep_png(values):
    """A colour PNG of 16 bits, by its specification: big-endian, each row after its filter."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    height, width, _ = values.shape
    return pictures.png(width, height, depth=16, body=zlib.compress(rows))


@pytest.mark.parametrize("mode", ["grey.png", "grey.tiff", "colour.tiff", "colour.png"])
def test_photographs_of_16_bits_are_read_where_white_is_stated(tmp_path, mode):
    path, deep = tmp_path / mode, RGB.astype(np.uint16) * 16
    if "grey" in mode:
        deep = deep[..., 0]
    if mode == "colour.png":
        path.write_bytes(deep_png(deep))
    elif path.suffix == ".png":
        Image.fromarray(deep).save(path)
    else:
        layouts.point_map(path, deep) if deep.ndim == 3 else tifffile.imwrite(path, deep)
    scan = read_scan({"rgb": path}, Options(white=16 * 255))
    assert np.array_equal(scan.rgb, RGB if deep.ndim == 3 else np.dstack([RGB[..., 0]] * 3))
    brighter = read_scan({"rgb": path}, Options(white=8 * 255)).rgb
    assert brighter.max() == min(255, 2 * int(scan.rgb.max()))
    with pytest.raises(BadInputError, match="16 bits") as caught:
        read_scan({"rgb": path})
    assert "--white" in caught.value.remedy
    layouts.picture(tmp_path / "plain.png", RGB)  # 8 bits stay as they are
    assert np.array_equal(read_scan({"rgb": tmp_path / "plain.png"}, Options(white=4095)).rgb, RGB)


@pytest.mark.parametrize(
    ("meaning", "orientation", "message"),
    [("minisblack", 1, None), ("miniswhite", 1, "MINISWHITE"), ("cielab", 1, "CIELAB"),
     ("rgb", 6, "orientation 6")],
)  # fmt: skip
def test_a_tiff_of_16_bits_that_is_no_upright_grey_or_rgb_is_refused(
    tmp_path, meaning, orientation, message
):
    deep = RGB.astype(np.uint16) * 16
    deep = deep[..., 0] if meaning.startswith("minis") else deep
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric=meaning, extratags=tag)
    if message is None:
        assert read_scan({"rgb": tmp_path / "a.tif"}, Options(white=4080)).rgb.shape == RGB.shape
        return
    with pytest.raises(BadInputError, match=message):
        read_scan({"rgb": tmp_path / "a.tif"}, Options(white=4080))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_alone_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_scan({"rgb": tmp_path / "a.png"}).rgb, expected)


def test_the_first_frame_of_a_gif_is_the_photograph(tmp_path):
    frames = [Image.fromarray(np.full((12, 16), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_scan({"rgb": tmp_path / "a.gif"}).rgb.max() == 10


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"exact": True}])
def test_webp_equals_pillows_own_reading_and_is_capped_by_its_header(tmp_path, options):
    Image.fromarray(RGB).save(tmp_path / "a.webp", **options)
    expected = np.asarray(Image.open(tmp_path / "a.webp"))
    assert np.array_equal(read_scan({"rgb": tmp_path / "a.webp"}).rgb, expected)
    with pytest.raises(BadInputError, match="12×16 pixels, more than the cap"):
        read_scan({"rgb": tmp_path / "a.webp"}, Options(limits=Limits(pixels=191)))
    (tmp_path / "b.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:-9])
    with pytest.raises(BadInputError, match="cut short"):
        read_scan({"rgb": tmp_path / "b.webp"})


def test_both_bytes_of_a_deep_colour_count(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (12, 16, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(deep_png(values))
    found = read_scan({"rgb": tmp_path / "a.png"}, Options(white=1023)).rgb
    expected = np.minimum(np.rint(values * (255 / 1023)), 255)
    assert np.array_equal(found, expected)
    only_low = np.zeros_like(values)
    only_low[2:5, 3:7, 1] = 1  # a mask of the faintest kind
    (tmp_path / "m.png").write_bytes(deep_png(only_low))
    scan = read_scan({"rgb": tmp_path / "a.png", "mask": tmp_path / "m.png"}, Options(white=1023))
    assert np.array_equal(scan.mask > 0, only_low.max(-1) > 0)


@pytest.mark.parametrize("rows", [1, 5, 12, 40])
def test_pictures_are_copied_strip_by_strip(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("pirn_jax.scans.formats.pictures._STRIP", rows * RGB.shape[1])
    layouts.picture(tmp_path / "a.png", RGB)
    assert np.array_equal(read_scan({"rgb": tmp_path / "a.png"}).rgb, RGB)
