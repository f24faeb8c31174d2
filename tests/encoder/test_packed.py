"""Parameters in few buffers are the same parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from pirn_jax.encoder import load_encoder
from pirn_jax.encoder.packed import SMALL, Packed, pack, unpack


def test_unpacked_is_what_was_packed():
    stream = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(stream.standard_normal(shape), jnp.float32)

    tree = {
        "large": draw(SMALL + 1),
        "half": draw(4).astype(jnp.bfloat16),
        "places": jnp.arange(3),
        "scalar": draw(),
        "blocks": {0: {"bias": draw(5), "gate": draw(2, 3)}, 1: {"bias": draw(5)}},
    }
    packed = pack(tree)
    assert packed.joined.shape == (16,)
    assert len(packed.others) == 4
    for again in (unpack(packed), jax.jit(unpack)(packed)):
        assert jax.tree.structure(again) == jax.tree.structure(tree)
        jax.tree.map(np.testing.assert_array_equal, again, tree)


def test_models_of_a_kind_share_a_program():
    traced = []

    @jax.jit
    def program(packed):
        traced.append(packed)
        return unpack(packed)["a"]

    for value in (1.0, 2.0):
        tree = {"a": jnp.full(3, value), "b": jnp.ones((2, 2))}
        np.testing.assert_array_equal(program(pack(tree)), value)
    assert len(traced) == 1


def test_what_has_no_small_arrays_stays_as_it_is():
    tree = {"one": jnp.ones(3), "large": jnp.ones(SMALL + 1)}
    assert pack(tree) is tree
    assert unpack(tree) is tree
    assert pack({}) == {}


def test_an_encoder_is_called_with_an_array_for_each_matrix_and_few_more():
    encoder = load_encoder("vit-tiny-16", "random", 32, (1, 2))
    assert isinstance(encoder.packed, Packed)
    matrices = 4 * encoder.blocks
    assert len(jax.tree.leaves(encoder.packed)) <= matrices + 3
    pictures = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_allclose(
        encoder(pictures), jax.jit(encoder.tokens)(encoder.parameters, pictures), atol=1e-6
    )
