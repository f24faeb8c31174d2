"""Distances against numpy in float64, where they vanish, and what flows back through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from pirn_jax.decoder import DISTANCES, cosine_distance, squared_distance
from pirn_jax.decoder.distance import unit_vectors


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one_minus_cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_cosine_distance_is_one_minus_cosine():
    e, z = draw(1, 2, 9, 32), draw(2, 2, 9, 32)
    np.testing.assert_allclose(
        cosine_distance(jnp.asarray(e), jnp.asarray(z)), one_minus_cosine(e, z), atol=1e-6
    )


def test_squared_distance_is_the_mean_square():
    e, z = draw(1, 2, 9, 32), draw(2, 2, 9, 32)
    found = squared_distance(jnp.asarray(e), jnp.asarray(z))
    np.testing.assert_allclose(found, np.square(e - z).mean(-1), rtol=1e-6)


def test_the_cosine_of_near_equal_tokens_does_not_cancel():
    """1 - cos = 5e-9: lost in float32 when taken as a difference, and must not be negative."""
    e = draw(3, 1, 4, 16).astype(np.float64)
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    off = draw(4, 1, 4, 16)
    off -= np.sum(off * e, -1, keepdims=True) * e
    z = e + 1e-4 * off / np.linalg.norm(off, axis=-1, keepdims=True)
    got = cosine_distance(jnp.asarray(e, jnp.float32), jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(got, 5e-9, rtol=0.01)
    same = cosine_distance(jnp.asarray(e, jnp.float32), jnp.asarray(3 * e, jnp.float32))
    assert float(jnp.min(same)) >= 0


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_cosine_at_any_scale(scale):
    e, z = draw(5, 1, 4, 16), draw(6, 1, 4, 16)
    got = cosine_distance(jnp.asarray(e * np.float32(scale)), jnp.asarray(z))
    np.testing.assert_allclose(got, one_minus_cosine(e, z), rtol=1e-5)


def test_zero_vectors_and_half_precision():
    e, z = jnp.asarray(draw(7, 1, 3, 8)), jnp.asarray(draw(8, 1, 3, 8)).at[0, 1].set(0.0)
    assert float(cosine_distance(e, z)[0, 1]) == 1.0
    assert float(cosine_distance(z, z)[0, 1]) == 1.0
    half = cosine_distance(e.astype(jnp.bfloat16), z.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, cosine_distance(e, z), atol=0.02)


def test_what_is_not_a_number_stays_so():
    e = jnp.asarray(draw(7, 3, 8)).at[1, 2].set(jnp.nan)
    for distance in DISTANCES.values():
        found = distance(e, jnp.asarray(draw(8, 3, 8)))
        np.testing.assert_array_equal(jnp.isnan(found), [False, True, False])


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_are_those_of_finite_differences_and_finite_at_zero(name):
    e, z = draw(9, 6, 5), draw(10, 6, 5)
    with jax.enable_x64(True):
        check_grads(
            jax.jit(DISTANCES[name]),
            (jnp.asarray(e, jnp.float64), jnp.asarray(z, jnp.float64)),
            order=1,
        )
    gradient = jax.jit(jax.grad(lambda z: DISTANCES[name](jnp.asarray(e), z).sum()))
    at_zero = np.asarray(gradient(jnp.asarray(z).at[2].set(0.0)))
    assert np.isfinite(at_zero).all()
    if name == "cosine":
        np.testing.assert_array_equal(at_zero[2], 0.0)
    assert (np.delete(at_zero, 2, 0) != 0).all()


def test_unit_vectors():
    x = draw(11, 4, 7) * np.float32([[1e-25], [1], [1e25], [0]])
    found = np.asarray(unit_vectors(jnp.asarray(x)))
    wanted = x[:3].astype(np.float64)
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[:3], wanted, atol=1e-6)
    np.testing.assert_array_equal(found[3], 0.0)
