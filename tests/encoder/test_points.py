"""Features of points in place of a picture of normals: as tokens, and in a detector."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import PIRN, open_encoder, view_scan
from pirn_jax.detector.encoders import is_encoder_of
from pirn_jax.encoder.point_mae import PointMae, PointMaeSize, skeleton
from pirn_jax.encoder.point_mae_weights import seeded_point_mae
from pirn_jax.encoder.points import EncoderWithPoints, Fpfh, Points, patch_means
from pirn_jax.encoder.source import Source
from pirn_jax.errors import BadInputError, ConfigError, WeightsError
from pirn_jax.geometry.fpfh import fpfh
from pirn_jax.geometry.normals import grid_normals
from pirn_jax.scans import open_dataset

CONFIG = Config(encoder="pirn-tiny", image_size=42, method="btf", background="plane")
SMALL = PointMaeSize(
    width=12, depth=2, heads=2, inner=(6, 8, 10), groups=8, neighbours=6, taps=(1, 2)
)


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=64, train=2, validation=1, test=2)


@pytest.fixture(scope="module")
def encoder():
    return open_encoder(CONFIG)


def test_a_view_has_points_where_they_are_asked_for(data):
    scan = data.train[0]
    view = view_scan(scan, CONFIG)
    assert view.normals is None
    assert view.picture("normals") is view.points
    measured = (view.points != 0).any(-1)
    assert view.valid[measured].all()
    assert measured.sum() > 0.9 * view.valid.sum()  # the rest are holes, of which there is no point
    others = view_scan(scan, dataclasses.replace(CONFIG, method="memory"))
    assert others.points is None
    assert others.picture("normals") is others.normals
    with pytest.raises(BadInputError, match="has no points, which"):
        view_scan(scan._replace(xyz=None, normals=np.zeros((64, 64, 3), np.float32)), CONFIG)


def test_tokens_are_those_of_both_side_by_side(data, encoder):
    assert encoder.features == "fpfh"
    assert encoder.widths(("normals", "rgb")) == (33, 192)
    assert encoder.channels == 192
    assert encoder.grid == (3, 3)
    views = [view_scan(scan, CONFIG) for scan in data.test]
    given = np.concatenate([np.stack([getattr(v, n) for v in views]) for n in ("rgb", "points")])
    found = np.asarray(encoder(given))
    np.testing.assert_allclose(found[:2], encoder.pictures(given[:2]), atol=1e-6)
    assert not found[2:, :, 33:].any()
    compiled = jax.jit(encoder.tokens)(encoder.parameters, given)
    np.testing.assert_allclose(compiled, found, rtol=1e-4, atol=1e-3)
    points = views[1].points
    normals = grid_normals(points, views[1].valid)
    histograms, described = np.asarray(fpfh(points, normals)), (np.asarray(normals) != 0).any(-1)
    for place in range(9):
        rows, columns = slice(place // 3 * 14, place // 3 * 14 + 14), place % 3 * 14
        inside = described[rows, columns : columns + 14]
        expected = histograms[rows, columns : columns + 14][inside].mean(0)
        np.testing.assert_allclose(found[3, place, :33], expected, rtol=1e-3, atol=0.5)


def test_patches_without_a_pixel_are_zero():
    values = np.ones((4, 4, 2), np.float32)
    valid = np.zeros((4, 4), bool)
    valid[0, 0] = True
    found = jax.jit(lambda v, c: patch_means(v, c, (2, 2)))(values, valid)
    np.testing.assert_array_equal(found, [[1, 1], [0, 0], [0, 0], [0, 0]])


def test_memory_of_point_mae_saves_and_loads_by_its_hash(data, encoder, tmp_path, monkeypatch):
    """Point-MAE as the memory's geometry: a row of its own in the tables."""
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"of a network that is made below")
    source = Source(str(file), "ab" * 32)
    network = PointMae(SMALL, seeded_point_mae(skeleton(SMALL)[1]), source, False)
    config = Config(encoder="pirn-tiny", image_size=42, method="memory", modalities=("normals",))
    config = with_settings(config, {"features": "point-mae"})
    own = EncoderWithPoints(encoder.pictures, network, config.modalities)
    model = PIRN(config, encoder=own).fit(data.train)
    assert model.parameters[0]["bank"].shape[-1] == own.channels == 24
    scores = [one.inferred.score for one in model.predict_scans(data.test)]
    assert scores[1] == pytest.approx(model.predict(data.test[1]).pred_score, rel=1e-4)
    folder = model.save(tmp_path / "model")
    again = PIRN.load(folder, encoder=own)
    assert again.predict(data.test[0]).pred_score == pytest.approx(scores[0], rel=1e-5)
    digest = own.source.sha256
    assert is_encoder_of(own, again.config, digest, "ab" * 32)
    assert not is_encoder_of(own, again.config, digest, "cd" * 32)
    assert not is_encoder_of(encoder, again.config, digest, "ab" * 32)
    with pytest.raises(WeightsError):  # found by its hash where it lay, and that is no such file
        PIRN.load(folder)
    file.unlink()
    with pytest.raises(WeightsError, match="Point-MAE of SHA-256 abab"):
        PIRN.load(folder)


def test_methods_that_see_no_points_refuse_such_an_encoder(data, encoder):
    memory = dataclasses.replace(CONFIG, method="memory")
    with pytest.raises(ConfigError, match="memory of normals with an encoder of fpfh"):
        PIRN(memory, encoder=encoder).fit(data.train)
    with pytest.raises(ConfigError, match="comes without weights"):
        open_encoder(with_settings(memory, {"features": "point-mae"}))
    alone = dataclasses.replace(CONFIG, modalities=("rgb",))
    assert open_encoder(alone).features == "normals"
    assert Fpfh().channels == 33


def test_points_lie_in_their_tokens_as_they_are(data):
    """Every other row and column: of a patch of 14 pixels a side 7, of one of 5 the middle two."""
    config = dataclasses.replace(CONFIG, method="shape-guided")
    encoder = open_encoder(config)
    assert (encoder.features, encoder.widths(config.modalities)) == ("points", (192, 147))
    points = np.stack([view_scan(scan, config).points for scan in data.test])
    found = encoder.points({}, jnp.asarray(points), encoder.grid)
    expected = points[:, 1::2, 1::2].reshape(2, 3, 7, 3, 7, 3).swapaxes(2, 3)
    np.testing.assert_array_equal(found, expected.reshape(2, 9, 147))
    odd = Points((5, 5))
    row = jnp.broadcast_to(jnp.arange(10.0)[None, :, None, None], (1, 10, 10, 3))
    assert odd.channels == 12
    np.testing.assert_array_equal(odd({}, row, (2, 2))[0, 0, ::3], [1, 1, 3, 3])
    np.testing.assert_array_equal(odd({}, row, (2, 2))[0, 3, ::3], [6, 6, 8, 8])
