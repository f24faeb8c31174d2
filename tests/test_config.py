"""Configs are frozen, hashable, and refuse what cannot be."""

from dataclasses import FrozenInstanceError

import pytest

from pirn_jax.config import Config
from pirn_jax.errors import ConfigError
from pirn_jax.recipes import (
    BASELINES,
    RECIPES,
    DecoderConfig,
    LossConfig,
    MemoryRecipe,
    find_recipe,
)


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


def test_changes_reach_the_recipe_of_the_method():
    config = Config(method="memory", change=("distance=euclidean", "pool=True", "copies=3"))
    assert config.resolved_recipe() == MemoryRecipe(distance="euclidean", pool=True, copies=3)
    for name, recipe in BASELINES.items():
        assert Config(method=name).resolved_recipe() == recipe


def test_the_share_of_the_map_that_is_the_score_is_the_methods_own_unless_given():
    assert [Config(method=name).top_share for name in ("pirn", "memory")] == [0.01, 0.0]
    assert Config(recipe="paper").top_share == 0.0
    assert [Config(method=name).top_share for name in ("inp_former", "subspace")] == [0.01, 0.01]
    assert Config(method="inp_former", top=0.0).top_share == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "memroy"}, "did you mean 'memory'"),
        ({"method": "memory", "recipe": "paper"}, "recipe paper is pirn's"),
        ({"method": "subspace", "solver": "ott"}, "solver ott is pirn's"),
        ({"method": "memory", "change": ("prototypes=3",)}, "change: expected one of copies"),
        ({"method": "pirn", "change": ("pool=True",)}, "change: expected one of"),
        ({"method": "memory", "modalities": ("xyz",)}, "modalities"),
        ({"method": "memory", "change": ("copies=-1",)}, "copies: expected 0 or more"),
        ({"change": ("copies=-1",)}, "copies: expected 0 or more"),
    ],
)
def test_what_contradicts_the_method_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Config(**fields)
