"""The mixture against scipy's densities, scikit-learn's probabilistic PCA, and planted clusters."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods.gaussians import Gaussians, fit_mixture, log_joint, moves_of, widened
from pirn_jax.methods.mixture import Mixture, MixtureSettings
from pirn_jax.training import TrainingJob
from pirn_jax.transport import balanced_plan

from .problems import CHANNELS, GRID, MODALITIES, distances, job, prepared, tokens, valid

SMALL = MixtureSettings(prototypes=3, rank=4, prior=5.0)
FIT = {"prototypes": 3, "rank": 4, "prior": 5.0, "rounds": 5, "seed": 0}


def clusters(count=3, each=200, channels=12, seed=0):
    """Clusters on lines far from one another, and which each point is of."""
    random = np.random.default_rng(seed)
    middle = 20 * random.standard_normal((count, 1, channels))
    line = random.standard_normal((count, 1, channels))
    along = 3 * random.standard_normal((count, each, 1))
    points = middle + along * line + 0.3 * random.standard_normal((count, each, channels))
    return points.reshape(-1, channels).astype(np.float32), np.repeat(np.arange(count), each)


def dense(known: Gaussians, k: int) -> np.ndarray:
    """The covariance of one Gaussian."""
    basis = np.asarray(known.basis[k], np.float64)
    beyond = np.eye(len(basis)) - basis @ basis.T
    return basis @ np.diag(known.variance[k]) @ basis.T + known.rest[k] * beyond


def density(known: Gaussians, points: np.ndarray) -> np.ndarray:
    """log π_k + log N, by scipy, without the constant."""
    constant = 0.5 * points.shape[-1] * np.log(2 * np.pi)
    columns = [
        multivariate_normal(known.mean[k], dense(known, k)).logpdf(points.astype(np.float64))
        for k in range(len(known.rest))
    ]
    return np.stack(columns, -1) + constant + np.asarray(known.log_weight, np.float64)


def test_the_density_is_that_of_gaussians():
    points, _ = clusters()
    known = fit_mixture(points, **FIT)
    expected = density(known, points)
    found = np.asarray(log_joint(known, points))
    near = expected > expected.max(-1, keepdims=True) - 50
    np.testing.assert_allclose(found[near], expected[near], atol=0.02)
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_a_token_near_one_of_many_long_prototypes_has_its_density_to_five_digits():
    random = np.random.default_rng(4)
    directions = np.linalg.qr(random.standard_normal((6, 64, 4)))[0]
    known = Gaussians(
        mean=2.0 * random.standard_normal((6, 64)).astype(np.float32),
        basis=directions.astype(np.float32),
        variance=np.full((6, 4), 0.5, np.float32),
        rest=np.full(6, 0.01, np.float32),
        log_weight=np.log(np.full(6, 1 / 6, np.float32)),
    )
    near = known.mean[random.integers(6, size=40)] + 0.1 * random.standard_normal((40, 64))
    points = near.astype(np.float32)
    found = np.asarray(jax.jit(log_joint)(known, points)).max(-1)
    np.testing.assert_allclose(found, density(known, points).max(-1), rtol=1e-5, atol=1e-3)


def test_gaussians_of_the_same_means_may_give_them_once():
    points, _ = clusters()
    known = fit_mixture(points, **FIT)
    both = widened(known, points[:40] - points[0])
    once = both._replace(mean=known.mean)
    found, expected = (np.asarray(log_joint(each, points)) for each in (once, both))
    near = expected > expected.max(-1, keepdims=True) - 50
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-5, atol=1e-3)


def test_planted_clusters_are_found():
    points, owner = clusters()
    known = fit_mixture(points, **FIT)
    found = np.asarray(log_joint(known, points)).argmax(-1)
    for k in range(3):
        assert len(np.unique(found[owner == k])) == 1
    assert len(np.unique(found)) == 3
    np.testing.assert_allclose(np.exp(known.log_weight), 1 / 3, atol=0.01)
    identity = np.swapaxes(known.basis, 1, 2) @ known.basis
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-5)


def test_one_prototype_is_probabilistic_pca():
    random = np.random.default_rng(1)
    spread = np.linspace(4, 0.2, 12)
    points = (spread * random.standard_normal((4000, 12))).astype(np.float32)
    known = fit_mixture(points, **FIT | {"prototypes": 1, "prior": 0.0})
    found = np.asarray(log_joint(known, points))[:, 0]
    expected = PCA(4).fit(points).score_samples(points) + 6 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_distances_are_negative_log_likelihoods_above_the_shots_least():
    method = Mixture(SMALL, MODALITIES, GRID, CHANNELS)
    shots = job()
    (trained,) = method.learn([shots])
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(method, trained, new, counted)
    for place in range(MODALITIES):
        seen = np.asarray(shots.shots.valid)
        own, statistics = prepared(shots.shots.values[place], seen, SMALL)
        queries, _ = prepared(new[place], counted, SMALL, statistics)
        known = Gaussians(*(trained.parameters[n][place] for n in Gaussians._fields))
        floor = (-logsumexp(density(known, own[seen]), -1)).min()
        unlikely = -logsumexp(density(known, queries.reshape(-1, CHANNELS)), -1)
        expected = np.maximum(unlikely - floor, 0) / CHANNELS
        np.testing.assert_allclose(found[place].ravel(), expected, rtol=2e-3, atol=2e-3)


def test_shares_sum_to_one_and_balance_gives_every_prototype_its_own():
    shots = job()
    for balanced in (False, True):
        settings = replace(SMALL, balanced=balanced)
        method = Mixture(settings, MODALITIES, GRID, CHANNELS)
        (trained,) = method.learn([shots])
        new = Tokens(tokens(9, 2), valid(9, 2))
        judge = jax.jit(lambda *given: method.distances(*given)[1])  # noqa: B023
        usage = judge(trained.parameters, trained.statistics, new)
        np.testing.assert_allclose(np.asarray(usage).sum(-1), 1, rtol=1e-4)
        if balanced:
            weight = np.exp(trained.parameters["log_weight"])
            expected = np.broadcast_to(weight[:, None] / weight.sum(-1)[:, None, None], usage.shape)
            np.testing.assert_allclose(usage, expected, atol=0.05)


def test_balanced_distances_count_the_weights_as_the_floor_does():
    """Of more prototypes than there are tokens some stand for nothing."""
    settings = replace(SMALL, prototypes=40, balanced=True)
    method = Mixture(settings, MODALITIES, GRID, CHANNELS)
    shots = job()
    assert shots.shots.valid.sum() < 40
    (trained,) = method.learn([shots])
    new, everywhere = tokens(9, 2), np.ones((2, GRID[0] * GRID[1]), bool)
    found = distances(method, trained, new, everywhere)
    plain = replace(settings, balanced=False)
    least = distances(replace(method, settings=plain), trained, new, everywhere)
    assert (found >= least - 1e-4).all()  # Jensen: no plan is likelier than the posterior
    for place in range(MODALITIES):
        seen = np.asarray(shots.shots.valid)
        _, statistics = prepared(shots.shots.values[place], seen, settings)
        queries, _ = prepared(new[place], everywhere, settings, statistics)
        known = Gaussians(*(trained.parameters[n][place] for n in Gaussians._fields))
        real = known.log_weight > -1e29
        known = Gaussians(*(part[real] for part in known))
        joint = density(known, queries.reshape(-1, CHANNELS)).reshape(*queries.shape[:2], -1)
        weight = known.log_weight.astype(np.float64)
        plan = balanced_plan(
            (weight - joint).astype(np.float32),
            epsilon=1.0,
            solver="scan",
            column_mass=np.exp(weight).astype(np.float32),
        ).matrix
        unlikely = -(np.asarray(plan) * joint).sum(-1)
        expected = np.maximum(unlikely - trained.parameters["floor"][place], 0) / CHANNELS
        np.testing.assert_allclose(found[place], expected, rtol=5e-3, atol=5e-3)


def test_more_prototypes_than_tokens_stand_for_nothing():
    points, _ = clusters(each=2)
    known = fit_mixture(points, **FIT | {"prototypes": 9})
    assert known.mean.shape == (9, 12)
    joint = np.asarray(log_joint(known, points))
    assert (joint[:, 6:] < -1e29).all()
    assert np.isfinite(joint).all()


def test_the_seed_decides_and_nothing_else():
    method = Mixture(SMALL, MODALITIES, GRID, CHANNELS)
    first, second = method.learn([job(), job()])
    for name, value in first.parameters.items():
        np.testing.assert_array_equal(value, second.parameters[name])


def test_shapes_are_known_before_and_how_it_learned_is_no_part_of_how_it_judges():
    method = Mixture(SMALL, MODALITIES, GRID, CHANNELS)
    (trained,) = method.learn([job()])
    parameters, statistics = method.abstract_params()
    for abstract, known in ((parameters, trained.parameters), (statistics, trained.statistics)):
        assert {n: v.shape for n, v in abstract.items()} == {n: v.shape for n, v in known.items()}
        assert all(np.asarray(v).dtype == np.float32 for v in known.values())
    assert method == replace(method, settings=replace(SMALL, rotations=8, prior=1.0))
    assert method != replace(method, settings=replace(SMALL, rank=3))


def spoilt_job(shots=3, copies=1, spoiled=2, shift=3.0):
    """Shots, good copies, and copies whose first tokens were moved along the first channels."""
    each = 1 + copies + spoiled
    values, counted = tokens(0, shots * each), valid(0, shots)
    values = values.reshape(MODALITIES, shots, each, -1, CHANNELS)
    for place in range(1 + copies, each):
        values[:, :, place] = values[:, :, 0]
        values[:, :, place, :4, :2] += shift * (1 if place % 2 else -1)
    every = Tokens(
        values.reshape(MODALITIES, shots * each, -1, CHANNELS), counted.repeat(each, axis=0)
    )
    return TrainingJob("spoilt", every, 0, copies + spoiled, spoiled)


def test_pseudo_defects_widen_every_gaussian_by_how_they_moved_tokens():
    points, _ = clusters()
    known = fit_mixture(points, **FIT)
    moves = np.random.default_rng(2).standard_normal((40, 12)).astype(np.float32)
    moves[:, 3:] *= 0.01
    both = widened(known, 4 * moves)
    for name, part in both._asdict().items():
        np.testing.assert_array_equal(part[:3], getattr(known, name), err_msg=name)
    second = 16 * moves.T @ moves / len(moves)
    for k in range(3):
        expected = dense(known, k) + second
        kept, directions = np.linalg.eigh(expected)
        np.testing.assert_allclose(both.variance[3 + k], kept[-4:], rtol=1e-3)
        np.testing.assert_allclose(both.rest[3 + k], kept[:-4].mean(), rtol=1e-2)
        overlap = directions[:, -4:].T @ both.basis[3 + k]
        np.testing.assert_allclose(np.abs(np.diag(overlap)), 1, atol=5e-3)
    np.testing.assert_array_equal(both.mean[3:], known.mean)
    np.testing.assert_array_equal(both.log_weight[3:], known.log_weight)


def test_moves_are_of_tokens_that_count_and_that_moved():
    move = 0.1 * np.ones((2, 5, 3), np.float32)
    move[0, 1], move[0, 2], move[1, 4] = 1.0, 0.8, 2.0
    counted = np.ones((2, 5), bool)
    np.testing.assert_allclose(moves_of(move, counted), [[1.0] * 3, [0.8] * 3, [2.0] * 3])
    counted[0, 1] = False
    np.testing.assert_allclose(moves_of(move, counted), [[0.8] * 3, [2.0] * 3])
    assert not len(moves_of(np.zeros((2, 5, 3), np.float32), counted))


def test_with_pseudo_defects_distances_are_ratios_of_likelihoods():
    settings = replace(SMALL, pseudo_defects="on")
    method, shots = Mixture(settings, MODALITIES, GRID, CHANNELS), spoilt_job()
    (trained,) = method.learn([shots])
    shapes, _ = method.abstract_params()
    assert {n: v.shape for n, v in shapes.items()} == {
        n: v.shape for n, v in trained.parameters.items()
    }
    # The prototypes are those that would have been found without the spoiled copies.
    place = np.arange(12).reshape(3, 4)[:, :2].reshape(-1)
    good = Tokens(shots.shots.values[:, place], shots.shots.valid[place])
    plain = Mixture(SMALL, MODALITIES, GRID, CHANNELS)
    (expected,) = plain.learn([TrainingJob("good", good, 0, 1)])
    for name in Gaussians._fields:
        np.testing.assert_array_equal(trained.parameters[name][:, :3], expected.parameters[name])
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(method, trained, new, counted)
    for stream in range(MODALITIES):
        own, statistics = prepared(good.values[stream], good.valid, SMALL)
        queries, _ = prepared(new[stream], counted, SMALL, statistics)
        known, wide = (
            Gaussians(*(trained.parameters[n][stream][half] for n in Gaussians._fields))
            for half in (slice(None, 3), slice(3, None))
        )

        def ratio(points, known=known, wide=wide):
            return logsumexp(density(wide, points), -1) - logsumexp(density(known, points), -1)

        floor = ratio(own[good.valid]).min()
        expected = np.maximum(ratio(queries.reshape(-1, CHANNELS)) - floor, 0) / CHANNELS
        np.testing.assert_allclose(found[stream].ravel(), expected, rtol=2e-3, atol=2e-3)


def test_a_token_moved_as_defects_move_them_is_odder_than_one_moved_as_far_otherwise():
    settings = replace(SMALL, pseudo_defects="on")
    method, shots = Mixture(settings, MODALITIES, GRID, CHANNELS), spoilt_job()
    (trained,) = method.learn([shots])
    start = shots.shots.values[:, :1]
    seen, other = start.copy(), start.copy()
    seen[..., :2] += 2.0
    other[..., 2:4] += 2.0
    counted = np.ones((1, GRID[0] * GRID[1]), bool)
    # Each image is taken from its own mean: half the tokens stay where they are.
    half = np.arange(counted.size) % 2 == 0
    seen[:, :, half], other[:, :, half] = start[:, :, half], start[:, :, half]
    odd = [distances(method, trained, one, counted)[:, :, ~half] for one in (seen, other)]
    assert np.median(odd[0]) > np.median(odd[1])


def test_tokens_that_are_no_whole_shots_are_refused():
    method = Mixture(replace(SMALL, pseudo_defects="on"), MODALITIES, GRID, CHANNELS)
    bare = Tokens(tokens(0, 3), valid(0, 3))
    with pytest.raises(BadInputError, match="3 pictures are not whole shots of 4 pictures"):
        method.learn([TrainingJob("bare", bare, 0, 3, 2)])


def test_balanced_shares_and_pseudo_defects_go_together():
    settings = replace(SMALL, pseudo_defects="on", balanced=True)
    method = Mixture(settings, MODALITIES, GRID, CHANNELS)
    (trained,) = method.learn([spoilt_job()])
    new, counted = tokens(9, 2), np.ones((2, GRID[0] * GRID[1]), bool)
    found = distances(method, trained, new, counted)
    plain = replace(method, settings=replace(settings, balanced=False))
    assert (found >= distances(plain, trained, new, counted) - 1e-4).all()  # Jensen
    assert (found > 0).any()


def test_pseudo_defects_that_moved_nothing_leave_every_direction_open():
    settings = replace(SMALL, pseudo_defects="on")
    method = Mixture(settings, MODALITIES, GRID, CHANNELS)
    (trained,) = method.learn([spoilt_job(shift=0.0)])
    found = distances(method, trained, tokens(9, 2), valid(9, 2))
    assert np.isfinite(found).all()
    assert found.std() > 0


def test_pseudo_defects_are_for_parts_that_are_told_from_what_is_around_them():
    settings = MixtureSettings()
    assert settings.for_parts(False, True)["pseudo_defects"] == "on"
    assert settings.for_parts(False, False)["pseudo_defects"] == "off"
    everywhere = replace(settings, foreground="all")
    assert everywhere.for_parts(False, True)["pseudo_defects"] == "off"
    for asked in ("on", "off"):
        assert "pseudo_defects" not in replace(settings, pseudo_defects=asked).for_parts(
            False, True
        )
    kinds = [one.kind for one in replace(settings, pseudo_defects="on").augmentations()]
    assert kinds == ["photometric"] * 4 + ["jitter"] * 4 + ["spoiled"] * 4
    assert all(one.kind != "spoiled" for one in settings.augmentations())
    undecided, on = (
        Mixture(replace(SMALL, pseudo_defects=asked), MODALITIES, GRID, CHANNELS)
        for asked in ("auto", "on")
    )
    assert undecided == Mixture(replace(SMALL, pseudo_defects="off"), MODALITIES, GRID, CHANNELS)
    assert undecided != on


def test_nothing_to_learn_from_and_impossible_settings_are_refused():
    empty = Tokens(tokens(0, 1), np.zeros((1, GRID[0] * GRID[1]), bool))
    with pytest.raises(BadInputError, match="shows the part"):
        Mixture(SMALL, MODALITIES, GRID, CHANNELS).learn([TrainingJob("empty", empty, 0)])
    for change in ({"prototypes": 0}, {"rank": 0}, {"prior": -1.0}, {"rounds": 0}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            replace(SMALL, **change)
