"""INP-Former against its definition in PyTorch, and what its training promises."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.decoder import Tokens
from pirn_jax.errors import ConfigError
from pirn_jax.methods import inp_former
from pirn_jax.methods.inp_former import (
    InpFormer,
    InpFormerSettings,
    Loss,
    authors_augmentations,
    layers_of,
    rates,
)
from pirn_jax.methods.inp_former_network import Size, create, forward
from pirn_jax.training import TrainingJob

C, HEADS, LAYERS = 16, 2, 4
# A prime number of epochs is run one by one: all tests of 6 images share one program.
RECIPE = InpFormerSettings(prototypes=3, blocks=4, epochs=3, batch_size=4, warm_up=2)
SIZE = Size(3, 4, C, HEADS)


def layer_tokens(images: int, seed: int = 0) -> np.ndarray:
    """Of single encoder layers (layer, B, N, C), around a few directions."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((LAYERS, 3, C))
    which = random.integers(0, 3, (images, 9))
    found = 1 + centres[:, which] + 0.3 * random.standard_normal((LAYERS, images, 9, C))
    return found.astype(np.float32)


def grouped(layers: np.ndarray) -> np.ndarray:
    half = len(layers) // 2
    return np.concatenate([layers[:half].mean(0), layers[half:].mean(0)], axis=-1)


def parameters(seed: int = 0):
    """Well away from the initial ones, which are close to 0 and hide mistakes."""
    initial = jax.jit(create, static_argnums=0)(SIZE, jax.random.key(seed))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: np.asarray(x) + 0.2 * random.standard_normal(x.shape).astype(np.float32), initial
    )


def job(images: int = 6, seed: int = 0, name: str = "a") -> TrainingJob:
    tokens = grouped(layer_tokens(images, 1))
    return TrainingJob(name, Tokens(tokens[None], np.ones((images, 9), bool)), seed)


METHOD = InpFormer(1, C, HEADS, RECIPE)


@pytest.mark.slow
@pytest.mark.torch
def test_network_losses_and_training_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    from . import torch_inp_former as published

    ours = parameters()
    model = published.load(published.InpFormer(C, HEADS, 3, 4), ours)
    layers = layer_tokens(6)
    given = [torch.tensor(layer) for layer in layers]
    targets, rebuilt, coherence = model(given)
    found = jax.jit(forward, static_argnums=2)(ours, grouped(layers), HEADS)
    for one, other in zip(found[:2], (targets, rebuilt), strict=True):
        np.testing.assert_allclose(one, torch.stack(other).detach(), rtol=1e-4, atol=1e-5)
    assert float(found[2]) == pytest.approx(coherence.item(), rel=1e-5)

    # Loss and gradients, then steps of clipping, rate and optimizer; all parameters at the end.
    optimizer = published.StableAdamW(model.parameters())
    indices = np.array([[0, 1, 4, 5], [2, 3, 5, 0], [1, 3, 4, 2], [0, 2, 1, 5], [3, 1, 4, 0]])
    rate = rates(RECIPE, len(indices))
    expected = []
    for some, each in zip(indices, rate, strict=True):
        targets, rebuilt, coherence = model([layer[some] for layer in given])
        loss = published.soft_mining(targets, rebuilt) + 0.2 * coherence
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step(float(each))
        expected.append(loss.item())
    stacked = jax.tree.map(lambda x: jnp.asarray(x)[None], ours)
    state = (stacked, inp_former.Moments(*(jax.tree.map(jnp.zeros_like, stacked) for _ in "abc")))
    tokens, losses = jnp.asarray(grouped(layers))[None], []
    for number, some in enumerate(indices):
        here = jnp.asarray([number + 1], jnp.float32)
        state, loss = inp_former.run_steps(
            Loss(3.0, 0.2, HEADS), state, tokens, jnp.asarray(some[None], jnp.int32),
            jnp.asarray(rate[number : number + 1]), here,
        )  # fmt: skip
        losses.append(float(loss[0, 0]))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    after = jax.tree.map(lambda x: np.asarray(x[0]), state[0])
    # Softmax does not see a bias of the keys: its gradient is rounding, blown up by the optimizer.
    model.aggregation.kv.bias.data[:C] = torch.tensor(after["aggregation"]["key_value"]["bias"][:C])
    reference = published.load(published.InpFormer(C, HEADS, 3, 4), after)
    pairs = zip(model.named_parameters(), reference.parameters(), strict=True)
    for (name, one), other in pairs:
        np.testing.assert_allclose(other.detach(), one.detach(), rtol=1e-3, atol=2e-5, err_msg=name)


