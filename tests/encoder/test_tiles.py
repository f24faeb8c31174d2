"""Pictures in overlapping tiles: joined without a seam, and otherwise what the network says."""

import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.encoder import Blocks, Encoder, in_tiles, load_encoder, tile_side, tiled_side
from pirn_jax.encoder.points import EncoderWithPoints, Fpfh
from pirn_jax.encoder.tiles import TiledEncoder, joining
from pirn_jax.errors import BadInputError, ConfigError


class PatchMeans(Encoder):
    """A network without positions and context: a token is its patch's mean colour."""

    runtime, channels = "jax", 3

    def __init__(self, side: int, patch: int):
        self.image_size, self.grid, self.patch = (side, side), (side // patch,) * 2, patch
        self.parameters = self.packed = {}

    def tokens(self, parameters, images):
        rows, columns = self.grid
        cut = images.reshape(-1, rows, self.patch, columns, self.patch, 3)
        return jnp.asarray(cut).mean((2, 4)).reshape(-1, rows * columns, 3)


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("vit-tiny-16", "random", 64, (1, 2))


@pytest.fixture(scope="module")
def tiled(tiny):
    return TiledEncoder(tiny, 2)


def pictures(batch, side):
    return np.random.default_rng(batch).random((batch, side, side, 3), np.float32)


@pytest.mark.parametrize("tiles", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [4, 16])
def test_weights_add_up_to_one_and_rise_as_a_squared_sine(tokens, tiles):
    weights, shared = joining(tokens, tiles), tokens // 4
    assert weights.shape == (tiles, tiled_side(tokens, tiles), tokens)
    assert tiled_side(tokens, tiles) == tokens * (3 * tiles + 1) // 4
    assert tile_side(tiled_side(tokens, tiles), tiles) == tokens
    np.testing.assert_allclose(weights.sum((0, 2)), 1, atol=1e-6)
    assert (weights >= 0).all()
    for tile, own in enumerate(weights):  # a token counts in one place, where it lies
        start = tile * (tokens - shared)
        diagonal = own[start + np.arange(tokens), np.arange(tokens)]
        assert own.sum() == pytest.approx(diagonal.sum())
        rising = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / shared) ** 2
        np.testing.assert_allclose(diagonal[:shared], rising if tile else 1, atol=1e-6)
        last = tile == tiles - 1
        np.testing.assert_allclose(diagonal[-shared:], 1 if last else rising[::-1], atol=1e-6)


@pytest.mark.parametrize("tiles", [2, 3])
def test_a_network_that_sees_nothing_around_a_patch_says_the_same_in_tiles(tiles):
    small, side = PatchMeans(32, 4), tiled_side(32, tiles)
    found, images = in_tiles(small, tiles), pictures(2, side)
    assert found.image_size == (side, side)
    whole = PatchMeans(side, 4)
    assert found.grid == whole.grid
    np.testing.assert_allclose(found(images), whole.tokens({}, images), atol=1e-6)
    flat = np.full_like(images, 0.3)
    np.testing.assert_allclose(found(flat), 0.3, atol=1e-6)  # of a constant no seam is left


def test_tokens_are_the_tiles_own_and_their_mean_where_they_overlap(tiny, tiled):
    images = pictures(2, 112)
    assert (tiled.image_size, tiled.grid) == ((112, 112), (7, 7))
    total, weight = np.zeros((2, 7, 7, 192)), np.zeros((7, 7))
    for row in (0, 3):
        for column in (0, 3):
            cut = images[:, 16 * row : 16 * row + 64, 16 * column : 16 * column + 64]
            place = np.s_[row : row + 4, column : column + 4]
            total[:, *place] += np.asarray(tiny(cut)).reshape(2, 4, 4, 192)
            weight[place] += 1  # one shared token: the tiles count alike
    expected = total / weight[..., None]
    found = np.asarray(tiled(images)).reshape(2, 7, 7, 192)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(tiled(images[:1])[0].shape, (49, 192))
    states = np.mean(tiled.hidden_states(images, (1, 2)), 0)
    np.testing.assert_allclose(states.reshape(found.shape), expected, atol=1e-5)


def test_it_is_the_network_in_all_else(tiny, tiled):
    assert in_tiles(tiny, 1) is tiny  # and so all is as it was
    assert (tiny.tiles, tiled.tiles) == (1, 2)
    assert tiled.parameters is tiny.parameters
    assert tiled.flops(2) == 4 * tiny.flops(2)
    assert "in 2×2 tiles" in repr(tiled)
    even = tiled.read(Blocks((1, 2), normalised=True))
    assert even.tile is tiny.read(Blocks((1, 2), normalised=True))
    assert even.grid == tiled.grid
    assert even.read(Blocks((1, 2))) is tiled
    assert tiled.read(Blocks((1, 2), normalised=True)) is even  # one program for all that share it
    with pytest.raises(BadInputError, match="pictures of shape \\(B, 112, 112, 3\\)"):
        tiled(pictures(1, 64))
    points = EncoderWithPoints(tiled, Fpfh(), ("rgb", "normals"))
    assert (points.tiles, points.grid, points.image_size) == (2, (7, 7), (112, 112))


def test_tiles_that_share_no_whole_number_of_patches_are_refused():
    with pytest.raises(ConfigError, match=r"(?s)patches of 16 pixels.*nearest image_size: 64 × 64"):
        in_tiles(load_encoder("vit-tiny-16", "random", 80), 2)


def test_tiles_by_openvino(tiny, tiled):
    pytest.importorskip("openvino")
    fast = in_tiles(load_encoder("vit-tiny-16", "random", 64, (1, 2), runtime="openvino"), 2)
    images = pictures(2, 112)
    np.testing.assert_allclose(fast(images), tiled(images), atol=1e-4)
