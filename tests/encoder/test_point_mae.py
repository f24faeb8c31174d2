"""Point-MAE against PyTorch, and its weights from the published checkpoint's names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.command import run
from pirn_jax.encoder import convert
from pirn_jax.encoder.point_mae import (
    PUBLISHED,
    PointMaeSize,
    group,
    load_point_mae,
    skeleton,
)
from pirn_jax.encoder.point_mae_weights import key_of, read_point_mae
from pirn_jax.errors import ConfigError, WeightsError
from pirn_jax.geometry.patches import furthest_points

SIZE = PointMaeSize(
    width=12, depth=4, heads=2, inner=(6, 8, 10), groups=9, neighbours=7, taps=(2, 4)
)
GRID = (3, 4)


def views(seed: int = 0) -> np.ndarray:
    """Two relief maps with holes, (2, 12, 16, 3), in metres; no two distances are equal."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:12, :16] / 100
    points = np.stack([right, down, 0.4 + 0 * right], -1) + 0.002 * random.standard_normal(
        (2, 12, 16, 3)
    )
    points[:, :5, :6] = 0
    points[1, 9:] = 0
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def torch_network():
    pytest.importorskip("torch")
    from .torch_point_mae import random_network

    return random_network(SIZE)


@pytest.fixture(scope="module")
def checkpoint(torch_network, tmp_path_factory):
    """As it is published: the whole pre-training, in a dictionary, a prefix before every key."""
    import torch

    own = {f"module.MAE_encoder.{k}": v.clone() for k, v in torch_network.state_dict().items()}
    floats = {k: v.float() if v.is_floating_point() else v for k, v in own.items()}
    floats["module.mask_token"] = torch.zeros(1, 1, 12)
    floats["module.MAE_decoder.blocks.0.norm1.weight"] = torch.ones(12)
    path = tmp_path_factory.mktemp("point_mae") / "pretrain.pth"
    torch.save({"base_model": floats, "epoch": 300}, path)
    return path


@pytest.fixture(scope="module")
def weights(checkpoint):
    """The converter's file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "load_point_mae", lambda out: load_point_mae(out, size=SIZE))
        out = checkpoint.with_name("point_mae.safetensors")
        run(convert.main, arguments=[str(checkpoint), str(out)])
    return out


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["eval", "as_published"])
def test_tokens_are_those_of_pytorch(torch_network, weights, mode):
    from .torch_point_mae import tokens

    network = load_point_mae(weights, mode, SIZE)
    assert network.channels == 24
    found = np.asarray(network(network.parameters, jnp.asarray(views()), GRID))
    torch_network.encoder.train(mode == "as_published")
    for module in torch_network.encoder.modules():
        if hasattr(module, "momentum"):
            module.momentum = 0.0  # what it has seen is not to be kept
    for one, given in zip(found, views(), strict=True):
        np.testing.assert_allclose(one, tokens(torch_network, given, GRID), atol=1e-4)
    empty = ~(views()[1] != 0).any(-1).reshape(3, 4, 4, 4).any((1, 3)).ravel()
    assert empty.any()
    assert not found[1][empty].any()
    alone = network(network.parameters, jnp.asarray(views()[1:]), GRID)
    np.testing.assert_allclose(alone[0], found[1], atol=1e-6)


@pytest.mark.torch
def test_another_file_is_refused_with_all_that_is_wrong(weights, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    broken = dict(tensors, surprise=np.zeros(1, np.float32))
    broken.pop("MAE_encoder.norm.bias")
    key = "MAE_encoder.pos_embed.0.weight"
    broken[key] = broken[key][:, :2].copy()
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError) as error:
        load_point_mae(tmp_path / "broken.safetensors", size=SIZE)
    for part in (r"missing: MAE_encoder.norm.bias", "unexpected: surprise", f"{key} is (6, 2)"):
        assert part in str(error.value)
    tensors[key][0, 0] = np.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"NaN or infinite values in MAE_encoder\.pos_embed"):
        read_point_mae(tmp_path / "nan.safetensors", skeleton(SIZE)[1])


def test_the_published_network():
    """Its sizes, and its keys as the released file has them."""
    leaves = jax.tree.leaves_with_path(skeleton(PUBLISHED)[1])
    shapes = {".".join(str(entry.key) for entry in path): leaf.shape for path, leaf in leaves}
    keys = {key_of(name): shape for name, shape in shapes.items()}
    assert PUBLISHED.channels == 1152
    assert keys["MAE_encoder.encoder.second_conv.3.weight"] == (512, 384)
    assert keys["MAE_encoder.blocks.blocks.11.mlp.fc1.weight"] == (384, 1536)
    assert keys["MAE_encoder.encoder.first_conv.1.running_var"] == (128,)
    assert len(keys) == 8 + 8 + 4 + 12 * 11 + 2 + 1  # and None: projections without a bias


def test_few_points_stand_in_for_those_that_are_missing():
    points = jnp.asarray(np.random.default_rng(0).random((10, 3)), jnp.float32)
    valid = jnp.arange(10) % 4 == 2  # the third, and the seventh
    places = np.asarray(furthest_points(points, valid, 4))
    assert places[:2].tolist() == [2, 6]
    assert valid[places].all()
    groups = np.asarray(group(points, valid, points[places[:2]], 12))
    apart = np.asarray(points[6] - points[2])
    np.testing.assert_allclose(groups[0, :2], [np.zeros(3), apart], atol=1e-7)
    assert not groups[0, 2:].any()


def test_without_weights_it_says_where_they_are(unchecked):
    with pytest.raises(ConfigError, match="comes without weights") as error:
        load_point_mae(None)
    assert "pretrain.pth" in str(error.value)
    with pytest.raises(ConfigError, match="extractor_mode"):
        load_point_mae("random", "train")
    with pytest.raises(WeightsError, match="no such file"):
        load_point_mae("missing.safetensors")
