"""What holds whatever the weights: equivariance, independence of the batch, switches."""

import itertools
from functools import lru_cache, partial
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.decoder import (
    DecoderConfig,
    Tokens,
    abstract_params,
    create_decoder,
    init_prototypes,
    merge,
    principal_directions,
    reconstruction_loss,
    select_scans,
    split,
)
from pirn_jax.decoder.refinement import column_average, context_weights
from pirn_jax.decoder.tokens import apply_scale, fit_scale
from pirn_jax.errors import BadInputError, ConfigError
from tests.decoder.recipes import RECIPES
from tests.decoder.recipes import small_config as config

B, N, K, C = 3, 24, 4, 12
RNG = np.random.default_rng(0)
RAW = (RNG.normal(size=(2, B, N, C)) * RNG.uniform(0.1, 5, C) + RNG.normal(size=C)).astype("f4")
SCALES = get_args(get_type_hints(DecoderConfig)["token_scale"])


def tokens(raw=RAW, valid=None):
    return Tokens(jnp.asarray(raw), valid)


def built(config, shots=None):
    """A decoder's graph, parameters and statistics, made in one compiled program."""
    graph, *_ = abstract_params(config, C)
    shots = tokens() if shots is None else shots
    made = jax.jit(lambda shots, key: split(create_decoder(config, shots, key))[1:])
    return graph, *made(shots, jax.random.key(0))


small = lru_cache(built)  # of tokens(), once for all the tests that look at the same decoder


@partial(jax.jit, static_argnums=0)
def compiled(graph, parameters, statistics, tokens):
    return merge(graph, parameters, statistics)(tokens)


def run(parts, tokens):
    return compiled(*parts, tokens)


# The default recipe is looked at every time; compiling the other as well takes a minute more.
SLOW_PAPER = [pytest.param(name, marks=[pytest.mark.slow] * (name == "paper")) for name in RECIPES]


@pytest.fixture(scope="module", params=SLOW_PAPER)
def recipe(request):
    return request.param


def test_permuting_tokens_permutes_the_result(recipe):
    parts = small(config(recipe))
    order = RNG.permutation(N)
    plain, permuted = run(parts, tokens()), run(parts, tokens(RAW[:, :, order]))
    np.testing.assert_allclose(permuted.values, plain.values[:, :, order], atol=2e-5)
    np.testing.assert_allclose(permuted.prototypes, plain.prototypes, atol=2e-5)


def test_permuting_prototypes_permutes_them_and_nothing_else(recipe):
    graph, parameters, statistics = small(config(recipe))
    order = RNG.permutation(K)
    other = {**parameters, "prototypes": parameters["prototypes"][:, order]}
    plain = run((graph, parameters, statistics), tokens())
    permuted = run((graph, other, statistics), tokens())
    np.testing.assert_allclose(permuted.values, plain.values, atol=2e-5)
    np.testing.assert_allclose(permuted.prototypes, plain.prototypes[:, :, order], atol=2e-5)
    np.testing.assert_allclose(
        permuted.diagnostics.usage, plain.diagnostics.usage[..., order], atol=1e-6
    )


def test_swapping_modalities_with_their_weights_swaps_the_result(recipe):
    graph, parameters, statistics = small(config(recipe))
    shared = {"weight", "edge"}  # of the graph attention: one for the nodes of both

    def swapped(path, x):
        return x if path[-1].key in shared else x[::-1]

    parameters_swapped = jax.tree_util.tree_map_with_path(swapped, parameters)
    statistics_swapped = jax.tree.map(lambda x: x[::-1], statistics)
    plain = run((graph, parameters, statistics), tokens())
    other = run((graph, parameters_swapped, statistics_swapped), tokens(RAW[::-1]))
    np.testing.assert_allclose(other.values, plain.values[::-1], atol=2e-5)


def test_the_batch_does_not_matter(recipe):
    parts = small(config(recipe))
    together = run(parts, tokens())
    for b in range(B):
        alone = run(parts, tokens(RAW[:, b : b + 1]))
        np.testing.assert_allclose(alone.values[:, 0], together.values[:, b], atol=1e-5)
        np.testing.assert_allclose(
            alone.diagnostics.usage[:, :, 0], together.diagnostics.usage[:, :, b], atol=1e-6
        )