def test_the_initial_parameters_are_those_published():
    network = jax.jit(create, static_argnums=0)(SIZE, jax.random.key(0))
    for kernel in (network["decoder"]["fc1"]["kernel"], network["bottleneck"]["fc2"]["kernel"]):
        assert float(jnp.abs(kernel).max()) <= 0.03
        # Of a normal distribution cut at 3 sigma.
        assert float(kernel.std()) == pytest.approx(0.01 * 0.9866, rel=0.1)
    assert float(network["prototypes"].std()) == pytest.approx(1.0, rel=0.3)
    assert not network["decoder"]["out"]["bias"].any()
    assert (network["decoder"]["sharpness"] == 1).all()


def test_layers_are_those_published():
    assert layers_of(12) == (3, 4, 5, 6, 7, 8, 9, 10)
    assert layers_of(24) == (5, 7, 9, 11, 13, 15, 17, 19)
    assert len(set(layers_of(40))) == 8


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine():
    found = rates(InpFormerSettings(), 1200)
    assert len(found) == 1200
    np.testing.assert_allclose(found[:100], np.linspace(0, 1e-3, 100), rtol=1e-6)
    assert found[100] == pytest.approx(1e-3)
    assert found[650] == pytest.approx(5.5e-4)
    assert found[-1] == pytest.approx(1e-4, rel=1e-2)
    assert len(rates(InpFormerSettings(), 30)) == 30


@pytest.mark.slow  # another number of images, another program
def test_what_a_job_becomes_depends_on_itself_alone():
    """Neither on other jobs, nor on their numbers of images; seeds and streams differ."""
    (alone,) = METHOD.learn([job()])
    together = METHOD.learn([job(9, 3, "b"), job(), job(6, 1, "c")])
    again = {result.name: result for result in together}
    np.testing.assert_allclose(
        alone.parameters["prototypes"], again["a"].parameters["prototypes"], atol=1e-6
    )
    assert [line["loss"] for line in alone.history] == pytest.approx(
        [line["loss"] for line in again["a"].history], rel=1e-4
    )
    other = again["c"].parameters["prototypes"]
    assert np.abs(other - alone.parameters["prototypes"]).max() > 0.1
    # 6 images in batches of 4: one step an epoch, the rest dropped; 9: two.
    assert [line["step"] for line in alone.history] == [1, 2, 3]
    assert [line["step"] for line in again["b"].history] == [2, 4, 6]


@pytest.mark.slow
def test_it_learns_and_progress_is_told():
    told = []
    method = replace(METHOD, settings=replace(RECIPE, epochs=61, warm_up=5))
    (trained,) = method.learn([job()], progress=lambda *args: told.append(args[:2]))
    losses = [line["loss"] for line in trained.history]
    assert len(losses) == 61
    assert losses[-1] < 0.8 * losses[0]
    assert told[-1] == (61, 61)
    seen = job().shots.values
    odd = np.random.default_rng(5).standard_normal(seen.shape).astype(np.float32)
    judge = jax.jit(lambda p, x: method.distances(p, {}, Tokens(x))[0])
    assert judge(trained.parameters, odd).mean() > 1.5 * judge(trained.parameters, seen).mean()


def test_the_abstract_parameters_are_those_of_what_is_trained():
    (trained,) = METHOD.learn([job()])
    shapes, statistics = METHOD.abstract_params()
    assert statistics == trained.statistics == {}
    # Two streams are two networks.
    both, _ = replace(METHOD, modalities=2).abstract_params()
    assert both["prototypes"].shape == (2, 3, C)
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
        lambda x: x.shape, trained.parameters
    )


@pytest.mark.parametrize(
    "change", [{"blocks": 3}, {"epochs": 0}, {"mining": -1.0}, {"learning_rate": 0.0}]
)
def test_bad_values_are_refused(change, unchecked):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(InpFormerSettings(), **change)


def test_there_are_21_different_copies_beside_each_shot():
    assert len(authors_augmentations()) == len(set(authors_augmentations())) == 21
    assert InpFormerSettings(augment=False).augmentations() == ()
