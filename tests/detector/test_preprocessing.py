"""Scans → views: what counts, what is read once, and where normals come from."""

from dataclasses import replace

import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import preprocessing, view_scan, view_shots
from pirn_jax.errors import BadInputError
from pirn_jax.geometry import background, remove_background
from pirn_jax.geometry.prepared import PreparedCache, Settings, prepare_scan
from pirn_jax.scans import Split, open_dataset

CONFIG = Config(encoder="pirn-tiny", image_size=70)


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=96, train=12, validation=0, test=2)


@pytest.fixture
def counted(data, monkeypatch, unchecked):  # checking a type would read a scan
    """The training scans, and how often each was read and a plane looked for."""
    reads: list[str] = []
    fits: list[int] = []
    places = {key: place for place, key in enumerate(data.train.keys)}

    def read(entry):
        reads.append(entry.key)
        return data.train[places[entry.key]]

    fitted = background._grid_plane

    def fit(points, seed):
        fits.append(len(points))
        return fitted(points, seed)

    monkeypatch.setattr(background, "_grid_plane", fit)
    return Split(data.train.entries, read), reads, fits


def test_with_all_locations_in_the_foreground_only_the_pictures_know_the_background(data):
    scan = data.test[0]
    masked = view_scan(scan, CONFIG)
    whole = view_scan(scan, with_settings(CONFIG, {"foreground": "all"}))
    assert 0.1 < masked.valid.mean() < 0.9
    assert whole.valid.all()
    np.testing.assert_array_equal(whole.rgb, masked.rgb)
    np.testing.assert_array_equal(whole.normals, masked.normals)
    outside = ~remove_background(scan.xyz)
    assert not whole.rgb[masked.frame.inside][~masked.valid].any() or outside.any()
    ignored = np.zeros(scan.valid.shape, bool)
    ignored[:48] = True
    half = view_scan(scan._replace(ignore=ignored), with_settings(CONFIG, {"foreground": "all"}))
    assert not half.valid[:34].any()
    assert half.valid[36:].all()


def test_points_that_are_ignored_are_not_there(data):
    scan = data.test[0]
    config = replace(CONFIG, method="btf")
    ignored = np.zeros(scan.valid.shape, bool)
    ignored[:48] = True
    part = view_scan(scan, config)
    half = view_scan(scan._replace(ignore=ignored), config)
    kept = part.valid & ~half.ignore
    assert (part.points[~kept] != 0).any()
    assert not half.points[~kept].any()
    np.testing.assert_array_equal(half.points[kept], part.points[kept])


def test_a_shot_is_read_once_and_fitted_to_a_plane_once(counted):
    scans, reads, fits = counted
    config, views, _ = view_shots(scans, CONFIG)
    assert config.background == "plane"
    assert sorted(reads) == sorted(scans.keys)
    assert len(fits) == len(views) == len(scans)


