"""One rule for every kind of mask file: the same defect comes out, or it is refused by name."""

import numpy as np
import pytest
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans import File, Limits, read_scan
from pirn_jax.scans.formats import read_mask
from tests.scans import layouts

SIZE = (40, 64)
MASK = np.zeros(SIZE, np.uint8)
MASK[8:24, 16:40] = 255
WHITE, BLACK = np.full((*SIZE, 3), 255, np.uint8), np.zeros((*SIZE, 3), np.uint8)


def colour(red, green, blue):
    return Image.fromarray((MASK[..., None] > 0) * np.array([red, green, blue], np.uint8))


def palette(index, *colours):
    picture = Image.fromarray(index.astype(np.uint8)).convert("P")
    picture.putpalette([value for one in colours for value in one])
    return picture


KINDS = {
    "8 bits": Image.fromarray(MASK),
    "0 and 1": Image.fromarray(MASK // 255),
    "1 bit": Image.fromarray(MASK).convert("1"),
    "16 bits": Image.fromarray(MASK.astype(np.uint16) * 257),
    "16 bits, numbers": Image.fromarray(MASK.astype(np.uint16) // 255),
    "red on black": colour(255, 0, 0),
    "dark blue on black": colour(0, 0, 90),
    "alpha of white": Image.fromarray(np.dstack([WHITE, MASK])),
    "alpha of black": Image.fromarray(np.dstack([BLACK, MASK])),
    "alpha and colours": Image.fromarray(np.dstack([np.asarray(colour(255, 0, 0)), MASK])),
    "opaque": Image.fromarray(np.dstack([np.asarray(colour(255, 0, 0)), WHITE[..., 0]])),
    "grey with alpha": Image.fromarray(np.dstack([WHITE[..., 0], MASK])),
    "palette": palette(MASK > 0, (0, 0, 0), (255, 0, 0)),
    "palette, index 0 is the defect": palette(MASK == 0, (255, 255, 255), (0, 0, 0)),
    "palette without black": palette(MASK > 0, (9, 9, 9), (9, 9, 9)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_defect_comes_out(tmp_path, kind):
    KINDS[kind].save(tmp_path / "m.png")
    assert np.array_equal(read_mask(File(tmp_path / "m.png"), Limits()) > 0, MASK > 0)


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_masks_count_from_the_middle_up(tmp_path, quality):
    Image.fromarray(MASK).save(tmp_path / "m.jpg", quality=quality)
    assert np.array_equal(read_mask(File(tmp_path / "m.jpg"), Limits()) > 0, MASK > 0)


def test_masks_that_could_be_read_in_two_ways_are_refused(tmp_path):
    blurred = np.clip(np.cumsum(MASK // 255, axis=1) * 10, 0, 255).astype(np.uint8)
    Image.fromarray(blurred).save(tmp_path / "a.jpg")
    both = np.dstack([np.asarray(colour(255, 0, 0)), 255 - MASK])
    Image.fromarray(both).save(tmp_path / "b.png")
    for name, message in (("a.jpg", "neither black nor white"), ("b.png", "either could be meant")):
        with pytest.raises(BadInputError, match=message) as caught:
            read_mask(File(tmp_path / name), Limits())
        assert caught.value.path == str(tmp_path / name)


def test_a_turned_photograph_has_its_mask_upright(tmp_path):
    """Viewers and labelling tools show it upright; so it is read, unless geometry forbids it."""
    exif = Image.Exif()
    exif[274] = 6
    stored = layouts.photograph(size=SIZE)
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(np.rot90(MASK, -1)).save(tmp_path / "m.png")
    scan = read_scan({"rgb": tmp_path / "a.jpg", "mask": tmp_path / "m.png"}, label=1)
    assert scan.rgb.shape == (SIZE[1], SIZE[0], 3)
    assert np.array_equal(scan.mask, np.rot90(MASK, -1))
    np.save(tmp_path / "a.npy", layouts.points(size=SIZE))
    with pytest.raises(BadInputError, match="EXIF orientation 6"):
        read_scan({"rgb": tmp_path / "a.jpg", "xyz": tmp_path / "a.npy"})
