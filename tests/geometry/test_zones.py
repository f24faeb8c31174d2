"""Zones: drawn by polygon and picture, moved with the part, read from files nobody believes."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.geometry.zones import Zone, Zones, find_pose, read_zones
from pirn_jax.scans import Limits

SHAPE = (120, 160)


def bracket(centre=(60, 80), degrees=0.0):
    """An L of 40 by 25 pixels, by its inequalities in turned coordinates; and a hole in its arm."""
    rows, columns = np.indices(SHAPE)
    angle = np.deg2rad(degrees)
    down, right = rows - centre[0], columns - centre[1]
    v = np.cos(angle) * down - np.sin(angle) * right
    u = np.cos(angle) * right + np.sin(angle) * down
    part = ((abs(u) <= 20) & (v >= 5) & (v <= 13)) | ((u >= -20) & (u <= -12) & (abs(v) <= 13))
    return part, np.hypot(u - 12, v - 9) <= 3.5


@pytest.mark.parametrize("degrees", [0.0, 30.0, -75.0, 142.0])
def test_zones_go_where_the_part_goes(degrees):
    part, hole = bracket()
    moved, where = bracket((52, 91), degrees)
    placed = Zones({"hole": Zone(hole, judged=False)}, part).place(moved)
    found = placed.not_judged
    assert (found & where).sum() / (found | where).sum() > 0.7
    off = np.subtract(ndimage.center_of_mass(found), ndimage.center_of_mass(where))
    assert np.hypot(*off) < 1


def test_a_round_part_is_shifted_and_not_turned():
    rows, columns = np.indices(SHAPE)
    disc = np.hypot(rows - 50, columns - 60) < 30
    pose = find_pose(disc, np.roll(disc, (12, -7), (0, 1)))
    assert pose.degrees == 0.0
    assert np.subtract(pose.after, pose.before) == pytest.approx((12, -7))


def test_zones_that_do_not_move():
    _, hole = bracket()
    zones = Zones({"hole": Zone(hole, judged=False), "rim": Zone(~hole, judged=True)})
    assert np.array_equal(zones.place(np.ones(SHAPE, bool)).not_judged, hole)
    with pytest.raises(BadInputError, match="120×160 pixels, a scan of 10×10"):
        zones.place(np.ones((10, 10), bool))


def picture(path, pixels):
    Image.fromarray(pixels.astype(np.uint8) * 255).save(path)


def test_a_file_of_zones(tmp_path):
    part, hole = bracket()
    picture(tmp_path / "hole.png", hole)
    picture(tmp_path / "part.png", part)
    (tmp_path / "zones.toml").write_text(
        'size = [120, 160]\npart = "part.png"\n[zones.hole]\nmask = "hole.png"\njudged = false\n'
        "[zones.box]\npolygon = [[10, 20], [29, 20], [29, 24], [10, 24]]\n"
    )
    zones = read_zones(tmp_path / "zones.toml", Limits())
    assert np.array_equal(zones.part, part)
    assert np.array_equal(zones.not_judged, hole)
    box = np.zeros(SHAPE, bool)
    box[20:25, 10:30] = True
    assert np.array_equal(zones.named["box"].pixels, box)
    alone = read_zones(tmp_path / "hole.png", Limits())
    assert np.array_equal(alone.not_judged, hole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size = [120, 160]", "no zones"),
        ("sise = [1, 1]", "did you mean 'size'"),
        ("[zones.a]\nmask = 'a.png'", "size: expected"),
        ("size = [99999, 99999]\n[zones.a]\nmask = 'a.png'", "more than the cap"),
        ("size = [120, 160]\n[zones.a]\njudged = 1", "true or false"),
        ("size = [120, 160]\n[zones.a]\njudged = true", "a polygon or a mask"),
        ("size = [120, 160]\n[zones.a]\npolygon = [[1, 2], [3, 4]]", "three corners"),
        ("size = [120, 160]\n[zones.a]\npolygon = [[1, 2], [3, nan], [5, 6]]", "three corners"),
        ("size = [120, 160]\n[zones.a]\nmask = '../a.png'", "not a plain path"),
        ("size = [120, 160]\n[zones.a]\nmask = 'small.png'", "10×10 pixels, size says"),
        ("size = [120", "not a readable TOML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, text, said):
    picture(tmp_path / "small.png", np.ones((10, 10), bool))
    (tmp_path / "zones.toml").write_text(text)
    with pytest.raises(PirnError, match=said) as caught:
        read_zones(tmp_path / "zones.toml", Limits())
    assert isinstance(caught.value, ConfigError | BadInputError)
    assert caught.value.path
