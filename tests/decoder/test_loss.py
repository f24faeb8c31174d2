"""Losses against PyTorch with a gradient hook; padding; the mean over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.decoder import Diagnostics, LossConfig, Reconstruction, reconstruction_loss
from pirn_jax.decoder.loss import stream_loss

RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(4, 30, 16)).astype(np.float32)
REBUILT = (TARGET + RNG.normal(size=TARGET.shape)).astype(np.float32)
EPSILON = float(np.finfo(np.float32).eps)


def rounding(exponent: float) -> float:
    """What sums of these channels in another order, raised to a power, may differ by."""
    return EPSILON * TARGET.shape[-1] * (1 + exponent)


FORMS = [
    ("flattened", 3.0),
    ("flattened", 1.0),
    ("per_token", 1.0),
    ("per_token", 3.0),
    ("mean", 3.0),
]


@partial(jax.jit, static_argnums=1)
def ours(rebuilt, config, target=TARGET, weight=None):
    """The loss and its gradient in what was rebuilt."""
    return jax.value_and_grad(
        lambda rebuilt: stream_loss(jnp.asarray(target), rebuilt, config, weight)
    )(rebuilt)


@pytest.mark.torch
@pytest.mark.parametrize(("form", "exponent"), FORMS)
def test_value_and_gradient_equal_pytorch(form, exponent):
    torch = pytest.importorskip("torch")
    from tests.decoder import oracle

    leaf = torch.tensor(REBUILT, requires_grad=True)
    target, rebuilt = torch.tensor(TARGET), leaf * 1.0
    if form == "flattened":
        expected = oracle.flattened_loss(target, rebuilt, exponent)
    else:
        expected = oracle.per_token_loss(target, rebuilt, exponent if form == "per_token" else 0.0)
    expected.backward()
    value, gradient = ours(jnp.asarray(REBUILT), LossConfig(form, exponent))
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradient, leaf.grad, atol=1e-4 * float(leaf.grad.abs().max()))


def test_no_gradient_reaches_the_target():
    gradient = jax.grad(lambda target: stream_loss(target, jnp.asarray(REBUILT), LossConfig()))(
        jnp.asarray(TARGET)
    )
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize(("form", "exponent"), FORMS)
def test_padding_changes_nothing(form, exponent):
    config = LossConfig(form, exponent)
    weight = np.ones((4, 30), np.float32)
    weight[3] = 0  # a padded image
    weight[:, 20:] = 0  # padded tokens
    expected, expected_gradient = ours(jnp.asarray(REBUILT[:3, :20]), config, TARGET[:3, :20])
    value, gradient = ours(jnp.asarray(REBUILT), config, weight=jnp.asarray(weight))
    near = rounding(exponent)
    np.testing.assert_allclose(value, expected, rtol=near)
    largest = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient[:3, :20], expected_gradient, atol=near * largest)
    np.testing.assert_array_equal(gradient[weight == 0], 0.0)


@pytest.mark.parametrize(("form", "exponent"), FORMS)
@pytest.mark.parametrize("mapped", ["vmap", "pmap"])
def test_uneven_split_over_devices_is_the_whole_batch(form, exponent, mapped):
    config = LossConfig(form, exponent)
    whole, whole_gradient = ours(jnp.asarray(REBUILT[:3]), config, TARGET[:3])
    weight = np.ones((2, 2, 30), np.float32)
    weight[1, 1] = 0  # the second device has one image less

    def step(target, rebuilt, weight):
        loss = partial(stream_loss, config=config, axis_name="devices")
        value, gradient = jax.value_and_grad(lambda r: loss(target, r, weight=weight))(rebuilt)
        return jax.lax.pmean(value, "devices"), gradient / 2  # the mean over the two devices

    split = [jnp.asarray(x).reshape(2, 2, 30, -1) for x in (TARGET, REBUILT)]
    over = {"vmap": lambda *a, **k: jax.jit(jax.vmap(*a, **k)), "pmap": jax.pmap}[mapped]
    value, gradient = over(step, axis_name="devices")(*split, jnp.asarray(weight))
    near = rounding(exponent)
    np.testing.assert_allclose(value, whole, rtol=near)
    parts = np.asarray(gradient).reshape(4, 30, -1)[:3]
    np.testing.assert_allclose(parts, whole_gradient, atol=near * np.abs(whole_gradient).max())


@pytest.mark.parametrize("form", ["flattened", "per_token", "mean"])
@pytest.mark.parametrize("rebuilt", [TARGET, np.zeros_like(TARGET)], ids=["perfect", "zero"])
def test_extremes_stay_finite(form, rebuilt):
    value, gradient = ours(jnp.asarray(rebuilt), LossConfig(form, 2.5))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(value, 0.0 if rebuilt is TARGET else 1.0, atol=1e-6)


def test_mining_weighs_the_worst_places_most():
    rebuilt = TARGET.copy()
    rebuilt[:, :3] = -TARGET[:, :3] + 0.5
    rebuilt[:, 3:] += 0.1
    gradient = {
        e: np.asarray(ours(jnp.asarray(rebuilt), LossConfig("flattened", e))[1]) for e in (0.0, 3.0)
    }
    share = {e: np.abs(g[:, :3]).sum() / np.abs(g).sum() for e, g in gradient.items()}
    assert share[3.0] > share[0.0] + 0.3


def test_the_losses_of_the_modalities_are_summed():
    target, rebuilt = np.stack([TARGET, 2 * TARGET[::-1]]), np.stack([REBUILT, REBUILT])
    nothing = Diagnostics(jnp.zeros((1, 2, 4, 1)), jnp.zeros((1, 2, 4)))
    both = Reconstruction(
        jnp.asarray(rebuilt), jnp.asarray(target), jnp.zeros((2, 4, 1, 16)), nothing
    )
    expected = sum(((a - b) ** 2).mean() for a, b in zip(target, rebuilt, strict=True))
    found = reconstruction_loss(both, LossConfig("mean"), distance="squared")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
