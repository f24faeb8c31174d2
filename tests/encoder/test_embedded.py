"""The encoder that comes with the package, against a plain forward in torch over its file."""

import logging
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pirn_jax.encoder import CATALOG, embedded, encoder_config, load_encoder
from pirn_jax.encoder.embedded import FILE, SHA256, folded_bias, folded_kernel
from pirn_jax.encoder.weights import identify
from pirn_jax.errors import WeightsError


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("pirn-tiny")


@pytest.fixture(scope="module")
def images():
    """Smooth fields and noise."""
    stream = np.random.RandomState(0)
    rows, columns = np.mgrid[0:224, 0:224] / 224
    smooth = np.stack([rows, columns, np.sin(9 * rows * columns) ** 2], axis=-1)
    return np.stack([smooth, stream.rand(224, 224, 3)]).astype(np.float32)


@pytest.fixture(scope="module")
def head():
    tensors = load_file(FILE)
    return tensors["head.weight"].astype(np.float64), tensors["head.bias"].astype(np.float64)


def hidden_by_torch(images):
    """The last block's patch tokens after the LayerNorm, (B, 256, 192), as DINOv2 is defined."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    weights = {key: torch.from_numpy(v.astype(np.float32)) for key, v in load_file(FILE).items()}

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (192,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(images) - mean) / std).permute(0, 3, 1, 2)
    cut = "embeddings.patch_embeddings.projection"
    patches = F.conv2d(pixels, weights[f"{cut}.weight"], weights[f"{cut}.bias"], stride=14)
    x = patches.flatten(2).transpose(1, 2)
    first = weights["embeddings.cls_token"].expand(len(x), 1, 192)
    x = torch.cat([first, x], dim=1) + weights["embeddings.position_embeddings"]
    for i in range(12):
        layer = f"encoder.layer.{i}"
        normed = norm(x, f"{layer}.norm1")
        query, key, value = (
            linear(normed, f"{layer}.attention.attention.{part}")
            .reshape(len(x), -1, 3, 64)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = ((query @ key.transpose(-1, -2)) / 8).softmax(-1) @ value
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = x + weights[f"{layer}.layer_scale1.lambda1"] * mixed
        inner = F.gelu(linear(norm(x, f"{layer}.norm2"), f"{layer}.mlp.fc1"))
        x = x + weights[f"{layer}.layer_scale2.lambda1"] * linear(inner, f"{layer}.mlp.fc2")
    return norm(x[:, 1:], "layernorm").numpy().astype(np.float64)


@pytest.mark.torch
def test_tokens_match_a_torch_forward_in_the_teachers_channels(tiny, images, head):
    """What W⁺ W h holds is all that can be compared channel by channel: W A⁻¹ of our tokens."""
    matrix, bias = head
    hidden = hidden_by_torch(images)
    ours = np.asarray(tiny(images), np.float64)
    assert ours.shape == (2, 256, 192)
    # Of W's range, an orthonormal basis as the polar decomposition has it; b's share is inside.
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    reached = (left @ left.T) @ bias
    found = ours @ (left @ right).T
    expected = hidden @ matrix.T + reached
    assert np.abs(found - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.torch
def test_distances_are_those_of_the_teachers_channels(tiny, images, head):
    matrix, bias = head
    wide = hidden_by_torch(images) @ matrix.T + bias
    tokens = np.asarray(tiny(images), np.float64)
    for one, other in ((0, 0), (0, 1), (1, 1)):
        expected = np.linalg.norm(wide[one][:, None] - wide[other][None], axis=-1)
        found = np.linalg.norm(tokens[one][:, None] - tokens[other][None], axis=-1)
        assert expected.max() > 0.1
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_folded_head_is_symmetric_and_keeps_products():
    stream = np.random.RandomState(2)
    matrix, bias = stream.standard_normal((40, 12)), stream.standard_normal(40)
    kernel = folded_kernel(matrix)
    np.testing.assert_array_less(0, np.linalg.eigvalsh(kernel))
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-6)
    np.testing.assert_allclose(kernel @ kernel, matrix.T @ matrix, rtol=1e-5, atol=1e-4)
    best = np.linalg.lstsq(matrix, bias, rcond=None)[0]
    np.testing.assert_allclose(folded_bias(matrix, bias), kernel @ best, atol=1e-5)


def test_it_says_what_it_is(tiny):
    assert (tiny.source.path, tiny.source.sha256) == (str(FILE), SHA256)
    assert "Apache-2.0" in tiny.source.about
    assert "DINOv2-small" in tiny.source.about
    assert (tiny.channels, tiny.grid, tiny.layers) == (192, (16, 16), (12,))
    assert identify(FILE) == "pirn-tiny"
    assert encoder_config("pirn-tiny").hub == ""
    assert FILE.stat().st_size <= 12e6


def test_a_damaged_file_in_the_package_is_named_with_the_remedy(tmp_path, monkeypatch):
    copy = tmp_path / "pirn_tiny.safetensors"
    shutil.copy(FILE, copy)
    content = bytearray(copy.read_bytes())
    content[-5] ^= 1
    copy.write_bytes(content)
    monkeypatch.setattr(embedded, "FILE", copy)
    with pytest.raises(WeightsError, match=r"is damaged: SHA-256 .*\n.*pip install") as caught:
        load_encoder("pirn-tiny")
    assert caught.value.path == str(copy)
    copy.unlink()
    with pytest.raises(WeightsError, match="is missing from the package"):
        load_encoder("pirn-tiny")


def test_a_file_without_its_head_is_refused(tmp_path):
    tensors = load_file(FILE)
    tensors.pop("head.bias")
    save_file(tensors, tmp_path / "headless.safetensors")
    with pytest.raises(WeightsError, match=r"missing: head\.bias"):
        load_encoder("pirn-tiny", tmp_path / "headless.safetensors")


def test_other_layers_are_raw_block_outputs(images):
    encoder = load_encoder("pirn-tiny", layers=(3, 5))
    states = encoder.hidden_states(images, (3, 5))
    np.testing.assert_allclose(encoder(images), np.mean(states, axis=0), atol=1e-5)
    grouped = load_encoder("pirn-tiny", layers=(3, 5), groups=2)
    np.testing.assert_allclose(grouped(images), np.concatenate(states, axis=-1), atol=1e-5)


def test_another_size_is_said_once_and_keeps_the_positions_pattern(caplog, tiny):
    with caplog.at_level(logging.WARNING, "pirn_jax"):
        large = load_encoder("pirn-tiny", image_size=448)
        load_encoder("pirn-tiny", image_size=448)
    said = [
        record.message
        for record in caplog.records
        if "trained on pictures of 224" in record.message
    ]
    assert len(said) == 1
    assert large.grid == (32, 32)
    stored = np.asarray(tiny.parameters["positions"]).reshape(16, 16, 192)
    resized = np.asarray(large.parameters["positions"]).reshape(32, 32, 192)
    pooled = resized.reshape(16, 2, 16, 2, 192).mean((1, 3))
    inner = (slice(2, -2), slice(2, -2))
    assert np.corrcoef(pooled[inner].ravel(), stored[inner].ravel())[0, 1] > 0.9


def test_arithmetic_counts_the_head():
    config = CATALOG["pirn-tiny"]
    assert config.flops((224, 224)) - config.flops((224, 224), 11) > 2 * 256 * 192**2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_openvino_gives_the_same_tokens(tiny, images, dtype):
    pytest.importorskip("openvino")
    found = np.asarray(load_encoder("pirn-tiny", dtype=dtype, runtime="openvino")(images))
    expected = np.asarray(tiny(images))
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosine = (found * expected).sum(-1) / lengths
    assert cosine.min() >= (1 - 1e-5 if dtype == "float32" else 0.999)


@pytest.mark.slow
def test_the_wheel_carries_it(tmp_path, pytestconfig):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-w",
        tmp_path,
        pytestconfig.rootpath,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert file.getinfo("pirn_jax/encoder/pirn_tiny.safetensors").file_size <= 12e6