@pytest.mark.parametrize(
    ("scale", "context"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] * (each[0] != "standardise_image"))
        for each in itertools.product(SCALES, ["ot"])
    ]
    + [("none", "topk"), ("none", "global")],
)
def test_padding_does_not_matter(scale, context):
    parts = small(config(token_scale=scale, context=context))
    kept = 17
    valid = jnp.broadcast_to(jnp.arange(N)[None] < kept, (B, N))
    noise = RAW.copy()
    noise[:, :, kept:] = 1e3 * RNG.normal(size=noise[:, :, kept:].shape)
    padded, cut = run(parts, tokens(noise, valid)), run(parts, tokens(RAW[:, :, :kept]))
    np.testing.assert_allclose(padded.values[:, :, :kept], cut.values, atol=5e-5)


@pytest.mark.parametrize("kept", [12, 17, 3, 1])
def test_topk_takes_what_balance_would_give_of_the_tokens_that_count(kept):
    """Each image another mask; against numpy on its unmasked tokens alone."""
    random = np.random.default_rng(kept)
    cost = random.uniform(0, 2, (2, B, N, K)).astype("f4")
    valid = random.permuted(np.arange(N)[None] < kept + np.arange(B)[:, None], axis=1)
    assert len(set(valid.sum(1))) == B
    settings = config(context="topk")
    found = jax.jit(lambda c, m: context_weights("topk", c, m, settings))(cost, valid.astype("f4"))
    for b in range(B):
        left = cost[:, b, valid[b]]  # (2, tokens that count, K)
        share = max(1, len(left[0]) // K)
        ranks = left.argsort(1).argsort(1)
        np.testing.assert_array_equal(found[:, b, valid[b]], ranks < share)
        np.testing.assert_array_equal(found[:, b, ~valid[b]], 0.0)
        np.testing.assert_array_equal(found[:, b].sum(1), share)


def test_topk_of_tokens_masked_out_is_that_of_the_others_alone():
    parts = small(config(token_scale="none", context="topk"))
    kept = np.sort(np.random.default_rng(4).permutation(N)[:17])
    valid = np.zeros((B, N), bool)
    valid[:, kept] = True
    masked = run(parts, tokens(RAW, jnp.asarray(valid)))
    alone = run(parts, tokens(RAW[:, :, kept]))
    np.testing.assert_allclose(masked.values[:, :, kept], alone.values, atol=5e-5)
    np.testing.assert_allclose(masked.prototypes, alone.prototypes, atol=5e-5)


def named(changes):
    return ",".join(f"{name}={value}" for name, value in changes.items())


ALWAYS = [
    {"assignment": "softmax"},
    {"modalities": ("normals",), "mnc_residual": "purified"},
    {"prototypes": 1},
    {"gradient": "stop", "solver": "scan"},
]
MINUTES = [
    {"assignment": "partial", "layers": 2},
    {"context": "topk"},
    {"communicate": False},
    {"assignment": "softmax", "context": "none", "communicate": False},
    {"modalities": ("rgb",)},
    {"prototypes": 50},
    {"layers": 3, "mlp_ratio": 0},
    {"token_scale": "whiten"},
    {"gradient": "implicit"},
    {"solver": "ott"},
    {"attention": False, "graph": "dense"},
]


@pytest.mark.parametrize(
    "changes", [*ALWAYS, *(pytest.param(c, marks=pytest.mark.slow) for c in MINUTES)], ids=named
)
def test_every_ablation_trains(changes):
    """Each switch builds, has finite gradients, and every parameter it keeps is used."""
    settings = config(**changes)
    shots = tokens(RAW[: len(settings.modalities)])
    graph, parameters, statistics = built(settings, shots)

    def step(parameters):
        result = merge(graph, parameters, statistics)(shots)
        loss = reconstruction_loss(result, RECIPES["default"].loss, distance=settings.distance)
        return loss, result

    step = jax.jit(jax.value_and_grad(step, has_aux=True))
    (loss, result), gradient = step(parameters)
    assert jnp.isfinite(loss)
    assert result.values.shape == result.target.shape == shots.values.shape
    flat = jax.tree_util.tree_leaves_with_path(gradient)
    assert all(np.isfinite(g).all() for _, g in flat)
    # With one prototype every plan is all ones: the costs' parameters have nothing to say.
    if settings.prototypes > 1 and settings.gradient != "stop":
        unused = [jax.tree_util.keystr(p) for p, g in flat if not np.any(g)]
        assert not unused


@pytest.mark.parametrize("heads", [None, 3])
def test_diagnostics_say_what_the_plan_says(heads):
    """Against counting in numpy, with masked tokens; an unfinished plan is off balance."""
    settings = config("paper", attention=heads is not None, iterations=2)
    graph, *arrays = small(settings)
    valid = np.broadcast_to(np.arange(N) < 17, (B, N))

    @jax.jit
    def both(arrays, raw, mass):
        decoder = merge(graph, *arrays)
        told = decoder(tokens(raw, mass > 0)).diagnostics
        layer = decoder.layers[0]
        learned = jnp.broadcast_to(decoder.prototypes[...][:, None], (2, B, K, C))
        weights = layer.refine.weights(raw, learned, mass)
        refined = layer.refine(learned, column_average(weights, raw))
        return told, layer.assign.plan(raw, refined, mass).matrix

    told, plan = both(arrays, RAW, valid.astype("f4"))
    plan = np.asarray(plan).reshape(2, B, heads or 1, N, K)[..., :17, :]
    counts = np.stack([(plan.argmax(-1) == k).mean((2, 3)) for k in range(K)], -1)
    np.testing.assert_allclose(told.usage[0], counts, atol=1e-6)
    off = np.abs(plan.sum(-2) / (17 / K) - 1).max((2, 3))
    np.testing.assert_allclose(told.column_error[0], off, atol=1e-5)
    assert off.max() > 1e-3


@pytest.mark.slow
def test_decoders_stack_and_vmap(recipe):
    settings = config(recipe)
    keys = jax.random.split(jax.random.key(1), 3)

    def parts(key):
        return split(create_decoder(settings, tokens(), key))[1:]

    graph, *_ = abstract_params(settings, C)
    parameters, statistics = jax.jit(jax.vmap(parts))(keys)
    many = jax.jit(jax.vmap(lambda p, s: merge(graph, p, s)(tokens()).values))(
        parameters, statistics
    )
    for i, key in enumerate(keys):
        single = run((graph, *jax.jit(parts)(key)), tokens()).values
        np.testing.assert_allclose(many[i], single, atol=5e-5)


def test_scales():
    raw = jnp.asarray(RAW)
    flat = RAW.reshape(2, -1, C)
    for kind in SCALES:
        scaled = np.asarray(apply_scale(kind, fit_scale(kind, raw), raw)).reshape(2, -1, C)
        if kind == "none":
            np.testing.assert_array_equal(scaled, flat)
        if kind in ("centre", "standardise", "whiten"):
            np.testing.assert_allclose(scaled.mean(1), 0.0, atol=1e-5)
        if kind == "standardise":
            np.testing.assert_allclose(scaled.std(1), 1.0, atol=1e-4)
        if kind == "centre_image":
            np.testing.assert_allclose(scaled.reshape(2, B, N, C).mean(2), 0.0, atol=1e-5)
        if kind == "layernorm":
            np.testing.assert_allclose(scaled.std(-1), 1.0, atol=1e-3)
        if kind == "whiten":  # unit variance in the directions kept, none beyond
            for stream in scaled:
                variances = np.linalg.eigvalsh(np.cov(stream.T, bias=True))
                kept = variances > 0.5
                np.testing.assert_allclose(variances[kept], 1.0, atol=1e-3)
                np.testing.assert_allclose(variances[~kept], 0.0, atol=1e-3)
                assert kept.sum() >= 6


def test_prototypes_are_tokens_of_different_clusters():
    random = np.random.default_rng(1)  # its own: draws do not depend on which tests ran before
    centres = 5 * random.normal(size=(6, 32))
    which = np.repeat(np.arange(6), [300, 60, 20, 10, 5, 5])
    cloud = jnp.asarray(centres[which] + 0.05 * random.normal(size=(400, 32)), jnp.float32)
    mass = jnp.asarray(which != 0, jnp.float32)  # the largest cluster does not count
    draw = jax.jit(init_prototypes, static_argnums=2)
    for seed in range(5):
        drawn = np.asarray(draw(jax.random.key(seed), cloud, 6))
        found = [int(np.where((np.asarray(cloud) == p).all(1))[0][0]) for p in drawn]
        assert set(which[found]) == set(range(6))
        drawn = np.asarray(draw(jax.random.key(seed), cloud, 5, mass))
        found = [int(np.where((np.asarray(cloud) == p).all(1))[0][0]) for p in drawn]
        assert set(which[found]) == {1, 2, 3, 4, 5}


def test_more_prototypes_than_tokens():
    drawn = init_prototypes(jax.random.key(0), jnp.ones((2, 3)), 5)
    np.testing.assert_array_equal(drawn, 1.0)


def test_principal_directions_rebuild_tokens_under_noise_best():
    """Against least squares on many draws of the noise."""
    random = np.random.default_rng(2)
    cloud = random.normal(size=(4000, 3)) @ random.normal(size=(3, 8)) + random.normal(
        size=(4000, 8)
    )
    cloud /= np.sqrt((cloud**2).mean(0))
    odd = np.concatenate([cloud, 50 + np.zeros((10, 8))]).astype("f4")
    mass = jnp.asarray(np.arange(4010) < 4000, jnp.float32)
    directions, shares = principal_directions(jnp.asarray(odd), 8, mass)
    np.testing.assert_allclose(directions.T @ directions, np.eye(8), atol=1e-5)
    assert (jnp.take_along_axis(directions, jnp.abs(directions).argmax(0)[None], 0) > 0).all()
    linear = (directions * shares[None]) @ directions.T
    given = np.concatenate([cloud + random.normal(size=cloud.shape) for _ in range(60)])
    best = np.linalg.lstsq(given, np.tile(cloud, (60, 1)))[0]
    np.testing.assert_allclose(linear, best, atol=0.01)
    few, _ = principal_directions(jnp.asarray(odd), 3, mass)
    np.testing.assert_array_equal(few, directions[:, -3:])


@pytest.mark.parametrize("modalities", [("rgb",), ("rgb", "normals")])
def test_a_decoder_that_starts_principal_starts_near_the_subspace(modalities):
    random = np.random.default_rng(3)
    raw = random.normal(size=(2, B, N, 4)) @ random.normal(size=(4, C))
    raw = (raw + 0.1 * random.normal(size=raw.shape)).astype("f4")
    shots = tokens(raw[: len(modalities)])
    error, graph = {}, None
    for start in ("principal", "normal"):
        made = config(modalities=modalities, layers=2, bottleneck_init=start)
        first, *arrays = built(made, shots)
        graph = graph or first  # the start leaves no trace in what is computed: one program
        result = run((graph, *arrays), shots)
        error[start] = float(((result.values[0] - result.target[0]) ** 2).mean())
    assert error["principal"] < 0.1  # four directions of unit variance, and little else
    assert error["normal"] > 0.5


def test_other_modalities_than_the_decoder_s_are_refused():
    decoder = merge(*small(config()))
    with pytest.raises(BadInputError, match=r"rgb and normals, 2 in front; got shape \(1, 3, 24"):
        decoder(tokens(RAW[:1]))
    with pytest.raises(BadInputError, match="of rgb, 1 in front"):
        create_decoder(config(modalities=("rgb",)), tokens(), jax.random.key(0))


def test_shapes_are_known_without_computing():
    _, parameters, statistics = small(config())
    _, *abstract = abstract_params(config(), C)
    found = jax.tree.map(lambda x: (x.shape, x.dtype), (parameters, statistics))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), tuple(abstract)) == found


def test_scans_are_selected_in_the_order_asked_for():
    valid = RNG.random((B, N)) > 0.5
    some = select_scans(Tokens(RAW, valid), np.array([2, 0, 2]))
    np.testing.assert_array_equal(some.values, np.stack([RAW[:, 2], RAW[:, 0], RAW[:, 2]], 1))
    np.testing.assert_array_equal(some.valid, np.stack([valid[2], valid[0], valid[2]]))
    assert select_scans(Tokens(RAW), np.array([1])).valid is None


def test_heads_that_do_not_divide():
    made = merge(*abstract_params(config(heads=5), C))  # 12 channels: 4 is the next divisor
    assert made.layers[0].assign.heads == 4
    with pytest.raises(ConfigError, match="does not divide 12"):
        abstract_params(config(graph_heads=5), C)
