"""M3DM: its loss and network against PyTorch, its banks against scikit-learn."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods import m3dm_fusion as fusion
from pirn_jax.methods.coreset import choose
from pirn_jax.methods.m3dm import BANKS, M3dm, M3dmSettings, left_out
from pirn_jax.training import TrainingJob

from .problems import CHANNELS, GRID, distances, job, tokens, valid

WIDTHS = (CHANNELS, 7)
METHOD = M3dm(M3dmSettings(steps=3, share=0.4), 0, GRID, CHANNELS, WIDTHS)


@pytest.fixture(scope="module")
def trained():
    return METHOD.learn([job()])[0]


def torch_layer(layer):
    import torch

    kernel = np.array(layer["kernel"])
    found = torch.nn.Linear(*kernel.shape).double()
    with torch.no_grad():
        found.weight.copy_(torch.from_numpy(kernel.T))
        found.bias.copy_(torch.from_numpy(np.array(layer["bias"])))
    return found


@pytest.mark.torch
def test_loss_and_fused_tokens_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    parameters = fusion.create(0, WIDTHS)
    rgb, geometry = tokens(1, 1)[:, 0]
    geometry, counted = geometry[:, : WIDTHS[1]], valid(1, 1)[0]

    def network(name, x):
        own = parameters[name]
        x = torch.from_numpy(x).double()
        x = torch.nn.functional.layer_norm(x, x.shape[-1:])
        x = torch_layer(own["fc2"])(torch.nn.functional.gelu(torch_layer(own["fc1"])(x)))
        return x, torch_layer(own["head"])(x)

    (left, q), (right, k) = network("rgb", rgb), network("geometry", geometry)
    for name, given, expected in (("rgb", rgb, left), ("geometry", geometry, right)):
        found = fusion.fuse(parameters[name], jnp.asarray(given))
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)
    q, k = (torch.nn.functional.normalize(x[torch.from_numpy(counted)]) for x in (q, k))
    expected = 2 * torch.nn.functional.cross_entropy(q @ k.T, torch.arange(len(q)))
    found = fusion.contrast(parameters, *map(jnp.asarray, (rgb, geometry, counted)))
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)


def test_the_rate_rises_for_a_third_and_falls_to_nothing():
    found = fusion.rates(30)
    np.testing.assert_allclose(found[[0, 5, 10, 20]], [0, 0.0015, 0.003, 0.0015], rtol=1e-5)
    assert 0 < found[-1] < 0.0001


@pytest.mark.torch
def test_steps_are_those_of_adamw():
    """Two steps on one image, by PyTorch's optimiser with the gradients of our loss."""
    torch = pytest.importorskip("torch")
    rgb, geometry = tokens(2, 1)[0], tokens(2, 1)[1, ..., : WIDTHS[1]]
    counted = valid(2, 1)
    found, _ = fusion.train(0, rgb, geometry, counted, 1, 3)
    leaves, structure = jax.tree.flatten(fusion.create(0, WIDTHS))
    copies = [torch.tensor(np.array(leaf), requires_grad=True) for leaf in leaves]
    optimiser = torch.optim.AdamW(copies, lr=1.0, betas=(0.9, 0.95), weight_decay=0.01)
    gradient = jax.jit(jax.grad(fusion.contrast))
    for rate in fusion.rates(3):
        now = jax.tree.unflatten(structure, [jnp.asarray(x.detach().numpy()) for x in copies])
        given = gradient(now, rgb[0], geometry[0], counted[0])
        for copy, leaf in zip(copies, jax.tree.leaves(given), strict=True):
            copy.grad = torch.tensor(np.array(leaf))
        optimiser.param_groups[0]["lr"] = float(rate)
        optimiser.step()
    expected = jax.tree.unflatten(structure, [x.detach().numpy() for x in copies])
    for name in ("rgb", "geometry"):
        for part in ("fc1", "fc2", "norm"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
                found[name][part],
                expected[name][part],
            )


def test_training_draws_the_descriptions_of_a_patch_together():
    first = fusion.create(0, WIDTHS)
    rgb, geometry = tokens(2, 3)[0], tokens(2, 3)[0, ..., : WIDTHS[1]]
    parameters, losses = fusion.train(0, rgb, geometry, valid(2, 3), 3, 40)
    assert losses[-1] < losses[0] - 0.2
    assert set(parameters["rgb"]) == {"norm", "fc1", "fc2"}
    assert np.abs(parameters["rgb"]["fc1"]["kernel"] - first["rgb"]["fc1"]["kernel"]).max() > 0.01


