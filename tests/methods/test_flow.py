"""Flows against their inverses, and their log-determinants against whole Jacobians."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.methods import ast_network, cflow
from pirn_jax.methods.flow import (
    affine,
    clamp_arctan,
    clamp_tanh,
    permutation,
    positions,
    rotations,
    standard_normal,
)

GRID, P = (2, 3), 4


def far(tree, seed=0):
    """Parameters well away from where they begin, which is close to the identity."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: x + 0.3 * random.standard_normal(x.shape).astype(np.float32), tree
    )


def drawn(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("clamp", [clamp_tanh, clamp_arctan])
def test_an_affine_map_is_undone_and_its_scales_are_bounded(clamp):
    x, told = drawn(4, 3), 50 * drawn(4, 6)
    y, log_determinant = affine(jnp.asarray(x), jnp.asarray(told), partial(clamp, most=1.9))
    s, t = told[:, :3].astype(np.float64), told[:, 3:]
    log_scale = 1.9 * np.tanh(s) if clamp is clamp_tanh else 1.9 * 0.636 * np.arctan(s / 1.9)
    np.testing.assert_allclose((np.asarray(y) - t) * np.exp(-log_scale), x, atol=1e-4)
    np.testing.assert_allclose(log_determinant, log_scale.sum(1), rtol=1e-5)
    assert np.abs(log_scale).max() <= 1.9


@pytest.mark.parametrize("channels", [4, 5])
def test_cflow_is_invertible_and_its_log_determinant_is_the_jacobians(channels):
    parameters = far(cflow.create(channels, 3, P, jax.random.key(0)))
    turns = jnp.asarray(rotations(0, 3, channels))
    x, position = drawn(6, channels), positions(GRID, P)
    z, found = jax.jit(cflow.forward)(parameters, turns, x, jnp.asarray(position))

    def one(x, place):
        return cflow.forward(parameters, turns, x[None], place[None])[0][0]

    jacobian = jax.jit(jax.vmap(jax.jacfwd(one)))(x, jnp.asarray(position))
    np.testing.assert_allclose(found, np.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-5)

    # Backwards, block by block, in float64.
    back, kept = np.asarray(z, np.float64), channels - channels // 2
    for k in reversed(range(3)):
        own = jax.tree.map(lambda leaf, at=k: np.asarray(leaf[at], np.float64), parameters)
        scale = 0.1 * np.log1p(np.exp(0.5 * own["scale"])) / 0.5
        back = (back @ np.asarray(turns[k], np.float64) - own["shift"]) / scale
        passive, active = back[:, :kept], back[:, kept:]
        given = np.concatenate([passive, position], 1)
        hidden = np.maximum(0, given @ own["fc1"]["kernel"] + own["fc1"]["bias"])
        told = 0.1 * (hidden @ own["fc2"]["kernel"] + own["fc2"]["bias"])
        s, t = np.split(told, 2, axis=1)
        back = np.concatenate([passive, (active - t) * np.exp(-1.9 * np.tanh(s))], 1)
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_cflow_starts_with_scales_of_one():
    np.testing.assert_allclose(cflow._positive(jnp.asarray(cflow.SCALE_ONE)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("channels", [4, 5])
def test_asts_teacher_is_invertible_and_its_log_determinant_is_the_jacobians(channels, monkeypatch):
    monkeypatch.setattr(ast_network, "SIDES", (3, 5))
    monkeypatch.setattr(ast_network, "INNER", 3)
    parameters = far(ast_network.create_teacher(channels, P, jax.random.key(0)))
    position = positions(GRID, P).reshape(*GRID, P)
    x = drawn(2, *GRID, channels)
    teach = jax.jit(lambda x: ast_network.teach(parameters, x, position))
    z, found = teach(x)
    assert found.shape == (2, *GRID)

    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda one: teach(one[None])[0][0])))(x)
    size = int(np.prod(GRID)) * channels
    expected = np.linalg.slogdet(jacobian.reshape(2, size, size))[1]
    np.testing.assert_allclose(np.asarray(found).sum((1, 2)), expected, rtol=1e-4, atol=1e-5)

    def read(net, half, side):
        hidden = ast_network.convolve(
            net["conv1"], ast_network.with_position(half, position), side, "edge"
        )
        told = ast_network.convolve(net["conv2"], jax.nn.relu(hidden), side, "edge")
        s, t = np.split(np.asarray(net["gain"] * told), 2, axis=-1)
        return 1.9 * 0.636 * np.arctan(s / 1.9), t

    back, first = z, channels - channels // 2
    for k, side in reversed(list(enumerate(ast_network.SIDES))):
        nets = parameters[f"coupling{k}"]
        one, two = back[..., :first], back[..., first:]
        s, t = read(nets["from_first"], one, side)
        two = (two - t) * np.exp(-s)
        s, t = read(nets["from_second"], two, side)
        one = (one - t) * np.exp(-s)
        back = jnp.concatenate([one, two], -1)[..., np.argsort(permutation(k, channels))]
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_a_new_teacher_only_permutes():
    parameters = ast_network.create_teacher(6, P, jax.random.key(0))
    x = drawn(1, *GRID, 6)
    z, log_determinant = jax.jit(ast_network.teach)(
        parameters, x, positions(GRID, P).reshape(*GRID, P)
    )
    assert not np.asarray(log_determinant).any()
    np.testing.assert_array_equal(np.sort(z, -1), np.sort(x, -1))


@pytest.mark.torch
@pytest.mark.parametrize(("border", "mode"), [("edge", "replicate"), ("constant", "zeros")])
def test_convolutions_are_those_of_pytorch(border, mode):
    torch = pytest.importorskip("torch")
    reference = torch.nn.Conv2d(3, 2, 5, padding=2, padding_mode=mode)
    x = drawn(2, 4, 6, 3)
    kernel = reference.weight.detach().numpy().transpose(2, 3, 1, 0).reshape(-1, 2)
    layer = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(reference.bias.detach().numpy())}
    found = ast_network.convolve(layer, jnp.asarray(x), 5, border)
    expected = reference(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-5)


def test_the_likelihood_is_that_of_a_standard_normal():
    from scipy.stats import norm

    z, log_determinant = drawn(3, 4), drawn(3)
    found = standard_normal(jnp.asarray(z), jnp.asarray(log_determinant))
    np.testing.assert_allclose(found, (norm.logpdf(z).sum(1) + log_determinant) / 4, rtol=1e-5)


def test_positions_are_sines_and_cosines_of_column_and_row():
    found = positions((2, 3), 8).reshape(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for along in (column, row):
                for j in range(2):
                    angle = along / 10000 ** (2 * j / 4)  # the half of 8 channels that each has
                    expected += [np.sin(angle), np.cos(angle)]
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-6)


def test_rotations_keep_lengths_and_permutations_lose_nothing():
    found = rotations(1, 2, 5)
    np.testing.assert_allclose(found @ found.swapaxes(1, 2), [np.eye(5)] * 2, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.1
    assert sorted(permutation(1, 7)) == list(range(7))
    assert list(permutation(1, 7)) != list(permutation(2, 7))
