"""Configs: frozen, hashable, refusing what cannot be; recipes by name and changed; JSON."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from pirn_jax.config import PRESETS, Config, TrainConfig, preset, with_settings
from pirn_jax.config_json import code_named, from_json, to_json
from pirn_jax.decoder.config import DecoderConfig, LossConfig
from pirn_jax.errors import ConfigError
from pirn_jax.methods import METHODS, find_recipe, recipes_of
from pirn_jax.methods.memory import MemorySettings
from pirn_jax.methods.pirn import RECIPES
from pirn_jax.scans import Limits

# Recipes


def test_the_paper_is_taken_to_the_letter():
    paper = RECIPES["paper"]
    assert paper.decoder == DecoderConfig()
    assert (paper.decoder.prototypes, paper.decoder.layers, paper.decoder.epsilon) == (10, 2, 0.05)
    assert (paper.learning_rate, paper.epochs) == (1e-4, 60)
    assert paper.loss == LossConfig("flattened", 3.0)
    assert not paper.decoder.attention
    assert paper.decoder.mlp_ratio == 0
    assert paper.foreground == "all"
    assert paper.top == 0.0
    assert paper.own_level == 0.0
    assert paper.augmentations() == ()


@pytest.mark.parametrize("config", [Config(recipe="paper"), preset("paper").detector])
def test_paper_means_one_thing_everywhere(config):
    """Recipe, encoder, geometry, and the epochs for the number of shots."""
    assert config.settings == RECIPES["paper"]
    assert config.settings.encoder == "dinov2-base"
    assert config.geometry_method == "open3d"
    run = {"dataset": "mvtec3d", "detector": config}
    assert TrainConfig(**run, shots=5).model_config.settings.epochs == 60
    assert TrainConfig(**run, shots=0).model_config.settings.epochs == 8
    asked = with_settings(config, {"epochs": 20})
    assert asked.for_shots(0).settings.epochs == 20  # what was asked for stays
    assert replace(config, geometry="grid").geometry_method == "grid"
    assert Config().geometry_method == "grid"


def test_configs_are_frozen_and_hashable():
    assert len({hash(recipe) for recipe in RECIPES.values()}) == 2
    with pytest.raises(FrozenInstanceError):
        RECIPES["paper"].decoder.layers = 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_default_recipe(method):
    config = Config(method=method)
    assert config.chosen_recipe == recipes_of(method)["default"]
    assert Config(method=method.replace("-", "_")) == config  # as flags spell it


def test_changes_reach_the_recipe_and_are_told():
    changes = {
        "epochs": 3,
        "learning_rate": 1,
        "decoder.context": "none",
        "decoder.attention": False,
        "loss.exponent": 2.0,
    }
    config = with_settings(Config(method="pirn", modalities=("rgb",), solver="scan"), changes)
    recipe = config.settings
    assert (recipe.epochs, recipe.learning_rate, recipe.loss.exponent) == (3, 1.0, 2.0)
    assert (recipe.decoder.context, recipe.decoder.attention) == ("none", False)
    assert (recipe.decoder.modalities, recipe.decoder.solver) == (("rgb",), "scan")
    assert config.recipe_name == "default"
    assert config.changed == changes
    assert with_settings(config, {}) == config
    # Changed back, it is the named one again.
    back = {name: value for name, value in _defaults(changes).items()}
    assert with_settings(config, back).recipe == "default"
    # Another recipe is another, whatever this one was changed to.
    assert replace(config, recipe="paper").chosen_recipe == RECIPES["paper"]


def _defaults(names):
    recipe = RECIPES["default"]
    return {
        name: getattr(getattr(recipe, name.split(".")[0]), name.split(".")[1])
        if "." in name
        else getattr(recipe, name)
        for name in names
    }


def test_a_baselines_fields_are_its_own():
    config = with_settings(Config(method="memory"), {"distance": "euclidean", "pool": True})
    assert config.settings == MemorySettings(distance="euclidean", pool=True)
    with pytest.raises(ConfigError, match="MemorySettings is not of method pirn"):
        Config(method="pirn", recipe=MemorySettings())


def test_the_recipe_says_the_method_where_none_is_named():
    assert Config().method == "mixture"
    assert Config(recipe="paper").method == "pirn"
    assert Config(recipe=MemorySettings(pool=True)).method == "memory"
    with pytest.raises(ConfigError, match="recipe: expected one of default, paper"):
        Config(recipe="papre")


def test_the_square_has_a_size():
    for side in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="part_side"):
            Config(part_side=side)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"decoder.prototype": 3}, "did you mean 'prototypes'"),
        ({"epochs": "many"}, "expected int"),
        ({"epochs": True}, "expected int"),
        ({"epochs": 0}, "above 0"),
        ({"epochs.more": 1}, "epochs has no fields"),
        ({"decoder.context": "otk"}, "context: expected one of ot, topk, global, none"),
        ({"decoder.layers": 0}, "layers: expected 1 or more"),
        ({"decoder.epsilon": -1.0}, "epsilon"),
        ({"decoder.mlp_ratio": -1}, "mlp_ratio"),
        ({"decoder.gradient": "implicit", "decoder.assignment": "softmax"}, "implicit needs"),
        ({"loss.exponent": -1.0}, "exponent"),
        ({"top": 2.0}, "share in"),
        ({"own_level": -0.5}, "own_level: expected a share in"),
        ({"foreground": "some"}, "foreground: expected one of mask, all"),
        ({"jitter": -1}, "jitter: expected 0 or more"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, message, unchecked):
    with pytest.raises(ConfigError, match=message):
        with_settings(Config(method="pirn"), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "papper"}, "did you mean 'paper'"),
        ({"method": "memry"}, "did you mean 'memory'"),
        ({"method": "memory", "recipe": "paper"}, "recipe of memory: expected one of default"),
        ({"method": "memory", "solver": "scan"}, "solver scan"),
        ({"solver": "sinkhorn"}, "expected one of auto"),
        ({"require_weights": True, "weights": "random"}, "weights are required"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate"),
        ({"modalities": ("normal",)}, "did you mean 'normals'"),
        ({"modalities": ()}, "one or two different"),
        ({"modalities": ("rgb", "rgb")}, "one or two different"),
        ({"background": "plan"}, "did you mean 'plane'"),
        ({"image_size": 0}, "image_size"),
        ({"tiles": 0}, "tiles"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(changes, message, unchecked):
    with pytest.raises(ConfigError, match=message):
        Config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": True, "overwrite": True}, "give one of the two"),
        ({"data_root": "somewhere"}, "lie in no folder"),
        ({"dataset": "mvtec2d"}, "--modalities rgb"),
        ({"dataset": "mvtec"}, "did you mean 'mvtec"),
        ({"shots": 0}, "shots: expected 1"),
        ({"shots": -1, "dataset": "folder"}, "shots: expected 1"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"category": ("all", "flange")}, "all beside others"),
        ({"test_scans": 0}, "test_scans"),
        ({"parallel": "pmapp"}, "did you mean 'pmap'"),
        ({"detector": Config(seed=3)}, "use --seeds 3"),
    ],
)
def test_contradictions_are_refused(changes, message, unchecked):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_the_background_follows_the_dataset_unless_said():
    assert TrainConfig().model_config.background == "auto"
    assert TrainConfig(dataset="eyecandies").model_config.background == "none"
    marked = TrainConfig(dataset="eyecandies", detector=Config(background="plane"))
    assert marked.model_config.background == "plane"


# JSON


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_survives_its_file(name):
    document = json.loads(json.dumps(to_json(preset(name))))
    assert from_json(TrainConfig, document, "file") == replace(preset(name), out=None)


@pytest.mark.parametrize(
    "config",
    [
        Config(recipe="paper", layers=(1, 2), seed=3),
        with_settings(Config(method="subspace"), {"variance": 0.5}),
        Config(method="inp-former", modalities=("rgb",)),
    ],
)
def test_a_detector_survives_its_file(config):
    document = json.loads(json.dumps(to_json(config)))
    assert from_json(Config, document, "file") == config
    # The recipe stands there in full: a later default changes no old model.
    assert document["settings"] == json.loads(json.dumps(document["settings"]))
    assert set(document["settings"]) >= {"foreground", "top"}


def test_tiles_share_a_quarter_of_their_side():
    sizes = [Config(image_size=224, tiles=tiles).view_size for tiles in (1, 2, 3)]
    assert sizes == [224, 224 + 168, 224 + 2 * 168]


def test_a_file_may_leave_fields_out():
    assert from_json(TrainConfig, {"shots": 7, "image_size": 448, "tiles": 2}, "f") == TrainConfig(
        shots=7, detector=Config(image_size=448, tiles=2)
    )
    small = {"recipe": "paper", "settings": {"decoder": {"prototypes": 3}}}
    found = from_json(Config, small, "f").chosen_recipe
    assert found == replace(RECIPES["paper"], decoder=DecoderConfig(prototypes=3))
    assert from_json(Config, {"recipe": "paper"}, "f") == Config(recipe="paper")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"shot": 5}, "did you mean 'shots'"),
        ({"shots": "5"}, "shots: got .*integer"),
        ({"shots": True}, "shots: got true.*integer"),
        ({"seeds": ["0"]}, "seeds: got .*integer"),
        ({"seeds": 3}, "seeds: got 3.*array"),
        ({"image_size": 22.4}, "image_size: got 22.4.*integer"),
        ({"detector": {}}, "no field"),
        ({"recipe": "defautl"}, "did you mean 'default'"),
        ({"method": "pirn", "settings": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"method": "pirn", "settings": {"epochs": "3"}}, "epochs: got .*integer"),
        ({"method": "pirn", "settings": {"decoder": {"layer": 3}}}, "did you mean 'layers'"),
        ({"method": "pirn", "settings": {"decoder": 3}}, "expected an object"),
        ({"settings": {"foreground": "x"}}, "foreground"),
        ({"settings": []}, "expected an object"),
        ({"method": "memory", "settings": {"decoder": {}}}, "field: expected one of"),
        ({"dataset": "mvtec2d"}, "--modalities rgb"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(document, message):
    with pytest.raises(ConfigError, match=f"(?s)file.*{message}"):
        from_json(TrainConfig, document, "file")


def test_what_is_found_by_name_is_what_was_named():
    assert find_recipe("pirn", "default") is RECIPES["default"]


def test_a_file_names_no_code_unless_exactly_that_is_allowed(caplog):
    own = "my_package.module:function"
    config = with_settings(Config(method="pirn"), {"decoder.assignment": own})
    assert code_named(config) == (own,)
    assert code_named(Config()) == ()
    for kind, whole in ((Config, config), (TrainConfig, TrainConfig(detector=config))):
        document = json.loads(json.dumps(to_json(whole)))
        for allowed in ((), ("my_package.module:other",), (own[:-1],)):
            with pytest.raises(ConfigError, match=f"(?s)file: it names code.*--allow-code {own}"):
                from_json(kind, document, "file", allowed)
        assert not caplog.records
        assert from_json(kind, document, "file", ("other:f", own)) == whole
        assert f"runs code that was allowed: {own}" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", [":x", "..rel:x", "json:loads", "C:"])
def test_whatever_a_file_names_with_a_colon_is_refused(name):
    document = {"method": "pirn", "settings": {"decoder": {"assignment": name}}}
    with pytest.raises(ConfigError, match="names code"):
        from_json(Config, document, "file")


def test_where_things_are_written_is_never_taken_from_a_file(caplog):
    own = {"out": "theirs", "overwrite": True, "resume": True, "cache": "evil", "processes": 3}
    own |= {"limits": {"pixels": 10**12}}  # what a file may cost this machine
    assert from_json(TrainConfig, {"shots": 7, **own}, "file") == TrainConfig(shots=7)
    assert "out, overwrite, resume, cache, limits" in caplog.text
    assert not set(own) & set(to_json(TrainConfig(shots=7, out="a", limits=Limits(pixels=9))))
    caplog.clear()
    from_json(TrainConfig, {"out": None, "overwrite": False}, "file")
    assert not caplog.records
