"""Real ImageNet weights and real photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors import safe_open

from pirn_jax.encoder import load_encoder, vit

NAME, SIDE = "vit-tiny-16", 224
MILITARY_UNIFORM = 652  # the ImageNet class


@pytest.fixture(scope="module")
def path(shared):
    return shared / "weights" / "vit_tiny_patch16_224.safetensors"


def read(file, side=SIDE):
    picture = Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32) / 255


@pytest.fixture(scope="module")
def tires(shared):
    files = sorted((shared / "data/mvtec3d_rgb/tire/test").glob("*/rgb/*.png"))[::8]
    return np.stack([read(file) for file in files])


def test_a_photograph_gets_its_class(path):
    """Grace Hopper in uniform, which comes with matplotlib, through the file's own head."""
    import matplotlib

    portrait = matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg"
    encoder = load_encoder(NAME, path)
    network = nnx.merge(encoder._graph, encoder.parameters)
    tokens = network.embed(jnp.asarray(read(portrait)[None]))
    for block in network.blocks:
        tokens = block(tokens)
    with safe_open(path, framework="numpy") as file:
        scale, bias, head, offset = (
            file.get_tensor(key) for key in ("norm.weight", "norm.bias", "head.weight", "head.bias")
        )
    token = np.asarray(tokens[0, 0], np.float64)
    normed = (token - token.mean()) / np.sqrt(token.var() + 1e-6) * scale + bias
    logits = head @ normed + offset
    assert logits.argmax() == MILITARY_UNIFORM
    assert (
        np.exp(logits - logits.max())[MILITARY_UNIFORM] / np.exp(logits - logits.max()).sum() > 0.5
    )


@pytest.mark.torch
@pytest.mark.parametrize("side", [224, 448])
def test_tokens_match_a_torch_forward(path, tires, side, shared):
    """Within 2e-5 of the largest value; blocks 8-12 hold activations of 560 among ones of 5."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    files = sorted((shared / "data/mvtec3d_rgb/tire/test").glob("*/rgb/*.png"))[:2]
    images = np.stack([read(file, side) for file in files])
    encoder = load_encoder(NAME, path, image_size=side)
    with torch.no_grad():
        expected, positions = torch_forward(load_file(path), images)
    np.testing.assert_allclose(encoder.parameters["positions"], positions, atol=2e-6)
    found = encoder.hidden_states(images, range(1, 13))
    for block, (e, f) in enumerate(zip(expected, found, strict=True), start=1):
        error = np.abs(e - np.asarray(f)).max()
        assert error <= 2e-5 * max(1.0, np.abs(e).max()), f"block {block}: {error}"


def torch_forward(weights, images):
    """Raw patch tokens after every block, and the resized positions, as timm computes them."""
    import torch.nn.functional as F
    from torch import cat, from_numpy

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (192,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    pixels = from_numpy((images - 0.5) / 0.5).permute(0, 3, 1, 2)
    patches = F.conv2d(
        pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=16
    )
    grid = weights["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    if patches.shape[-1] != 14:
        grid = F.interpolate(grid, size=patches.shape[-2:], mode="bicubic", antialias=True)
    tokens = (patches + grid).flatten(2).transpose(1, 2)
    first = (weights["cls_token"] + weights["pos_embed"][:, :1]).expand(len(tokens), -1, -1)
    tokens, outputs = cat([first, tokens], dim=1), []
    for i in range(12):
        block = f"blocks.{i}"
        qkv = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(len(tokens), -1, 3, 3, 64).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)) / 8).softmax(-1) @ v
        tokens = tokens + linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        inner = F.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + linear(inner, f"{block}.mlp.fc2")
        outputs.append(tokens[:, 1:].numpy())
    return outputs, grid[0].flatten(1).T.numpy()


def test_bfloat16_keeps_the_tokens(path, tires):
    exact = np.asarray(load_encoder(NAME, path)(tires))
    half = np.asarray(load_encoder(NAME, path, dtype="bfloat16")(tires))
    cosine = cosines(exact, half)
    assert cosine.min() >= 0.999
    assert np.median(cosine) >= 0.9999


@pytest.mark.slow
def test_bfloat16_keeps_the_tokens_where_float32_products_are_tensorfloat32(
    path, tires, monkeypatch
):
    """As on a GPU, by rounding both sides of the products of the patches and the first block."""
    exact = np.asarray(load_encoder(NAME, path)(tires))
    project, attend, rounded = vit.Projection.__call__, vit.attention, []

    def tensorfloat(x):
        if x.dtype != jnp.float32:
            return x
        rounded.append(x.shape)
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        bits = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)  # 10 of the mantissa's 23 bits
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def projected(self, x):
        kernel = self.kernel[...]
        if kernel.dtype == jnp.float32:
            self.kernel, x = nnx.Param(tensorfloat(kernel)), tensorfloat(x)
        return project(self, x)

    def attended(query, key, value):
        return attend(*map(tensorfloat, (query, key, value)))

    monkeypatch.setattr(vit.Projection, "__call__", projected)
    monkeypatch.setattr(vit, "attention", attended)
    half = np.asarray(load_encoder(NAME, path, dtype="bfloat16")(tires))
    assert len(rounded) == 2 * 5 + 3  # patches, and the block's four matrices; its attention
    assert cosines(exact, half).min() >= 0.9995


def cosines(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
