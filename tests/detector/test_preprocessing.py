"""Scans → views: what counts, what is read once, and where normals come from."""

from dataclasses import replace

import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import preprocessing, view_scan, view_shots
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


def test_a_shot_is_read_once_and_fitted_to_a_plane_once(counted):
    scans, reads, fits = counted
    config, views = view_shots(scans, CONFIG)
    assert config.background == "plane"
    assert sorted(reads) == sorted(scans.keys)
    assert len(fits) == len(views) == len(scans)


def test_views_of_shots_are_those_of_scans_in_order(data):
    config, views = view_shots(data.train, CONFIG)
    for scan, found in zip(data.train, views, strict=True):
        expected = view_scan(scan, config)
        for name in ("rgb", "normals", "valid"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("count", [1, preprocessing.WITNESSES + 2])
def test_a_part_that_is_the_plane_is_kept_whole(data, count):
    """Sheets: most shots say so, and no shot loses anything."""
    flat = [scan._replace(xyz=sheet(scan.valid.shape), valid=np.ones_like(scan.valid))
            for scan in data.train[:count]]  # fmt: skip
    config, views = view_shots(flat, CONFIG)
    assert config.background == "none"
    assert all(view.valid.all() for view in views)
    # What the config says already is not asked of the shots.
    config, _ = view_shots(flat, replace(CONFIG, background="plane"))
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
