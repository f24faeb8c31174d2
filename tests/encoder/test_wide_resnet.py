"""WideResNet against PyTorch: blocks, stages and pooling, with random weights."""

import numpy as np
import pytest

from pirn_jax.encoder.source import Source
from pirn_jax.encoder.wide_resnet import (
    WideResNet,
    convolutions,
    load_wide_resnet,
    operations,
    pooling,
    read_wide_resnet,
)
from pirn_jax.errors import ConfigError, WeightsError

BLOCKS, STEM, SIDE = (1, 2, 2), 4, 64


@pytest.fixture(scope="module")
def network():
    """Of torchvision's layout, narrow and shallow, every statistic random."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Bottleneck(nn.Module):
        def __init__(self, before, out, stride):
            super().__init__()
            inner = out // 2
            self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
            self.bn3, self.downsample = nn.BatchNorm2d(out), None
            if before != out:
                self.downsample = nn.Sequential(
                    nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                )

        def forward(self, x):
            y = self.bn1(self.conv1(x)).relu()
            y = self.bn2(self.conv2(y)).relu()
            short = x if self.downsample is None else self.downsample(x)
            return (self.bn3(self.conv3(y)) + short).relu()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, STEM, 7, 2, 3, bias=False)
            self.bn1, self.fc = nn.BatchNorm2d(STEM), nn.Linear(8, 8)
            before = STEM
            for stage, count in enumerate(BLOCKS, 1):
                out, blocks = 4 * STEM * 2 ** (stage - 1), []
                for number in range(count):
                    blocks.append(Bottleneck(before, out, 2 if stage > 1 and not number else 1))
                    before = out
                self.add_module(f"layer{stage}", nn.Sequential(*blocks))

        def forward(self, x):
            x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
            second = self.layer2(self.layer1(x))
            pooled = []
            for one in (second, self.layer3(second)):
                one = nn.functional.avg_pool2d(one, 3, 1)
                pooled.append(nn.functional.adaptive_avg_pool2d(one, SIDE // 8))
            return torch.cat(pooled, 1)

    torch.manual_seed(0)
    made = Network().eval()
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and value.ndim == 1:
                value.add_(0.3 * torch.randn_like(value))
    return made


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("resnet") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.mark.torch
def test_tokens_are_those_of_pytorch(network, weights):
    import torch

    encoder = WideResNet(read_wide_resnet(weights, BLOCKS, STEM), (SIDE, SIDE), Source("x", "y"))
    assert encoder.grid == (8, 8)
    assert encoder.channels == 32 + 64
    pictures = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
    colours = (pictures - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        given = torch.from_numpy(colours.astype(np.float32)).permute(0, 3, 1, 2)
        expected = network(given).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(encoder(pictures), expected, atol=1e-4)


@pytest.mark.torch
def test_another_file_is_refused_with_all_that_is_wrong(weights, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    del tensors["bn1.bias"]
    tensors["more"] = np.zeros(1, np.float32)
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"(?s)missing: bn1\.bias.*unexpected: more"):
        read_wide_resnet(tmp_path / "broken.safetensors", BLOCKS, STEM)
    with pytest.raises(WeightsError, match="mismatched"):
        read_wide_resnet(weights)


def test_the_published_network():
    """Its convolutions, of 25 million parameters up to stage 3, and their work."""
    known = convolutions()
    assert len(known) == 1 + 3 * (3 + 4 + 6) + 3
    assert known["layer3.5.conv2"] == ("layer3.5.bn2", (512, 512, 3, 3))
    assert known["layer2.0.downsample.0"] == ("layer2.0.downsample.1", (512, 256, 1, 1))
    assert sum(np.prod(shape) for _, shape in known.values()) == pytest.approx(24.8e6, rel=0.01)
    # torchvision publishes 11.4 G multiply-adds at 224 px for all four stages.
    whole = convolutions((3, 4, 6, 3))
    assert operations(whole, (224, 224)) / 2 == pytest.approx(11.4e9, rel=0.005)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="multiple of 16"):
        load_wide_resnet("random", 56)
    with pytest.raises(ConfigError, match="give its file"):
        load_wide_resnet(None)
    with pytest.raises(ConfigError, match="3x3 places"):
        pooling(2, 4)
