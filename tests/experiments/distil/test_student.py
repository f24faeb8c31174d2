"""The student: cut out of its teacher, written, and read again by the project's own loader."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distil.export import read_student, write_student
from distil.loss import Statistics
from distil.student import Network, parse_shape, slice_teacher, student_config
from pirn_jax.encoder.encoder import Encoder
from pirn_jax.encoder.source import Source
from pirn_jax.encoder.weights import read_weights
from pirn_jax.errors import ConfigError, WeightsError
from tests.experiments.distil.problems import RECIPE, SIDE, TEACHER, some_pictures, teacher


def statistics(channels: int = TEACHER.width) -> Statistics:
    rng = np.random.default_rng(3)
    return Statistics(
        rng.normal(size=channels).astype(np.float32),
        rng.uniform(0.5, 2, channels).astype(np.float32),
    )


def a_student():
    network, rng = RECIPE.network(teacher()), np.random.default_rng(1)
    parameters = slice_teacher(network, teacher(), 0)
    moved = {
        path: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float16)
        for path, value in parameters.items()
    }
    return network, {path: value.astype(np.float32) for path, value in moved.items()}


def test_a_student_as_large_as_its_teacher_begins_as_its_teacher():
    large = teacher()
    config = student_config(parse_shape("32x3x4"), TEACHER, SIDE)  # up to the last of the layers
    network = Network(config, large.channels, "float32")
    parameters = slice_teacher(network, large, 0)
    images = jnp.asarray(some_pictures(2), jnp.float32) / 255
    tokens = large.hidden_states(images, [3])[0]
    centred = np.asarray(tokens - tokens.mean(-1, keepdims=True), np.float64)
    normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    found = jax.jit(network.predict)(parameters, images)
    np.testing.assert_allclose(found, normal @ parameters["head.kernel"], atol=2e-5)


def test_a_narrow_student_takes_channels_heads_and_blocks_evenly():
    large = teacher()
    parameters = slice_teacher(RECIPE.network(large), large, 0)
    channels, hidden = np.linspace(0, 31, 16).round(), np.linspace(0, 127, 64).round()
    block = large.parameters["blocks"][2]
    expected = np.asarray(block["mlp"]["fc2"]["kernel"])[hidden.astype(int)][
        :, channels.astype(int)
    ]
    np.testing.assert_allclose(
        parameters["vit.blocks.2.mlp.fc2.kernel"], expected * np.sqrt(2), rtol=1e-6
    )
    heads = [*range(8), *range(24, 32)]  # the first and the last of four, eight channels each
    expected = np.asarray(block["attention"]["qkv"]["kernel"])[channels.astype(int)]
    expected = expected[:, [part * 32 + i for part in range(3) for i in heads]]
    np.testing.assert_allclose(
        parameters["vit.blocks.2.attention.qkv.kernel"], expected * np.sqrt(2), rtol=1e-6
    )


def test_shapes_that_cannot_be_are_refused():
    for text in ("192", "10x2x3", "0x1x1", "axbxc"):
        with pytest.raises(ConfigError, match="WIDTHxBLOCKSxHEADS"):
            parse_shape(text)
    large = teacher()
    for shape, problem in (("32x2x2", "heads of 16"), ("64x2x8", "64 wide")):
        network = Network(student_config(parse_shape(shape), TEACHER, SIDE), 32, "float32")
        with pytest.raises(ConfigError, match=problem):
            slice_teacher(network, large, 0)


def test_the_file_gives_the_same_tokens_through_the_projects_loader(tmp_path):
    network, parameters = a_student()
    known = statistics()
    path = tmp_path / "student.safetensors"
    write_student(path, parameters, network.config, known, TEACHER.layers)
    tensors = load_file(path)
    assert {value.dtype for value in tensors.values()} == {np.dtype(np.float16)}
    backbone = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    save_file(backbone, tmp_path / "backbone.safetensors")
    grid = (SIDE // 14,) * 2
    read = read_weights(tmp_path / "backbone.safetensors", network.config, grid, "meta")
    exact = jnp.dtype("float32")
    encoder = Encoder(network.config, read, (SIDE, SIDE), ((3,), 1, False), exact, Source("", ""))
    images = np.asarray(some_pictures(3), np.float32) / 255
    x = np.asarray(encoder(images), np.float64)
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    x = x * tensors["layernorm.weight"].astype(float) + tensors["layernorm.bias"].astype(float)
    tokens = x @ tensors["head.weight"].astype(float).T + tensors["head.bias"].astype(float)
    expected = jax.jit(network.predict)(parameters, jnp.asarray(images))
    expected = np.asarray(expected) * known.deviation + known.mean
    scale = np.abs(expected).max()
    np.testing.assert_allclose(tokens, expected, atol=2e-3 * scale)  # of float16, in the head


def test_a_file_is_read_back_and_another_networks_is_refused(tmp_path):
    network, parameters = a_student()
    known = statistics()
    path = tmp_path / "student.safetensors"
    write_student(path, parameters, network.config, known, TEACHER.layers)
    again = read_student(path, network, known)
    assert again.keys() == parameters.keys()
    for name, value in again.items():
        np.testing.assert_allclose(value, parameters[name], atol=5e-3, err_msg=name)
    larger = dataclasses.replace(network.config, native_size=2 * SIDE)
    grown = read_student(path, Network(larger, 32, "float32"), known)
    assert grown["vit.positions"].shape == (64, 16)
    for shape in ("16x2x2", "8x3x1"):
        config = student_config(parse_shape(shape), TEACHER, SIDE)
        with pytest.raises(WeightsError, match="student"):
            read_student(path, Network(config, 32, "float32"), known)


@pytest.mark.slow
def test_bfloat16_is_near_and_has_gradients_in_float32():
    network, parameters = a_student()
    low = Network(network.config, network.channels, "bfloat16")
    images = jnp.asarray(some_pictures(2), jnp.float32) / 255
    with jax.numpy_dtype_promotion("standard"):
        exact = jax.jit(network.predict)(parameters, images)
        given = jax.jit(low.predict)(parameters, images)
        gradient = jax.jit(jax.grad(lambda p: low.predict(p, images).sum()))(parameters)
    error = np.linalg.norm(given - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.05
    assert all(leaf.dtype == jnp.float32 for leaf in gradient.values())
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())
