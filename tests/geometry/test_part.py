"""The part within its scan, on plates whose place, size and angle are known."""

import numpy as np
import pytest

from pirn_jax.geometry import make_views
from pirn_jax.geometry.part import (
    MARGIN,
    TURNED_GAIN,
    find_part,
    lie_at_any_angle,
    part_frame,
    square_side,
)
from pirn_jax.scans import Scan

PITCH = 0.0005  # metres between pixels


def points(shape=(100, 140), pitch=PITCH):
    """A plane at 0.4 m, seen without perspective."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    z = np.full(shape, 0.4)
    return np.stack([columns * pitch, rows * pitch, z], -1).astype(np.float32)


def bar(degrees=0.0, centre=(50, 70), length=40, width=12, shape=(100, 140)):
    """A bar at an angle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    down, right = rows - centre[0], columns - centre[1]
    angle = np.deg2rad(degrees)
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    return (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)


def part(silhouette, pitch=PITCH):
    found = find_part(points(silhouette.shape, pitch), np.ones(silhouette.shape, bool), silhouette)
    assert found is not None
    return found


def test_place_extent_and_pitch_are_found():
    found = part(bar(centre=(40, 60)))
    assert found.centre == (40, 60)
    assert found.extent == 40
    assert found.pitch == pytest.approx(PITCH, rel=1e-3)


def test_without_points_or_without_a_measured_pixel_there_is_no_part():
    shown = bar()
    assert find_part(None, shown, shown) is None
    assert find_part(points(), ~shown, shown) is None


def test_unmeasured_pixels_do_not_count():
    shown = bar()
    valid = np.ones_like(shown)
    valid[:, :60] = False
    found = find_part(np.where(valid[..., None], points(), 0), valid, shown)
    assert found is not None
    assert found.extent == 30
    assert found.pitch == pytest.approx(PITCH, rel=1e-3)


def test_the_square_is_that_of_the_largest_part():
    side = square_side([part(bar(length=30)), part(bar(length=40))])
    assert side == pytest.approx(MARGIN * 40 * PITCH, rel=1e-3)


@pytest.mark.parametrize("degrees", [0, 30, 45, 80])
def test_a_square_for_turned_parts_holds_them_at_any_angle(degrees):
    lying = part(bar(degrees, length=60, width=6, shape=(100, 140)))
    side = square_side([lying], turned=True)
    assert side is not None
    assert side >= square_side([lying])
    assert side / PITCH == pytest.approx(max(60, MARGIN * lying.extent), abs=3)
    for other in range(0, 90, 15):
        assert part_frame(part(bar(other, length=60, width=6)), side, (56, 56))[1] == 1


def test_a_part_that_fills_the_frame_is_shown_with_the_frame():
    assert square_side([part(np.ones((100, 140), bool))]) is None
    assert square_side([]) is None


def test_a_millimetre_is_as_many_pixels_whatever_the_scan_s_resolution():
    coarse = part(bar(length=40, width=12))
    fine = part(bar(centre=(100, 140), length=80, width=24, shape=(200, 280)), PITCH / 2)
    side = square_side([coarse])
    windows = [part_frame(one, side, (56, 56))[0].window for one in (coarse, fine)]
    assert windows[1][0] == pytest.approx(2 * windows[0][0], abs=1)


def test_a_part_larger_than_the_square_is_shown_whole_and_said():
    side = square_side([part(bar(length=20))])
    frame, widened = part_frame(part(bar(length=40)), side, (56, 56))
    assert frame.window == (40, 40)
    assert widened == pytest.approx(40 / 23, rel=0.03)
    assert part_frame(part(bar(length=20)), side, (56, 56))[1] == 1


@pytest.mark.parametrize("centre", [(50, 70), (8, 10)])
def test_maps_go_back_to_the_scan_s_pixels(centre):
    shown = bar(centre=centre, length=30, width=14)
    found = part(shown)
    frame, _ = part_frame(found, square_side([found]), (64, 64))
    rgb = np.where(shown[..., None], 200, 30).astype(np.uint8).repeat(3, -1)
    scan = Scan(rgb, points(), np.ones(shown.shape, bool))
    views = make_views(scan, 64, shown, frame)
    assert views.valid.mean() > 2 * shown.mean()  # it is shown larger
    back = views.to_scan(views.valid.astype(np.float32)) > 0.5
    assert (back & shown).sum() / (back | shown).sum() > 0.9
    assert not back[:, 100:].any()


def test_parts_at_different_angles_lie_at_any_angle():
    bars = [part(bar(degrees)) for degrees in (0, 40, 100)]
    assert lie_at_any_angle(bars)


def test_parts_in_one_pose_and_round_ones_do_not():
    assert not lie_at_any_angle([part(bar(d, centre=(50 + d, 60))) for d in (0, 2, 4)])
    rows, columns = np.mgrid[:100, :140]
    discs = [part((rows - 50) ** 2 + (columns - c) ** 2 < 20**2) for c in (50, 70, 90)]
    assert not lie_at_any_angle(discs)
    assert not lie_at_any_angle([part(bar())])
    assert 0 < TURNED_GAIN < 1
