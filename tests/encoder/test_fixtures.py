"""The parity check without torch: small networks whose answers transformers gave beforehand."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from pirn_jax.encoder.encoder import Encoder, grid_of
from pirn_jax.encoder.positions import position_rule
from pirn_jax.encoder.source import Source
from pirn_jax.encoder.weights import read_weights
from tests.encoder.make_fixtures import BLOCKS, FOLDER, NAMES, SIZE, answers, images, small


@pytest.mark.parametrize("name", NAMES)
def test_tokens_equal_the_stored_answers(name):
    config, path = small(name), FOLDER / f"{name}.safetensors"
    parameters = read_weights(path, config, grid_of(config, SIZE), position_rule(config, "hf"))
    layers = tuple(range(1, BLOCKS + 1))
    encoder = Encoder(
        config, parameters, SIZE, (layers, 1, False), jnp.dtype("float32"), Source("", "")
    )
    found = np.stack(encoder.hidden_states(images(), layers))
    np.testing.assert_allclose(found, np.load(FOLDER / f"{name}.npy"), atol=5e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_the_stored_answers_are_transformers(name):
    pytest.importorskip("torch")
    weights, tokens = answers(name)
    stored = load_file(FOLDER / f"{name}.safetensors")
    assert stored.keys() == weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(stored[key], value)
    np.testing.assert_allclose(np.load(FOLDER / f"{name}.npy"), tokens, atol=2e-6)
