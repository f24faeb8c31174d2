"""Every module, and the whole decoder, against the same equations written in PyTorch."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pirn_jax.decoder import Decoder, DecoderConfig, Tokens, abstract_params, merge, split
from pirn_jax.decoder.communication import CrossAttention, GraphAttention
from pirn_jax.decoder.layer import Bottleneck, FeedForward
from pirn_jax.decoder.reconstruction import Assignment, head_count
from pirn_jax.decoder.refinement import Refinement, column_average
from tests.decoder.recipes import RECIPES

torch = pytest.importorskip("torch")
from tests.decoder import oracle  # noqa: E402 (imports torch)

pytestmark = pytest.mark.torch
B, N, K, C = 2, 20, 5, 24


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(module, seed=0):
    """The module with every parameter random: no bias stays at 0 and no gate at its start."""
    graph, state = nnx.split(module)
    leaves, tree = jax.tree.flatten(state)
    leaves = [
        jnp.asarray(np.asarray(x) + 0.1 * draw(seed + i, *x.shape)) for i, x in enumerate(leaves)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


def t(x):
    return torch.tensor(np.asarray(x))


def module_weights(module, m):
    """Parameters of one modality of a module, by the oracle's names."""
    if isinstance(module, Refinement):
        gates, bias = t(module.gates[m]), t(module.gates_bias[m])
        return {
            "z": gates[:, :C].T,
            "r": gates[:, C:].T,
            "bz": bias[:C],
            "br": bias[C:],
            "w": t(module.candidate[m]).T,
            "b": t(module.candidate_bias[m]),
        }
    if isinstance(module, Assignment):
        names = {"q": "query", "k": "key", "v": "value", "o": "output", "bo": "output_bias"}
        return {a: t(getattr(module, b)[m]) for a, b in names.items() if hasattr(module, b)}
    if isinstance(module, GraphAttention):
        return {
            "g": t(module.weight[...]),
            "receive": t(module.edge[0]),
            "send": t(module.edge[1]),
        }
    if isinstance(module, CrossAttention):
        names = {"cq": "query", "ck": "key", "cv": "value", "gamma": "gate"}
        return {a: t(getattr(module, b)[m]) for a, b in names.items()}
    if isinstance(module, Bottleneck):
        return {"down": t(module.down[m]), "up": t(module.up[m])}
    if isinstance(module, FeedForward):
        names = {"m1": "first", "mb1": "first_bias", "m2": "second", "mb2": "second_bias"}
        return {a: t(getattr(module, b)[m]) for a, b in names.items()}
    return {}


def check(ours, theirs, inputs, atol=1e-5):
    """Values to 1e-5, gradients of a random functional with respect to the inputs to 1e-4."""
    inputs = [jnp.asarray(x) for x in inputs]
    weight = draw(99, *jax.eval_shape(ours, *inputs).shape)

    @jax.jit
    def value_and_gradients(*inputs):
        value, pull = jax.vjp(ours, *inputs)
        return value, pull(jnp.asarray(weight))

    value, gradients = value_and_gradients(*inputs)
    tensors = [torch.tensor(np.asarray(x), requires_grad=True) for x in inputs]
    expected = theirs(*tensors)
    np.testing.assert_allclose(value, expected.detach(), atol=atol)
    (expected * torch.tensor(weight)).sum().backward()
    for gradient, tensor in zip(gradients, tensors, strict=True):
        scale = max(1.0, float(tensor.grad.abs().max()))
        np.testing.assert_allclose(gradient, tensor.grad, atol=1e-4 * scale)


def each(function, *streams):
    """`function(m, b, ...)` over modalities and images, stacked."""
    return torch.stack(
        [
            torch.stack([function(m, *(s[m, b] for s in streams)) for b in range(B)])
            for m in range(2)
        ]
    )


TOKENS, PROTOTYPES = draw(1, 2, B, N, C), draw(2, 2, B, K, C)


def refined(module, tokens, prototypes):
    """Lines 8 to 10 of Algorithm 1."""
    context = column_average(module.weights(tokens, prototypes, None), tokens)
    return module(prototypes, context)


@pytest.mark.parametrize("context", ["ot", "topk", "global"])
def test_refinement(context):
    module = shaken(Refinement(DecoderConfig(context=context), C, nnx.Rngs(0)))
    weights = [module_weights(module, m) for m in range(2)]
    check(
        lambda z, p: refined(module, z, p),
        lambda z, p: each(lambda m, z, p: oracle.refine(z, p, weights[m], context), z, p),
        (TOKENS, PROTOTYPES),
    )


