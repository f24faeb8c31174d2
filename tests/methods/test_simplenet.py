"""SimpleNet's loss and judgement against their definitions in numpy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.methods import simplenet
from pirn_jax.methods.simplenet import (
    Loss,
    SimpleNet,
    SimpleNetSettings,
    create,
    judge,
    measure,
    real_and_noisy,
)

from .problems import CHANNELS, GRID, MODALITIES, distances, job

C, HIDDEN, NOISE = 6, 5, 0.7
KEY = jax.random.key(3)


def stream(seed=0):
    random = np.random.default_rng(seed)
    parameters = jax.tree.map(np.asarray, create(C, HIDDEN, jax.random.key(seed)))
    parameters["norm"] = {
        name: value + 0.3 * random.standard_normal(HIDDEN).astype(np.float32)
        for name, value in parameters["norm"].items()
    }
    parameters["tail"] = 3 * np.abs(parameters["tail"])  # some beyond the margin, some not
    return parameters, random.standard_normal((40, C)).astype(np.float32)


def by_hand(parameters, x, noise):
    """D of real tokens and of noisy ones, normalised together."""
    adapted = x @ parameters["adaptor"]["kernel"] + parameters["adaptor"]["bias"]
    both = np.concatenate([adapted, adapted + noise])
    hidden = both @ parameters["inner"]["kernel"] + parameters["inner"]["bias"]
    mean, variance = hidden.mean(0), hidden.var(0)
    hidden = (hidden - mean) / np.sqrt(variance + 1e-5)
    hidden = hidden * parameters["norm"]["scale"] + parameters["norm"]["bias"]
    found = np.where(hidden > 0, hidden, 0.2 * hidden) @ parameters["tail"]
    return found[: len(x)], found[len(x) :], mean, variance


def noise_of(parameters, x):
    both = np.asarray(real_and_noisy(parameters, jnp.asarray(x), NOISE, KEY))
    return both[len(x) :] - both[: len(x)]


def test_the_loss_is_truncated_at_the_margin():
    parameters, x = stream()
    noise = noise_of(parameters, x)
    assert noise.std() == pytest.approx(NOISE, rel=0.1)
    real, noisy, _, _ = by_hand(parameters, x, noise)
    assert (real > 0.5).any()
    assert (real < 0.5).any()
    expected = np.mean([max(0.0, 0.5 - d) for d in real]) + np.mean(
        [max(0.0, 0.5 + d) for d in noisy]
    )
    found = jax.jit(Loss(NOISE, 1e-3).stream)(parameters, x, KEY)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_judging_uses_the_moments_of_real_and_noisy_shots():
    parameters, x = stream()
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], parameters)
    known = measure(NOISE, stacked, jnp.asarray(x)[None])
    both = np.asarray(real_and_noisy(parameters, jnp.asarray(x), NOISE, jax.random.key(0)))
    real, _, mean, variance = by_hand(parameters, x, both[len(x) :] - both[: len(x)])
    np.testing.assert_allclose(known["hidden_mean"][0], mean, atol=1e-5)
    np.testing.assert_allclose(known["hidden_variance"][0], variance, rtol=1e-4)
    own = jax.tree.map(lambda leaf: leaf[0], known)
    np.testing.assert_allclose(jax.jit(judge)(parameters, own, x), real, rtol=1e-4, atol=1e-5)
    assert float(known["ceiling"][0]) == pytest.approx(real.max(), rel=1e-4)


def test_the_ceiling_is_that_of_all_tokens_of_the_shots(monkeypatch):
    monkeypatch.setattr(simplenet, "MEASURED", 8)
    monkeypatch.setattr(simplenet, "descend", lambda loss, parameters, *rest: parameters)
    method = SimpleNet(SimpleNetSettings(hidden=HIDDEN), MODALITIES, GRID, CHANNELS)
    shots = job()
    assert shots.shots.valid.sum() > 3 * 8
    (trained,) = method.learn([shots])
    higher = dict(trained.statistics, ceiling=trained.statistics["ceiling"] + 1)
    found = distances(method, trained._replace(statistics=higher), *shots.shots)
    np.testing.assert_allclose(found[:, shots.shots.valid].min(-1), 1.0, rtol=1e-5)


@pytest.mark.torch
def test_the_optimizers_are_pytorchs():
    """AdamW for the adaptor, Adam with its L2 for the rest, three steps of given gradients."""
    torch = pytest.importorskip("torch")
    parameters = {name: stream()[0][name] for name in ("adaptor", "tail")}
    optimizer = Loss(NOISE, 2e-2).optimizer()
    state, ours = optimizer.init(parameters), parameters
    theirs = {
        "adaptor": [torch.tensor(leaf) for leaf in jax.tree.leaves(parameters["adaptor"])],
        "tail": [torch.tensor(parameters["tail"])],
    }
    torchs = [
        torch.optim.AdamW(theirs["adaptor"], 1e-2),
        torch.optim.Adam(theirs["tail"], 2e-2, weight_decay=1e-5),
    ]
    for step in range(3):
        random = np.random.default_rng(step)
        gradient = jax.tree.map(lambda x, r=random: r.standard_normal(x.shape).astype("f4"), ours)
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(gradient, state, ours)
        ours = jax.tree.map(lambda x, y: x + y, ours, change)
        for name, leaves in theirs.items():
            for leaf, own in zip(leaves, jax.tree.leaves(gradient[name]), strict=True):
                leaf.grad = torch.tensor(own)
        for one in torchs:
            one.step()
    expected = [leaf.numpy() for leaf in theirs["adaptor"] + theirs["tail"]]
    for one, other in zip(jax.tree.leaves(ours), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_margin_and_slope_are_those_published():
    assert (simplenet.MARGIN, simplenet.SLOPE) == (0.5, 0.2)
