"""Configs are frozen, hashable, and refuse what cannot be."""

from dataclasses import FrozenInstanceError

import pytest

from pirn_jax.config import RECIPES, DecoderConfig, LossConfig, find_recipe
from pirn_jax.errors import ConfigError


def test_paper_recipe_is_literal():
    paper = RECIPES["paper"]
    assert paper.decoder == DecoderConfig()
    assert (paper.decoder.prototypes, paper.decoder.layers, paper.decoder.epsilon) == (10, 2, 0.05)
    assert (paper.learning_rate, paper.epochs) == (1e-4, 60)
    assert paper.loss == LossConfig("flattened", 3.0)
    assert not paper.decoder.attention
    assert paper.decoder.mlp_ratio == 0


def test_configs_are_frozen_and_hashable():
    assert len({hash(recipe) for recipe in RECIPES.values()}) == 2
    with pytest.raises(FrozenInstanceError):
        RECIPES["paper"].decoder.layers = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": "otk"}, "did you mean 'o|did you mean 'topk'"),
        ({"solver": "sinkhorn"}, "expected one of auto"),
        ({"modalities": ()}, "one or two different"),
        ({"modalities": ("rgb", "rgb")}, "one or two different"),
        ({"modalities": ("rgb", "normal")}, "did you mean 'normals'"),
        ({"layers": 0}, "layers: expected 1 or more"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"mlp_ratio": -1}, "mlp_ratio"),
        ({"gradient": "implicit", "assignment": "softmax"}, "implicit needs assignment ot"),
        ({"prototype": 3}, "did you mean 'prototypes'"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        find_recipe("default", **changes)


def test_unknown_recipe():
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        find_recipe("papper")


def test_bad_loss():
    with pytest.raises(ConfigError, match="exponent"):
        LossConfig(exponent=-1.0)
    with pytest.raises(ConfigError, match="flattened"):
        LossConfig(form="flat")
