"""A detector that sees its scans in tiles: learned, judged, kept; and what it finds by them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import PIRN, open_encoder
from pirn_jax.errors import ConfigError
from pirn_jax.scans import Scan, open_dataset

CONFIG = Config(encoder="pirn-tiny", image_size=56, tiles=2)


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=96, train=2, validation=2, test=3)


@pytest.fixture(scope="module")
def model(data):
    return PIRN(CONFIG).fit(data.train).calibrate(data.validation)


def test_shots_are_learned_from_in_tiles_and_scans_judged_so(model, data):
    assert model.encoder.grid == (7, 7)
    copies = 1 + len(model.config.chosen_recipe.augmentations())
    assert model.shots.values.shape == (2, 2 * copies, 49, 192)
    together = list(model.predict_scans(data.test, batch=3))
    assert together[0].inferred.fused.shape == (98, 98)
    for result in together:
        alone = model.predict(result.scan)
        assert alone.pred_score == pytest.approx(result.inferred.score, rel=1e-4)
        assert alone.anomaly_map.shape == result.scan.valid.shape
        assert result.inferred.fused.max() == pytest.approx(result.inferred.score)


def test_it_is_kept_with_the_model(model, data, tmp_path):
    folder = model.save(tmp_path / "model")
    again = PIRN.load(folder)
    assert again.config.tiles == again.encoder.tiles == 2
    score = model.predict(data.test[0]).pred_score
    assert again.predict(data.test[0]).pred_score == pytest.approx(score, rel=1e-5)
    whole = open_encoder(replace(CONFIG, tiles=1))
    assert PIRN.load(folder, encoder=whole).encoder.tiles == 2  # another one, and not used
    with pytest.raises(ConfigError, match="tiles: 2 a side, with an encoder for 1"):
        PIRN(CONFIG, encoder=whole)


def plate(number: int, *, spot: bool = False) -> Scan:
    """A ringed plate, no two alike; with a black spot of 1 % of its side, or without."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:400, :400]
    grey = 0.5 + 0.1 * np.sin(np.hypot(rows - 200, columns - 200) / 12)
    for sigma, strength in ((1, 0.02), (30, 0.015)):  # its grain, and how it is lit
        field = ndimage.gaussian_filter(random.standard_normal((400, 400)), sigma)
        grey += strength * field / field.std()
    if spot:
        grey[140:144, 250:254] = 0
    rgb = np.repeat(np.clip(255 * grey, 0, 255).astype(np.uint8)[..., None], 3, -1)
    return Scan(rgb, None, np.ones((400, 400), bool), key=f"plate {number}")


@pytest.mark.parametrize("tiles", [1, 2])
def test_a_defect_of_one_percent_of_the_side_is_found_in_tiles_alone(tiles):
    config = replace(CONFIG, tiles=tiles, modalities=("rgb",), method="memory")
    model = PIRN(config).fit([plate(number) for number in range(4)])
    good = [one.inferred for one in model.predict_scans([plate(n) for n in range(4, 10)])]
    odd = [one.inferred for one in model.predict_scans([plate(n, spot=True) for n in (10, 11, 12)])]
    limit, found = max(one.score for one in good), []
    for one in odd:
        place = np.unravel_index(one.fused.argmax(), one.fused.shape)
        off = np.abs((np.array(place) + 0.5) / config.view_size - (142 / 400, 252 / 400))
        found.append(one.score > limit and off.max() < 0.05)
    assert all(found) if tiles == 2 else not all(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("pirn", {"epochs": 2, "decoder.layers": 1}),
        ("subspace", {}),
        ("inp-former", {"epochs": 2, "warm_up": 1, "blocks": 2, "augment": False}),
        ("simplenet", {"steps": 5, "hidden": 32}),
        ("cflow", {"steps": 5, "blocks": 2}),
        ("cfm", {"steps": 5}),
        ("ast", {"steps": 5, "width": 8}),
        ("btf", {}),  # points, which are not cut, beside a photograph in tiles
        ("m3dm", {"steps": 3}),
        ("shape-guided", {"steps": 3, "patches": 9}),
    ],
)
def test_every_method_learns_from_tiles(data, method, change):
    """Tokens lie on one grid, so that methods that know positions know them across tiles."""
    config = with_settings(replace(CONFIG, method=method), change)
    model = PIRN(config).fit(data.train)
    assert model.shots is not None
    assert model.shots.values.shape[2] == 49
    for result in model.predict_scans(data.test):
        assert result.inferred.maps.shape == (2, 98, 98)
        assert np.isfinite(result.inferred.maps).all()
        assert result.inferred.score > 0
