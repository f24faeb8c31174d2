"""CFM against its definition in PyTorch."""

import jax
import numpy as np
import pytest

from pirn_jax.config import Config
from pirn_jax.decoder import Tokens
from pirn_jax.errors import ConfigError
from pirn_jax.methods.cfm import LAYERS, Cfm, CfmSettings, Loss

from .problems import CHANNELS, GRID, MODALITIES, tokens, valid

WIDTHS = (CHANNELS, 7)  # of the second modality the other channels are 0
METHOD = Cfm(CfmSettings(scale="none"), MODALITIES, GRID, CHANNELS, WIDTHS)


@pytest.mark.torch
def test_loss_and_product_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    nets = jax.tree.map(np.asarray, METHOD._create(0))
    reference = []
    middle = sum(WIDTHS) // 2
    for net, inputs, outputs in (("first", *WIDTHS[::-1]), ("second", *WIDTHS)):
        layers = []
        sizes = (inputs, middle, middle, outputs)
        for place, name in enumerate(LAYERS):
            layer = torch.nn.Linear(*sizes[place : place + 2])
            assert layer.weight.shape == nets[net][name]["kernel"].T.shape
            layer.weight.data = torch.tensor(nets[net][name]["kernel"].T)
            layer.bias.data = torch.tensor(nets[net][name]["bias"])
            layers += [layer, torch.nn.GELU()]
        reference.append(torch.nn.Sequential(*layers[:-1]))
    new = tokens(1, 2)
    new[1, ..., WIDTHS[1] :] = 0
    x, y = torch.tensor(new[0]), torch.tensor(new[1, ..., : WIDTHS[1]])
    to_x, to_y = reference[0](y), reference[1](x)
    unit = torch.nn.functional.normalize
    product = (unit(to_x, dim=-1) - unit(x, dim=-1)).norm(dim=-1)
    product = product * (unit(to_y, dim=-1) - unit(y, dim=-1)).norm(dim=-1)
    judge = jax.jit(lambda p, *t: METHOD.distances(p, {}, Tokens(*t))[0])
    found = judge(nets, new, valid(1, 2))
    np.testing.assert_allclose(found.sum(0), product.detach(), rtol=1e-4)
    np.testing.assert_array_equal(found[0], found[1])

    cosine = torch.nn.functional.cosine_similarity
    expected = (1 - cosine(to_x, x, dim=-1)).mean() + (1 - cosine(to_y, y, dim=-1)).mean()
    batch = {"tokens": new.reshape(2, -1, CHANNELS).swapaxes(0, 1)}
    loss = jax.jit(Loss(1e-3, WIDTHS).__call__)(nets, {}, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("only", ["rgb", "normals"])
def test_one_modality_is_refused_by_name(only):
    with pytest.raises(ConfigError, match=f"method cfm .* only {only}"):
        Config(method="cfm", modalities=(only,))
