"""From pictures to score is one program: nothing goes through the host, no weight is copied."""

import jax
import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.decoder import Tokens, create_decoder, split
from pirn_jax.detector import PIRN
from pirn_jax.detector.inference import build_inference
from pirn_jax.encoder import load_encoder


@pytest.fixture(scope="module")
def judge():
    """A program with its arguments, on the device."""
    encoder = load_encoder("vit-tiny-16", "random", 64, (1, 2))
    small = {"decoder.iterations": 3, "decoder.layers": 1, "decoder.mlp_ratio": 0}
    settings = with_settings(Config(method="pirn"), small).settings
    raw = jax.random.normal(jax.random.key(0), (2, 3, 16, 192))
    _, parameters, statistics = split(
        create_decoder(settings.decoder, Tokens(raw), jax.random.key(1))
    )
    method = settings.create(("rgb", "normals"), encoder)
    program, from_tokens = build_inference(encoder, method, 0.0, 0.0)
    pictures = np.random.default_rng(0).random((2, 2, 64, 64, 3), np.float32)
    given = (encoder.parameters, parameters, statistics, pictures, np.ones((2, 16), bool))
    return encoder, program, from_tokens, jax.device_put(given)


@pytest.mark.slow
def test_nothing_passes_through_the_host(judge):
    _, program, _, given = judge
    jax.block_until_ready(program(*given))  # compiled; constants are in place
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(program(*given))


@pytest.mark.slow
def test_weights_are_arguments_and_no_part_of_the_program(judge):
    encoder, program, _, given = judge
    lowered = program.lower(*given)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(encoder.parameters))
    assert len(lowered.as_text()) < weights / 4
    kept = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(encoder.parameters)]
    jax.block_until_ready(program(*given))
    for leaf, pointer in zip(jax.tree.leaves(encoder.parameters), kept, strict=True):
        assert not leaf.is_deleted()  # donated nowhere
        assert leaf.unsafe_buffer_pointer() == pointer


@pytest.mark.slow
def test_the_one_program_equals_its_parts(judge):
    encoder, program, from_tokens, given = judge
    _, parameters, statistics, pictures, valid = given
    tokens = encoder(pictures.reshape(-1, 64, 64, 3)).reshape(2, 2, 16, 192)
    fused, _, score, *_ = program(*given)
    again, _, same, *_ = from_tokens(parameters, statistics, Tokens(tokens, valid))
    np.testing.assert_allclose(fused, again, atol=1e-5)
    np.testing.assert_allclose(score, same, atol=1e-5)
    np.testing.assert_allclose(score, np.asarray(fused).max(axis=(1, 2)), atol=1e-6)


def test_a_model_keeps_its_programs_when_others_fill_what_is_shared():
    encoder = load_encoder("vit-tiny-16", "random", 64, (1, 2))
    model = PIRN(Config(encoder="vit-tiny-16", image_size=64), encoder=encoder)
    before = model.inference
    build_inference.cache_clear()
    assert model.inference is before