def test_closed_update_gate_keeps_the_prototypes():
    module = Refinement(DecoderConfig(update_bias=50.0), C, nnx.Rngs(0))
    kept = jax.jit(partial(refined, module))(jnp.asarray(TOKENS), jnp.asarray(PROTOTYPES))
    np.testing.assert_allclose(kept, PROTOTYPES, atol=1e-6)


@pytest.mark.parametrize("heads", [None, 3])
def test_assignment(heads):
    config = DecoderConfig(attention=heads is not None, heads=heads or 1)
    module = shaken(Assignment(config, C, nnx.Rngs(0)))
    weights = [module_weights(module, m) for m in range(2)]

    def theirs(m, z, p):
        if heads:
            return oracle.attention(z, p, weights[m], heads)
        return oracle.plan(oracle.cosine(z, p)) @ p

    check(
        lambda z, p: module.rebuild(module.plan(z, p, None).matrix, p),
        lambda z, p: each(theirs, z, p),
        (TOKENS, PROTOTYPES),
    )


@pytest.mark.parametrize("graph", ["jraph", "dense"])
@pytest.mark.parametrize("neighbours", [1, 3, 9])
def test_graph_attention(graph, neighbours):
    config = DecoderConfig(graph=graph, neighbours=neighbours)
    module = shaken(GraphAttention(config, C, nnx.Rngs(0)))
    weights = module_weights(module, 0)

    def theirs(p):
        images = [
            torch.stack(oracle.graph(p[0, b], p[1, b], weights, 4, min(neighbours, K)))
            for b in range(B)
        ]
        return torch.stack(images, 1)

    check(module, theirs, (PROTOTYPES,))


def test_jraph_equals_dense_masked_attention():
    jraph, dense = [
        jax.jit(shaken(GraphAttention(DecoderConfig(graph=graph), 96, nnx.Rngs(3))).__call__)
        for graph in ("jraph", "dense")
    ]
    prototypes = jnp.asarray(draw(5, 2, 8, 10, 96))
    np.testing.assert_allclose(jraph(prototypes), dense(prototypes), atol=1e-6)


def test_cross_attention():
    module = shaken(CrossAttention(DecoderConfig(), C, nnx.Rngs(0)))
    weights = [module_weights(module, m) for m in range(2)]
    check(
        module,
        lambda z, p: each(lambda m, z, p: oracle.cross(z, p, weights[m]), z, p.flip(0)),
        (TOKENS, PROTOTYPES),
    )


def test_feed_forward():
    module = shaken(FeedForward(DecoderConfig(mlp_ratio=2), C, nnx.Rngs(0)))
    weights = [module_weights(module, m) for m in range(2)]
    check(module, lambda z: each(lambda m, z: oracle.mlp(z, weights[m]), z), (TOKENS,))


RECIPE_CONFIGS = {
    "paper": replace(RECIPES["paper"].decoder, prototypes=K),
    "default": replace(RECIPES["default"].decoder, prototypes=K, token_scale="none"),
}


@pytest.mark.parametrize(
    "modalities", [("rgb", "normals"), pytest.param(("rgb",), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("recipe", RECIPE_CONFIGS)
@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_whole_decoder(recipe, modalities, masked):
    config = replace(RECIPE_CONFIGS[recipe], modalities=modalities)
    graph, *_ = abstract_params(config, C)
    arrays = jax.jit(lambda: split(Decoder(config, C, nnx.Rngs(0)))[1:])()
    decoder = shaken(merge(graph, *arrays))
    m = len(modalities)
    weights = {
        "prototypes": [t(decoder.prototypes[i]) for i in range(m)],
        "layers": [
            [
                {
                    name: value
                    for module in (
                        layer.refine,
                        layer.assign,
                        layer.align,
                        layer.attend,
                        layer.narrow,
                        layer.feed_forward,
                    )
                    for name, value in module_weights(module, i).items()
                }
                for i in range(m)
            ]
            for layer in decoder.layers
        ],
    }
    valid = np.ones((B, N), bool)
    if masked:
        valid[:, 15:] = False
    graph, parameters, statistics = split(decoder)
    run = jax.jit(lambda p, z: merge(graph, p, statistics)(z))
    ours = run(parameters, Tokens(TOKENS[:m], valid))
    for b in range(B):
        kept = int(valid[b].sum())
        expected, prototypes = oracle.decode(
            [t(TOKENS[i, b, :kept]) for i in range(m)],
            weights,
            heads=head_count(config.heads, C) if config.attention else 0,
            residual=config.mnc_residual,
        )
        for i in range(m):
            np.testing.assert_allclose(ours.values[i, b, :kept], expected[i].detach(), atol=3e-5)
            np.testing.assert_allclose(ours.prototypes[i, b], prototypes[i].detach(), atol=1e-5)