def test_views_of_shots_are_those_of_scans_in_order(data):
    config, views, _ = view_shots(data.train, CONFIG)
    for scan, found in zip(data.train, views, strict=True):
        expected = view_scan(scan, config)
        for name in ("rgb", "normals", "valid"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("count", [1, preprocessing.WITNESSES + 2])
def test_a_part_that_is_the_plane_is_kept_whole(data, count):
    """Sheets: most shots say so, and no shot loses anything."""
    flat = [scan._replace(xyz=sheet(scan.valid.shape), valid=np.ones_like(scan.valid))
            for scan in data.train[:count]]  # fmt: skip
    config, views, _ = view_shots(flat, CONFIG)
    assert config.background == "none"
    assert all(view.valid.all() for view in views)
    # What the config says already is not asked of the shots.
    config, *_ = view_shots(flat, replace(CONFIG, background="plane"))
    assert config.background == "plane"


def sheet(shape: tuple[int, int]) -> np.ndarray:
    """A plane with bumps of a centimetre everywhere, at the border as inside."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] * 1e-3
    bumps = 0.01 * (np.sin(rows * 400) * np.sin(columns * 400) > 0.8)
    return np.stack([columns, rows, 0.5 - bumps], -1).astype(np.float32)


def test_normals_at_hand_are_read_and_change_nothing(data, tmp_path, monkeypatch):
    scan, settings, cache = data.test[0], Settings("grid", "plane"), PreparedCache(tmp_path)
    computed = view_scan(scan, CONFIG)
    cache.write(scan, settings, prepare_scan(scan, settings))

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(preprocessing, "prepare_scan", refuse)
    found = view_scan(scan, CONFIG, cache)
    for name in ("rgb", "normals", "valid"):
        np.testing.assert_array_equal(getattr(found, name), getattr(computed, name))
    with pytest.raises(AssertionError, match="computed again"):  # other settings, another entry
        view_scan(scan, replace(CONFIG, background="none"), cache)


def test_the_first_shots_decide_square_and_poses(data, caplog):
    config, views, _ = view_shots(data.train.select(data.train.keys[:3]), CONFIG)
    assert config.part_side is not None
    # Biscuits are round: their silhouettes do not care. Pseudo-defects lie on them alone.
    assert config.changed == {"rotations": 1, "pseudo_defects": "on"}
    framed = replace(CONFIG, background="plane")
    frame = view_scan(data.train[0], framed)
    assert views[0].valid.mean() > 1.2 * frame.valid.mean()
    assert views[0].frame.window[0] < frame.frame.window[0]
    # The same again from what is stored, and a part that does not fit is shown smaller and said.
    again = view_scan(data.train[0], config)
    np.testing.assert_array_equal(again.rgb, views[0].rgb)
    caplog.clear()
    view_scan(data.train[0], replace(config, part_side=config.part_side / 2))
    assert "larger than those learned from" in caplog.text


def test_the_whole_frame_is_shown_where_it_was_asked_for(data):
    paper = replace(CONFIG, method="pirn", recipe="paper", geometry="grid")
    for asked in (with_settings(CONFIG, {"view": "frame"}), paper):
        config, *_ = view_shots(data.train.select(data.train.keys[:1]), asked)
        assert config.part_side is None
        assert config.changed.get("pseudo_defects") != "on"  # they would be as large as the part


def test_without_points_there_is_no_square(data):
    scan = data.train[0]
    config = Config(encoder="pirn-tiny", image_size=70, modalities=("rgb",))
    flat = scan._replace(xyz=None, valid=np.ones_like(scan.valid))
    decided, *_ = view_shots([flat], config)
    assert decided.part_side is None
    assert decided.changed["pseudo_defects"] == "off"
    decided, *_ = view_shots([scan], config)
    with pytest.raises(BadInputError, match="no points that say where the part is"):
        view_scan(flat, decided)


def test_turned_copies_are_for_parts_at_any_angle(data, monkeypatch):
    monkeypatch.setattr(preprocessing, "lie_at_any_angle", lambda parts: True)
    config, *_ = view_shots(data.train.select(data.train.keys[:2]), CONFIG)
    assert config.changed == {"rotations": 8, "jitter": 0, "pseudo_defects": "on"}
    moved = [one for one in config.chosen_recipe.augmentations() if one.kind == "move"]
    assert len(moved) == 7
    asked = with_settings(CONFIG, {"rotations": 2})
    config, *_ = view_shots(data.train.select(data.train.keys[:2]), asked)
    assert config.changed == {"rotations": 2, "pseudo_defects": "on"}
    asked = with_settings(CONFIG, {"rotations": 2, "pseudo_defects": "off"})
    config, *_ = view_shots(data.train.select(data.train.keys[:2]), asked)
    assert config.changed == {"rotations": 2, "pseudo_defects": "off"}


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), MemoryError(), KeyError("x"), RecursionError()]
)
def test_whatever_goes_wrong_in_one_scan_the_others_are_read(data, error, unchecked):
    keys = list(data.train.keys)

    def read(entry):
        if entry.key == keys[1]:
            raise error
        return data.train[keys.index(entry.key)]

    failed = {}
    split = Split(data.train.entries[:4], read)
    found = preprocessing.prefetch(split, lambda scan: scan.key, 2, failed.__setitem__)
    assert [key for _, key in found] == [keys[0], *keys[2:4]]
    assert list(failed) == [keys[1]]
    assert type(error).__name__ in str(failed[keys[1]])
    with pytest.raises(type(error)):
        list(preprocessing.prefetch(split, lambda scan: scan.key, 2))


def test_shots_whose_points_are_too_far_apart_for_a_picture_of_normals_are_refused(data):
    """Of a camera with three times the scanner's resolution, points on every third pixel."""
    scan = data.train[0]
    valid = np.zeros_like(scan.valid)
    valid[1::3, 1::3] = scan.valid[1::3, 1::3]
    apart = scan._replace(xyz=np.where(valid[..., None], scan.xyz, 0), valid=valid)
    with pytest.raises(BadInputError, match="points lie so far apart"):
        view_shots([apart], Config(image_size=32, background="none"))