def test_a_shot_is_looked_up_among_the_others():
    bank = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    shot = np.repeat([0, 1, 2], 10)
    found = left_out(bank, shot, 0.5)
    for one in range(3):
        others = bank[shot != one]
        kept = others[choose(others, 10)]
        expected, _ = NearestNeighbors(n_neighbors=1).fit(kept).kneighbors(bank[shot == one])
        np.testing.assert_allclose(found[shot == one], expected[:, 0], rtol=1e-5)
    alone = left_out(bank, np.zeros(30, int), 0.5)
    expected, _ = NearestNeighbors(n_neighbors=2).fit(bank).kneighbors(bank)
    np.testing.assert_allclose(alone, expected[:, 1], rtol=1e-5)


def test_a_shot_is_never_looked_up_among_its_own_copies():
    """Here each copy is its shot once more, and another job of the same learning has none."""
    shots = job().shots
    twice = Tokens(np.repeat(shots.values, 2, axis=1), np.repeat(shots.valid, 2, axis=0))
    method = replace(METHOD, settings=replace(METHOD.settings, share=1.0))
    _, found = method.learn([job(), TrainingJob("twice", twice, 0, copies=1)])
    assert (found.parameters["least"] > 0.01).all()


def test_distances_are_weighed_sums_over_the_three_banks(trained):
    shots = job().shots
    learned = shots.values[:, shots.valid]
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(METHOD, trained, new, counted)

    def described(x):
        rgb, geometry = x[0], x[1][..., : WIDTHS[1]]
        own = trained.parameters["fusion"]
        fused = [
            np.asarray(fusion.fuse(own[name], jnp.asarray(part)))
            for name, part in (("geometry", geometry), ("rgb", rgb))
        ]
        return rgb, geometry, np.concatenate(fused, -1)

    shot = np.broadcast_to(np.arange(3)[:, None], shots.valid.shape)[shots.valid]
    odd = []
    for bank, queries in zip(described(learned), described(new), strict=True):
        away = left_out(bank, shot, 0.4)
        kept = bank[choose(bank, int(np.ceil(0.4 * len(bank))))]
        flat = queries.reshape(-1, queries.shape[-1])
        near, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(kept).kneighbors(flat)
        scores = np.maximum(near[:, 0] - away.min(), 0) / away.std()
        odd.append(scores.reshape(queries.shape[:-1]))
    np.testing.assert_allclose(found[0], odd[0] + odd[2] / 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], odd[1] + odd[2] / 2, rtol=1e-3, atol=1e-4)
    for place in range(2):  # each image by itself
        one = slice(place, place + 1)
        alone = distances(METHOD, trained, new[:, one], counted[one])
        np.testing.assert_allclose(alone[:, 0], found[:, place], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_modalities_is_that_of_the_detector(trained):
    other = replace(METHOD, rgb=1)
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(other, trained, new[::-1], counted)
    expected = distances(METHOD, trained, new, counted)
    np.testing.assert_array_equal(found[::-1], expected)


def test_a_one_class_svm_finds_the_weights(trained):
    from sklearn.linear_model import SGDOneClassSVM

    method = replace(METHOD, settings=replace(METHOD.settings, decision="one_class_svm"))
    (found,) = method.learn([job()])
    for name in BANKS:
        np.testing.assert_array_equal(found.parameters[name], trained.parameters[name])
    away = np.random.default_rng(0).random((50, 3)) + 1
    deviations = np.array([2.0, 1.0, 4.0])
    scale = np.array([0.1, 1.0, 1.0]) / deviations
    svm = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=0).fit(away * scale)
    weights = method._weights(away, deviations, job())
    np.testing.assert_allclose(away @ weights, svm.score_samples(away * scale), rtol=1e-6)
    assert (weights > 0).all()


def test_what_is_learned_depends_on_the_seed_alone(trained):
    again, other, _ = METHOD.learn([job(), TrainingJob("y", job().shots, 1), job(1, images=4)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        again.parameters,
        trained.parameters,
    )
    kernels = [x.parameters["fusion"]["rgb"]["fc1"]["kernel"] for x in (trained, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_what_cannot_be_is_refused(unchecked):
    empty = job()
    nothing = Tokens(empty.shots.values, np.zeros_like(empty.shots.valid))
    with pytest.raises(BadInputError, match="no token of the shots"):
        METHOD.learn([TrainingJob("x", nothing, 0)])
    with pytest.raises(ConfigError, match="fuses photograph and geometry"):
        M3dmSettings().for_detector(("rgb",), "auto")
    for change in ({"share": 2.0}, {"steps": 0}, {"decision": "svm"}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(M3dmSettings(), **change)
