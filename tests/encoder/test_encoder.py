"""The encoder as the rest of the house meets it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.encoder import CATALOG, Blocks, encoder_config, load_encoder
from pirn_jax.errors import BadInputError, ConfigError

RANDOM_DIGITS = [-0.73589429, -0.05146915, -0.26180408]


@pytest.fixture
def untyped(monkeypatch):
    """As for a user: without the tests' own run-time type checks."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def tiny():
    return load_encoder("vit-tiny-16", "random", image_size=(64, 96))


def pictures(batch=2, size=(64, 96)):
    return np.random.RandomState(1).rand(batch, *size, 3).astype(np.float32)


def test_a_call_averages_the_raw_outputs_of_its_layers(tiny):
    states = tiny.hidden_states(pictures(), tiny.layers)
    assert tiny.layers == (2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert tiny(pictures()).shape == (2, 4 * 6, 192)
    np.testing.assert_allclose(tiny(pictures()), np.mean(states, axis=0), atol=1e-5)


def test_hidden_states_come_in_the_order_asked_for_beyond_the_layers_averaged(tiny):
    last, first = tiny.hidden_states(pictures(), (12, 1))
    again = tiny.hidden_states(pictures(), [1])[0]
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(last) - np.asarray(first)).max() > 0.1


def test_a_pictures_tokens_do_not_depend_on_the_batch(tiny):
    together = tiny(pictures(3))
    alone = [tiny(pictures(3)[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_blocks_may_be_normalised_before_they_are_averaged(tiny):
    images = np.random.default_rng(0).random((2, *tiny.image_size, 3), np.float32)
    even = tiny.read(Blocks((2, 5), normalised=True))
    states = [np.asarray(x, np.float64) for x in tiny.hidden_states(images, (2, 5))]
    expected = [
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + tiny.config.epsilon)
        for x in states
    ]
    np.testing.assert_allclose(even(images), np.mean(expected, 0), atol=1e-5)


def test_a_network_read_otherwise_shares_parameters_and_itself():
    network = load_encoder("vit-tiny-16", "random", 32)
    even = network.read(Blocks(normalised=True))
    assert even.layers == network.config.normalised_layers == (4, 5, 6, 7, 8, 9, 10)
    assert even.parameters is network.parameters
    assert even.read(Blocks()) is network  # the network's own blocks again
    assert network.read(Blocks(normalised=True)) is even
    chosen = network.read(Blocks((3, 1)))
    assert chosen.read(Blocks(normalised=True)).layers == (3, 1)  # these were asked for, and stay
    cut = load_encoder("vit-tiny-16", "random", 32, (1,))
    cut.blocks = 2  # as of a file that ends there
    with pytest.raises(ConfigError, match="these weights end after 2"):
        cut.read(Blocks((3,)))


def test_it_compiles_into_a_larger_program(tiny):
    program = jax.jit(lambda p, x: tiny.tokens(p, x).sum(axis=1))
    np.testing.assert_allclose(
        program(tiny.parameters, pictures()), tiny(pictures()).sum(axis=1), rtol=1e-4, atol=1e-3
    )


def test_it_stops_after_the_last_layer_asked_for():
    """The compiled program holds no operation of a later block."""
    cheap, whole = (
        load_encoder("vit-tiny-16", "random", layers=layers)._run.lower(
            load_encoder("vit-tiny-16", "random").parameters, jnp.zeros((2, 224, 224, 3))
        )
        for layers in ((3,), (12,))
    )
    ratio = cheap.cost_analysis()["flops"] / whole.cost_analysis()["flops"]
    assert 0.24 < ratio < 0.28


def test_flops_of_the_pair_by_formula_and_by_xla():
    """PIRN's whole system is given as 103.36 G (Table 4); early exit alone leaves 77.3 for ours."""
    encoder = load_encoder("dinov2-base", "random")
    formula = encoder.flops(pictures=2)
    program = encoder._run.lower(encoder.parameters, jnp.zeros((2, 224, 224, 3)))
    counted = program.cost_analysis()["flops"]
    assert formula == pytest.approx(77.3e9, rel=1e-3)
    assert counted <= 80e9
    assert formula == pytest.approx(counted, rel=0.03)


def test_random_weights_are_the_same_everywhere():
    first, second = (
        load_encoder("dinov2-small", "random", image_size=56),
        load_encoder("dinov2-small", "random", image_size=56),
    )
    assert first.config.width == CATALOG["dinov2-small"].width
    assert first.source.path == ""
    np.testing.assert_array_equal(
        first.parameters["blocks"][11]["mlp"]["fc2"]["kernel"],
        second.parameters["blocks"][11]["mlp"]["fc2"]["kernel"],
    )
    # numpy's frozen Mersenne Twister: these digits hold on every machine
    kernel = np.asarray(first.parameters["blocks"][0]["attention"]["qkv"]["kernel"])
    np.testing.assert_allclose(kernel[0, :3] * np.sqrt(384), RANDOM_DIGITS, rtol=1e-5)


def test_bfloat16_keeps_sums_and_norms_in_float32():
    encoder = load_encoder("vit-tiny-16", "random", image_size=64, dtype="bfloat16")
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(encoder.parameters)}
    assert dtypes == {"bfloat16", "float32"}
    tokens = encoder(pictures(size=(64, 64)))
    exact = load_encoder("vit-tiny-16", "random", image_size=64)(pictures(size=(64, 64)))
    assert tokens.dtype == jnp.float32
    product = (tokens * exact).sum(-1)
    cosine = product / jnp.linalg.norm(tokens, axis=-1) / jnp.linalg.norm(exact, axis=-1)
    assert cosine.min() > 0.9995


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), r"expected pictures of shape \(B, 64, 96, 3\)"),
        (np.zeros((64, 96, 3), np.float32), r"got \(64, 96, 3\)"),
        (np.zeros((1, 64, 96, 3), np.uint8), "expected float colours"),
        (np.full((1, 64, 96, 3), 128.0, np.float32), r"expected colours in \[0, 1\]"),
        (np.full((1, 64, 96, 3), np.nan, np.float32), r"expected colours in \[0, 1\]"),
        (np.random.RandomState(0).randn(1, 64, 96, 3), r"expected colours in \[0, 1\]"),
        ([[[[0.5]]]], "expected a numpy or jax array of pictures, got a list"),
    ],
)
def test_pictures_of_the_wrong_kind_are_refused(tiny, images, message, untyped):
    with pytest.raises(BadInputError, match=message):
        tiny(images)
    with pytest.raises(BadInputError, match=message):
        tiny.hidden_states(images, (1,))


