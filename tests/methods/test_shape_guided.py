"""Shape-Guided: its network against PyTorch, its distances against scikit-learn and plain loops."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from sklearn.linear_model import orthogonal_mp

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.patches import cut_patches
from pirn_jax.methods import shape_guided_network as network
from pirn_jax.methods.descent import Items, descend
from pirn_jax.methods.shape_guided import POINTS, REACH, ShapeGuided, ShapeGuidedSettings
from pirn_jax.training import TrainingJob

from .problems import CHANNELS, GRID, tokens, valid

PATCHES = 6
SETTINGS = ShapeGuidedSettings(steps=2, patches=PATCHES, batch_size=4)
METHOD = ShapeGuided(SETTINGS, 2, GRID, CHANNELS, 0, (CHANNELS, CHANNELS))
encode, distance, pull = map(jax.jit, (network.encode, network.distance, network.pull))
cut = jax.jit(cut_patches, static_argnums=(1, 2, 3))


@jax.jit
def judge(parameters, statistics, values, counted):
    return METHOD.distances(parameters, statistics, Tokens(values, counted))[0]


def distances(found, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    return np.asarray(judge(found.parameters, found.statistics, values, counted))


def cloud(seed: int, side: int = 8) -> np.ndarray:
    """A relief of side x side points, in metres, some of which are not measured; row by row."""
    random = np.random.default_rng((5, seed))
    down, right = (np.mgrid[:side, :side] + random.random((2, side, side)) / 4) / 100
    points = np.stack([right, down, 0.4 + 0.2 * right**2 + random.random() * down**2], -1)
    points[random.random((side, side)) < 0.15] = 0
    return points.astype(np.float32)


CELL = (np.arange(64) // 16 * 4 + np.arange(64) % 8 // 2).astype(int)
"""The token of each of 8 x 8 points."""


def spread(tokens: np.ndarray) -> np.ndarray:
    """The points of 4 x 4 tokens of 2 x 2, row by row."""
    return tokens.reshape(4, 4, 2, 2, 3).swapaxes(1, 2).reshape(8, 8, 3)


def shots(seed: int, images: int) -> Tokens:
    """Tokens of a photograph, and in place of the second modality's the points of each."""
    values = tokens(seed, images)
    for image in range(images):
        cells = cloud(seed + 10 * image).reshape(4, 2, 4, 2, 3).swapaxes(1, 2)
        values[1, image] = cells.reshape(16, 12)
    return Tokens(values, valid(seed, images))


def job(seed: int = 0, images: int = 3, copies: int = 0) -> TrainingJob:
    return TrainingJob(f"job{seed}", shots(0, images), seed, copies)


@pytest.fixture(scope="module")
def trained():
    return METHOD.learn([job()])[0]


def test_patches_are_the_nearest_points_of_centres_far_apart():
    found = cut(jnp.asarray(cloud(0, side=20)), 5, POINTS, REACH)
    points = cloud(0, side=20).reshape(-1, 3)
    assert found.points.shape == (5, POINTS, 3)
    measured = np.flatnonzero(points.any(-1))
    centres = points[np.asarray(found.places)[:, 0]]
    np.testing.assert_array_equal(centres[0], points[measured[0]])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(5, 1)]
    assert apart.min() > 0.08  # of 20 cm a side
    away, which = cKDTree(points[measured]).query(centres, POINTS)
    own = points[np.asarray(found.places)]
    np.testing.assert_allclose(np.linalg.norm(own - centres[:, None], axis=-1), away, atol=1e-6)
    assert set(measured[which[1]]) == set(np.asarray(found.places)[1])
    np.testing.assert_allclose(found.points, own - own.mean(1, keepdims=True), atol=1e-6)


