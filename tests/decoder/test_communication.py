"""Nearest prototypes without a sort, against `jax.lax.top_k`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.decoder.communication import largest_places


@pytest.mark.parametrize("count", [1, 3, 10])
def test_places_are_those_of_top_k_and_of_equal_values_the_first(count):
    stream = np.random.default_rng(0)
    values = np.stack([stream.normal(size=(20, 10)), stream.integers(0, 3, (20, 10))])
    values = jnp.asarray(values, jnp.float32)
    _, expected = jax.lax.top_k(values, count)
    np.testing.assert_array_equal(largest_places(values, count), expected)


def test_nothing_is_sorted():
    text = jax.jit(largest_places, static_argnums=1).lower(jnp.zeros((2, 10)), 3).as_text()
    assert "sort" not in text
    assert "top_k" not in text