def test_the_pure_function_refuses_pictures_of_another_size(tiny):
    with pytest.raises(BadInputError, match="expected pictures of shape"):
        jax.jit(tiny.tokens)(tiny.parameters, jnp.zeros((2, 96, 64, 3)))


@pytest.mark.parametrize("kind", [np.float64, np.float16, jnp.bfloat16])
def test_pictures_of_any_floating_type_give_float32_tokens(tiny, kind):
    tokens = tiny(pictures().astype(kind))
    assert tokens.dtype == jnp.float32
    rounded = pictures().astype(kind).astype(np.float32)
    np.testing.assert_allclose(tokens, tiny(rounded), atol=1e-5)
    np.testing.assert_allclose(tiny(jnp.asarray(rounded)), tiny(rounded), atol=1e-5)


def test_float32_is_never_rounded_to_tensorfloat32(tiny):
    """The products ask for the highest precision themselves, whatever jax's default is."""
    with jax.default_matmul_precision("bfloat16"):
        program = str(jax.make_jaxpr(tiny.tokens)(tiny.parameters, pictures()))
    products = [line for line in program.splitlines() if "precision=" in line]
    assert len(products) >= 6 * 10
    assert all("HIGHEST" in line for line in products)


def test_random_weights_are_one_network_at_every_picture_size():
    small, large = (
        load_encoder("dinov2-small", "random", image_size=224),
        load_encoder("dinov2-small", "random", image_size=448),
    )
    np.testing.assert_array_equal(small.parameters["prefix"], large.parameters["prefix"])
    native = load_encoder("dinov2-small", "random", image_size=518).parameters["positions"]
    assert native.shape == (37 * 37, 384)
    assert large.parameters["positions"].std() == pytest.approx(native.std(), rel=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 225}, "nearest: 224 × 224"),
        ({"image_size": (224, 0)}, "multiple of"),
        ({"layers": (0, 3)}, "1-based"),
        ({"layers": ()}, "layers must lie"),
        ({"layers": (13,)}, "1 to 12"),
        ({"position_rule": "meta"}, "does not exist for vit-tiny-16"),
        ({"position_rule": "bilinear"}, "must be None, 'hf' or 'meta'"),
        ({"dtype": "float16"}, "'float32' or 'bfloat16'"),
        ({"layers": (3, 3)}, "must differ"),
        ({"layers": (2.7,)}, "whole numbers"),
        ({"layers": "2-10"}, "sequence of 1-based blocks"),
        ({"layers": 5}, "sequence of 1-based blocks"),
        ({"image_size": 224.0}, "whole numbers"),
    ],
)
def test_options_out_of_range_are_refused(options, message, untyped):
    with pytest.raises(ConfigError, match=message):
        load_encoder("vit-tiny-16", "random", **options)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("dinov2-base", "dinov2-base"),
        ("facebook/dinov2-base", "dinov2-base"),
        ("facebook/dinov2-with-registers-large", "dinov2-large-reg"),
        ("dinov2_vitg14_reg", "dinov2-giant-reg"),
        ("dinov2reg_vit_base_14", "dinov2-base-reg"),
        ("vit_base_patch14_dinov2.lvd142m", "dinov2-base"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "dinov2-small-reg"),
        ("vit_base_patch8_224.dino", "dino-vitb8"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit-tiny-16"),
        ("DINOv2-Small", "dinov2-small"),
    ],
)
def test_names_of_other_projects_are_understood(spelling, name):
    assert encoder_config(spelling).name == name


def test_sizes_and_layers_may_be_numpys(untyped):
    encoder = load_encoder("vit-tiny-16", "random", np.int64(32), layers=np.arange(2, 4))
    assert encoder.image_size == (32, 32)
    assert encoder.layers == (2, 3)


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean dinov2-base"):
        load_encoder("dino2-base")
    with pytest.raises(ConfigError, match="Known: dinov2-small"):
        load_encoder("resnet")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("dinov2-base", (2, 3, 4, 5, 6, 7, 8, 9, 10)),
        ("dinov2-large", (4, 6, 8, 10, 12, 14, 16, 18, 20)),
        ("dinov2-giant", (7, 10, 13, 17, 20, 23, 27, 30, 33)),
    ],
)
def test_deeper_networks_average_the_same_share_of_their_depth(name, layers):
    assert CATALOG[name].layers == layers