@pytest.mark.torch
def test_network_and_pull_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    ours = jax.tree.map(np.array, network.create(jax.random.key(0)))
    random = np.random.default_rng(0)
    patches = random.standard_normal((3, 20, 3)).astype(np.float32)
    places = (patches[:, :7] + 0.2 * random.standard_normal((3, 7, 3))).astype(np.float32)

    def linear(layer, x):
        return x @ torch.tensor(layer["kernel"]).double() + torch.tensor(layer["bias"]).double()

    x = torch.tensor(patches).double()
    for k in range(3):
        norm = torch.nn.BatchNorm1d(network.POINT[k + 1]).double()  # in training: the batch's
        x = linear(ours["encoder"][f"point{k}"], x)
        x = torch.relu(norm(x.flatten(0, 1))).reshape(x.shape)
    code = linear(ours["encoder"]["all1"], x.max(1).values)
    code = linear(ours["encoder"]["all2"], torch.relu(code))
    found, moments = encode(ours["encoder"], patches)
    np.testing.assert_allclose(found, code.detach().numpy(), atol=1e-4)
    alone, _ = encode(ours["encoder"], patches[:1], moments)
    np.testing.assert_allclose(alone, found[:1], atol=1e-5)

    field = ours["field"]
    q = torch.tensor(places).double().requires_grad_()
    both = [torch.relu(linear(field["code"], code))[:, None].expand(-1, 7, -1)]
    both.append(torch.relu(linear(field["place"], q)))
    h = torch.cat(both, -1)
    for k in range(network.LAYERS):
        h = torch.relu(linear(field[f"layer{k}"], h))
    away = q[..., 2] + linear(field["leave"], h)[..., 0]
    (gradient,) = torch.autograd.grad(away.sum(), q)
    expected = q - away[..., None] * torch.nn.functional.normalize(gradient, dim=-1)
    given = (field, found, jnp.asarray(places))
    np.testing.assert_allclose(distance(*given), away.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(pull(*given), expected.detach().numpy(), atol=1e-4)


def test_the_loss_is_the_mean_distance_to_the_nearest_points():
    """Of places as far from the surface as is said."""
    parameters = network.create(jax.random.key(1))
    points = cut(jnp.asarray(cloud(1, side=20)), 2, POINTS, REACH).points / 0.06
    loss, key = network.PullLoss(1e-3, 2), jax.random.key(2)
    value = jax.jit(loss.__call__)(parameters, {}, {"patches": points}, key)
    half, noise = jax.random.split(key)[::-1]
    spread = np.linalg.norm(points[:, POINTS // 10] - points[:, 0], axis=-1)
    halves = np.where(jax.random.uniform(half, (2, POINTS)) < 0.625, 0.5, 1.0)
    assert 0.55 < (halves == 0.5).mean() < 0.7
    steps = np.asarray(jax.random.normal(noise, points.shape))
    places = np.asarray(points) + steps * (halves * spread[:, None])[..., None]
    codes, _ = encode(parameters["encoder"], points)
    moved = pull(parameters["field"], codes, places.astype(np.float32))
    away = []
    for own, before, after in zip(np.asarray(points), places, np.asarray(moved), strict=True):
        _, which = cKDTree(own).query(before)
        away.append(np.linalg.norm(own[which] - after, axis=-1).mean())
    assert float(value) == pytest.approx(np.mean(away), rel=1e-4)


@pytest.mark.slow
def test_the_field_learns_a_sphere():
    """Of radius 1, from caps of it: distances on it and on both sides, where z alone is not one."""
    random = np.random.default_rng(0)
    polar = np.sort(np.sqrt(random.random((64, POINTS))) * 0.6)
    turn = 2 * np.pi * random.random((64, POINTS))
    sides = np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), -np.cos(polar)
    caps = np.stack(sides, -1).astype(np.float32)
    middle = -caps.mean(1, keepdims=True)
    caps += middle
    learned = descend(
        network.PullLoss(1e-3, 60),
        network.create(jax.random.key(0)),
        {},
        Items({"patches": jnp.asarray(caps)}, 64),
        replace(SETTINGS, steps=60),
        TrainingJob("sphere", job().shots, 0),
        lambda line: None,
    )
    codes, _ = encode(learned["encoder"], jnp.asarray(caps))
    for size in (0.85, 1.0, 1.15):
        places = middle + size * (caps[:, : POINTS // 2] - middle)
        found = distance(learned["field"], codes, jnp.asarray(places, jnp.float32))
        assert np.abs(found - (1 - size)).mean() < 0.02
        assert np.abs(places[..., 2] - (1 - size)).mean() > 0.03


def pursued(vector, bank, count):
    """By scikit-learn: the places of the nearest ones, and what 3 of them make of the vector."""
    near = np.argsort(((bank - vector) ** 2).sum(-1), kind="stable")[:count]
    atoms = bank[near].astype(float)
    sizes = orthogonal_mp(atoms.T, vector.astype(float), n_nonzero_coefs=min(3, len(atoms)))
    return near, sizes @ atoms


def expected_distances(found, new, counted):
    """By plain loops: of photograph and shape, and where there are points."""
    parameters, statistics = found.parameters, found.statistics
    memory, unit = parameters["memory"], float(statistics["unit"])
    codes = memory["codes"].reshape(-1, network.CODE)
    boxes = memory["boxes"].reshape(-1, 4)
    scan = np.arange(len(codes)) // PATCHES
    x = (new[0] - statistics["mean"][0]) * statistics["factor"][0]
    photograph, shape = np.zeros((2, *counted.shape))
    known = np.zeros(counted.shape, bool)
    for b in range(len(x)):
        points = spread(new[1, b])
        own = cut(jnp.asarray(points), PATCHES, POINTS, REACH)
        points = points.reshape(-1, 3)
        given = own.points / unit, statistics["moments"]
        asked, _ = encode(parameters["encoder"], *given)
        least = np.full(len(points), np.inf)
        near, cells = [], CELL[np.asarray(own.places)]
        for p in range(PATCHES):
            which, rebuilt = pursued(np.asarray(asked[p]), codes, 10)
            near.append(which)
            rebuilt = jnp.asarray(rebuilt, jnp.float32)[None]
            away = distance(parameters["field"], rebuilt, given[0][p : p + 1])[0]
            np.minimum.at(least, np.asarray(own.places[p]), np.abs(away))
        for n in range(16):
            here = least[(n == CELL) & np.isfinite(least) & points.any(-1)]
            known[b, n], shape[b, n] = len(here) > 0, here.mean() if len(here) else 0
            allowed = np.zeros((len(memory["tokens"]), 16), bool)
            for p in range(PATCHES):
                for m in near[p] if n in cells[p] else ():
                    top, bottom, left, right = boxes[m]
                    for t in range(16):
                        inside = top <= t // 4 <= bottom and left <= t % 4 <= right
                        allowed[scan[m], t] |= inside
            allowed &= memory["counted"] > 0
            if not allowed.any():
                allowed = memory["counted"] > 0
            bank = memory["tokens"][allowed]
            photograph[b, n] = np.linalg.norm(x[b, n] - pursued(x[b, n], bank, 5)[1])
    return photograph, shape, known


def test_few_shots_are_learned_from(trained):
    start = network.create(jax.random.key(0))
    found = {part: trained.parameters[part] for part in start}
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, found, start)
    assert all(jax.tree.leaves(moved))
    assert trained.history[-1]["step"] == SETTINGS.steps


def test_distances_are_those_to_what_the_memory_rebuilds(trained):
    new, counted = shots(3, 2)
    new[1, 0, 5] = 0  # nothing was measured there
    found = distances(trained, new, counted)
    photograph, shape, known = expected_distances(trained, new, counted)
    assert known.any()
    assert not known.all()
    weight, shift = trained.statistics["alignment"]
    photograph = np.maximum(weight * photograph + shift, 0)
    np.testing.assert_allclose(found.sum(0), np.maximum(photograph, shape), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found[0] > 0, photograph >= shape)
    assert not (found > 0).all(0).any()
    for place in range(2):  # each scan by itself
        one = slice(place, place + 1)
        alone = distances(trained, new[:, one], counted[one])
        np.testing.assert_allclose(alone[:, 0], found[:, place], rtol=1e-4, atol=1e-6)


def test_the_memory_holds_where_patches_lie(trained):
    memory = trained.parameters["memory"]
    own = cut(jnp.asarray(spread(job().shots.values[1, 2])), PATCHES, POINTS, REACH)
    cells = CELL[np.asarray(own.places)]
    rows, columns = cells // 4, cells % 4
    expected = [rows.min(1), rows.max(1), columns.min(1), columns.max(1)]
    np.testing.assert_array_equal(memory["boxes"][2], np.stack(expected, 1))
    np.testing.assert_array_equal(memory["counted"], job().shots.valid)


def test_photograph_and_shape_are_brought_to_one_scale_by_shots_without_themselves(trained):
    """Each shot judged by a memory of the others: where all of it is gone, by other parameters."""
    rows = []
    for place in range(3):
        others = np.arange(3) != place
        memory = {k: v[others] for k, v in trained.parameters["memory"].items()}
        found = trained._replace(parameters=trained.parameters | {"memory": memory})
        new, counted = job().shots
        one = slice(place, place + 1)
        photograph, shape, known = expected_distances(found, new[:, one], counted[one])
        rows.append(np.stack([photograph, shape])[:, known & counted[one]])
    every = np.concatenate(rows, 1)
    (weight, shift), spread = trained.statistics["alignment"], every.std(1)
    assert weight == pytest.approx(spread[1] / spread[0], rel=1e-3)
    assert shift == pytest.approx(every[1].mean() - weight * every[0].mean(), rel=1e-2)


@pytest.mark.slow
def test_a_single_shot_is_judged_without_the_very_patch_and_token():
    """And one of several without its copies."""
    (found,) = METHOD.learn([job(images=1)])
    weight, shift = found.statistics["alignment"]
    assert weight > 0
    assert np.isfinite(shift)
    barred = METHOD._barred(2, 6, 2)
    assert np.asarray(barred.codes).ravel().tolist() == [False, False, True, True, False, False]
    alone = METHOD._barred(0, 2, 2)
    assert alone.tokens.shape == (16, 2, 16)
    assert np.asarray(alone.tokens).sum() == 16


def test_a_scan_without_points_is_judged_by_its_photograph(trained):
    new, counted = shots(3, 1)
    new[1] = 0
    found = distances(trained, new, counted)
    assert np.isfinite(found).all()
    assert not found[1].any()
    assert found[0].any()


@pytest.mark.slow
def test_the_order_of_the_modalities_is_that_of_the_detector(trained):
    new, counted = shots(3, 1)
    other = replace(METHOD, rgb=1)
    learned = jax.tree.map(jnp.asarray, (trained.parameters, trained.statistics))
    found = other.distances(*learned, Tokens(new[::-1].copy(), counted))[0]
    np.testing.assert_allclose(found[::-1], distances(trained, new, counted), rtol=1e-4)


def test_what_is_learned_depends_on_the_seed_alone(trained):
    again, other = METHOD.learn([job(), job(1)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        (again.parameters, again.statistics),
        (trained.parameters, trained.statistics),
    )
    codes = [found.parameters["memory"]["codes"] for found in (again, other)]
    assert np.abs(codes[0] - codes[1]).max() > 0.01


def test_a_larger_picture_has_more_patches():
    assert METHOD.patches == PATCHES
    usual = replace(METHOD, grid=(16, 16), widths=(192, 147))
    assert usual.patches == PATCHES
    assert replace(usual, grid=(28, 28)).patches == 4 * PATCHES


def test_what_cannot_be_is_refused():
    nothing = Tokens(job().shots.values, np.zeros_like(job().shots.valid))
    with pytest.raises(BadInputError, match="no token of the shots"):
        METHOD.learn([TrainingJob("x", nothing, 0)])
    values = job().shots.values.copy()
    values[1] = 0
    with pytest.raises(BadInputError, match="no points of the part"):
        METHOD.learn([TrainingJob("x", Tokens(values, job().shots.valid), 0)])
    values = job(images=4).shots.values.copy()
    values[1, ::2] = 0  # of the shots themselves, and not of their copies
    with pytest.raises(BadInputError, match="no points of the part"):
        METHOD.learn([TrainingJob("x", Tokens(values, job(images=4).shots.valid), 0, 1)])
    with pytest.raises(ConfigError, match="needs photograph and points") as error:
        SETTINGS.for_detector(("rgb",), "auto")
    assert "method memory" in str(error.value)
    for change in ({"patches": 0}, {"features": "fpfh"}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(SETTINGS, **change)
