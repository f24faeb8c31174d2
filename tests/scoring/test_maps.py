"""Anomaly maps against PyTorch's interpolate and scipy's Gaussian, alone and inside one jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pirn_jax.errors import ConfigError
from pirn_jax.scoring import above_own_level, image_score, score_distances, upsample
from pirn_jax.scoring.maps import smooth_upsampling


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("grid", "size", "side"),
    [
        ((16, 16), (224, 224), None),
        ((28, 28), (392, 392), None),
        ((28, 28), (392, 392), 224),  # of tiles
        ((12, 20), (168, 280), None),
    ],
)
def test_map_equals_interpolate_then_gaussian_filter(grid, size, side):
    torch = pytest.importorskip("torch")
    distance = np.abs(draw(0, 3, grid[0] * grid[1]))
    got = upsample(jnp.asarray(distance), size, grid, side)
    field = torch.from_numpy(distance.astype(np.float64)).reshape(3, 1, *grid)
    bilinear = torch.nn.functional.interpolate(
        field, size=size, mode="bilinear", align_corners=False
    )[:, 0].numpy()
    sigma = 4 / 224 * (side or min(size))
    want = np.stack(
        [ndimage.gaussian_filter(m, sigma, mode="reflect", truncate=4) for m in bilinear]
    )
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_reflection_is_about_the_pixel_edge():
    """Half-sample reflection, scipy's "reflect"; "mirror" would differ at the border."""
    impulse = np.zeros((40, 40))
    impulse[0, 0] = 1
    matrix = smooth_upsampling(40, 40, 3.0)  # no upsampling: the Gaussian alone
    got = matrix @ impulse @ matrix.T
    np.testing.assert_allclose(
        got, ndimage.gaussian_filter(impulse, 3.0, mode="reflect"), atol=1e-7
    )
    assert np.abs(got - ndimage.gaussian_filter(impulse, 3.0, mode="mirror")).max() > 1e-3


def test_reach_beyond_the_whole_picture():
    row = draw(0, 6).astype(np.float64)
    got = smooth_upsampling(6, 6, 5.0) @ row  # reaches 20 pixels over 6: several reflections
    np.testing.assert_allclose(got, ndimage.gaussian_filter1d(row, 5.0, mode="reflect"), atol=1e-6)


def test_a_constant_stays_constant():
    got = upsample(jnp.full((2, 64), 0.3), (112, 112))
    np.testing.assert_allclose(got, 0.3, rtol=1e-6)


def distances(seed):
    """Of two modalities, two images, 16 tokens."""
    return jnp.asarray(np.abs(draw(seed, 2, 2, 16)))


def test_modalities_are_summed_and_the_score_is_the_largest():
    d = distances(0)
    got = score_distances(d, (56, 56))
    for one, expected in zip(got.modalities, d, strict=True):
        np.testing.assert_allclose(one, upsample(expected, (56, 56)), atol=1e-6)
    np.testing.assert_allclose(got.fused, np.asarray(got.modalities).sum(0), rtol=1e-6)
    np.testing.assert_array_equal(got.score, np.asarray(got.fused).max(axis=(1, 2)))
    alone = score_distances(d[:1], (56, 56))
    np.testing.assert_allclose(alone.fused, got.modalities[0], atol=1e-6)


def test_one_jitted_call_and_no_dependence_on_the_batch():
    d = distances(3)

    @jax.jit
    def run(d):
        return score_distances(d, (56, 56), top=0.01)

    both = run(d)
    eager = score_distances(d, (56, 56), top=0.01)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), both, eager)
    for index in range(2):
        one = run(d[:, index : index + 1])
        np.testing.assert_allclose(one.score[0], both.score[index], rtol=1e-6)
        np.testing.assert_allclose(one.fused[0], both.fused[index], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_lower_quartile_of_what_counts_is_taken_off(share):
    distance = np.abs(draw(7, 2, 6, 41))
    valid = np.random.default_rng(8).random((6, 41)) < 0.6
    valid[3] = True
    valid[4] = np.arange(41) == 5  # one token alone
    got = above_own_level(jnp.asarray(distance), jnp.asarray(valid), share)
    for modality, image in np.ndindex(2, 6):
        counted = distance[modality, image][valid[image]]
        quartile = np.percentile(counted, 25, method="inverted_cdf")
        want = np.maximum(distance[modality, image] - np.float32(share) * quartile, 0)
        np.testing.assert_allclose(got[modality, image], want, rtol=1e-6, atol=1e-7)


def test_where_nothing_counts_there_is_no_level():
    distance = jnp.asarray(np.abs(draw(9, 1, 1, 16)))
    got = above_own_level(distance, jnp.zeros((1, 16), bool), 0.5)
    np.testing.assert_array_equal(got, distance)


def test_the_map_is_of_what_counts_above_the_level():
    distance = distances(4)
    valid = jnp.asarray(np.random.default_rng(5).random((2, 16)) < 0.7)
    got = score_distances(distance, (56, 56), valid=valid, own_level=0.5)
    above = np.where(valid[None], above_own_level(distance, valid, 0.5), 0)
    expected = score_distances(jnp.asarray(above), (56, 56))
    np.testing.assert_allclose(got.fused, expected.fused, rtol=1e-6)
    everywhere = score_distances(distance, (56, 56), own_level=0.5)
    whole = above_own_level(distance, jnp.ones((2, 16), bool), 0.5)
    np.testing.assert_allclose(everywhere.fused, score_distances(whole, (56, 56)).fused, rtol=1e-6)


@pytest.mark.parametrize("top", [0.01, 0.05, 0.5, 1.0])
def test_mean_of_the_largest_share(top):
    maps = np.abs(draw(11, 3, 30, 20))
    got = image_score(jnp.asarray(maps), top)
    for index in range(3):
        flat = maps[index].ravel()
        count = max(1, int(np.ceil(round(top * len(flat), 6))))
        assert float(got[index]) == pytest.approx(np.sort(flat)[-count:].mean(), rel=1e-5)


def test_errors():
    with pytest.raises(ConfigError, match="do not fill a grid of 3 x 3"):
        upsample(jnp.zeros((1, 12)), (56, 56))
    with pytest.raises(ConfigError, match="share in"):
        image_score(jnp.zeros((1, 4, 4)), 1.5)
