"""What training computes: against a plain loop, alone and stacked, and what it refuses."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pirn_jax.decoder import (
    Tokens,
    abstract_params,
    create_decoder,
    merge,
    reconstruction_loss,
    select_scans,
    split,
)
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.training import TrainingJob, jobs, train
from pirn_jax.training.batches import epoch_order, learning_rate, make_batches, stretches
from pirn_jax.training.step import corrupted, create_states, run_steps
from tests.training.problems import CHANNELS, SCANS, TOKENS, job, largest_difference, recipe


def plain_loop(job, recipe):
    """The same training without stacking, padding or scan, Adam written from Kingma and Ba 2015."""
    valid = None if job.shots.valid.all() else jnp.asarray(job.shots.valid)
    tokens = Tokens(jnp.asarray(job.shots.values), valid)
    graph, _, _ = abstract_params(recipe.decoder, CHANNELS)

    @jax.jit
    def create(key):
        return split(create_decoder(recipe.decoder, tokens, key))[1:]

    parameters, statistics = create(jax.random.key(job.seed))

    @jax.jit
    def gradient(parameters, tokens, seeds):
        def loss(parameters):
            rebuilt = merge(graph, parameters, statistics)(
                tokens, lambda target: corrupted(target, seeds, recipe)
            )
            return reconstruction_loss(
                rebuilt, recipe.loss, tokens.valid, distance=recipe.decoder.distance
            )

        return jax.value_and_grad(loss)(parameters)

    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, parameters))
    first, second = [np.zeros_like(x) for x in leaves], [np.zeros_like(x) for x in leaves]
    losses, t, scans = [], 0, len(job.shots.valid)
    steps = recipe.epochs * len(epoch_order(0, 0, scans, recipe.batch_size))
    for epoch in range(recipe.epochs):
        random = np.random.default_rng((job.seed, epoch, 1))
        seeds = random.integers(2**32, size=scans, dtype=np.uint32)
        for part in epoch_order(job.seed, epoch, scans, recipe.batch_size):
            some = select_scans(tokens, part)
            loss, slopes = gradient(jax.tree.unflatten(tree, leaves), some, seeds[part])
            rate = learning_rate(recipe, t, steps)
            losses.append(float(loss))
            t += 1
            for i, slope in enumerate(jax.tree.leaves(slopes)):
                first[i] = 0.9 * first[i] + 0.1 * np.asarray(slope)
                second[i] = 0.999 * second[i] + 0.001 * np.asarray(slope) ** 2
                change = first[i] / (1 - 0.9**t) / (np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
                leaves[i] = (leaves[i] - rate * change).astype(np.float32)
    return jax.tree.unflatten(tree, leaves), losses


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_training_equals_a_plain_loop(masked):
    one, settings = job(3, masked=masked), recipe(epochs=3)
    expected, losses = plain_loop(one, settings)
    (found,) = train([one], settings, parallel="none")
    epochs = np.reshape(losses, (3, 2)).mean(1)
    np.testing.assert_allclose([line["loss"] for line in found.history], epochs, rtol=2e-5)
    # Adam makes steps of the learning rate whatever the gradient: a thousandth of one step.
    assert largest_difference(found.parameters, expected) < 6e-5
    assert epochs[-1] < epochs[0]


def test_every_epoch_takes_every_scan_once_in_even_steps():
    for scans in range(1, 14):
        parts = epoch_order(0, 1, scans, 4)
        assert sorted(np.concatenate(parts)) == list(range(scans))
        sizes = {len(part) for part in parts}
        assert max(sizes) <= 4
        assert max(sizes) - min(sizes) <= 1
    orders = [tuple(np.concatenate(epoch_order(s, e, 10, 4))) for s in (0, 1) for e in range(20)]
    assert len(set(orders)) == 40


def test_stretches_cover_the_epochs_in_equal_lengths():
    for epochs in (1, 7, 8, 60, 61, 100):
        found = stretches(epochs)
        assert [e for start, stop in found for e in range(start, stop)] == list(range(epochs))
        assert len({stop - start for start, stop in found}) == 1
        assert len(found) >= min(10, epochs)


def test_same_seed_twice_is_identical_and_another_seed_is_not():
    settings = recipe(epochs=2)
    results = [
        train([job(1)._replace(seed=seed)], settings, parallel="none")[0] for seed in (5, 5, 6)
    ]
    assert largest_difference(results[0].parameters, results[1].parameters) == 0
    assert results[0].history == results[1].history
    assert largest_difference(results[0].parameters, results[2].parameters) > 1e-3


@pytest.mark.slow
def test_jobs_of_several_shapes_and_their_progress():
    jobs = [job(0), job(1, scans=3), job(2)]
    seen = []
    results = train(
        jobs, recipe(epochs=2), parallel="none", progress=lambda *call: seen.append(call)
    )
    assert [r.name for r in results] == ["job0", "job1", "job2"]
    assert [(done, total) for done, total, _ in seen] == [(2, 6), (4, 6), (5, 6), (6, 6)]
    assert sorted(seen[0][2]) == ["job0", "job2"]
    assert seen[-1][2]["job1"] == results[1].history[-1]
    assert results[1].history[-1]["step"] == 2
    assert results[0].history[-1]["step"] == 4


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_trained_in_turns(monkeypatch):
    """Three jobs where two fit: stacks of two, the last filled up; each as it is alone."""
    all_jobs, settings = [job(0), job(1), job(2)], recipe(epochs=2)
    (alone,) = train([all_jobs[2]], settings, parallel="none")

    def turns(most):
        monkeypatch.setattr(jobs, "STACK_BYTES", most)
        seen = []
        results = train(
            all_jobs,
            settings,
            parallel="none",
            progress=lambda done, total, last: seen.append((done, total, sorted(last))),
        )
        assert [result.name for result in results] == ["job0", "job1", "job2"]
        # Principal directions of variances that lie close turn easily.
        assert largest_difference(results[2].parameters, alone.parameters) < 5e-5
        return seen

    both, last = ["job0", "job1"], ["job2"]
    assert turns(2 * jobs.job_bytes(settings, (2, SCANS, TOKENS, CHANNELS))) == [
        (2, 6, both),
        (4, 6, both),
        (5, 6, last),
        (6, 6, last),
    ]
    one_at_a_time = [x for name in ("job0", "job1", "job2") for x in ([name], [name])]
    assert [names for _, _, names in turns(1)] == one_at_a_time  # nothing fits


@pytest.mark.slow
def test_the_memory_of_a_job_is_estimated_by_what_xla_says():
    """Arguments and temporary buffers of the compiled steps, at a size where parameters matter."""
    settings = recipe(prototypes=10, layers=2)
    values = np.random.default_rng(0).standard_normal((2, SCANS, 64, 96)).astype(np.float32)
    one = [TrainingJob("one", Tokens(values), 0)]
    shots, batches = jobs.stack_shots(one), make_batches(one, 0, 1, settings)
    state = create_states(settings, shots, np.zeros(1, np.uint32))
    steps = partial(run_steps, abstract_params(settings.decoder, 96)[0], settings)
    compiled = jax.jit(steps, donate_argnums=0).lower(state, shots, batches).compile()
    said = compiled.memory_analysis()
    taken = said.argument_size_in_bytes + said.temp_size_in_bytes
    assert 0.5 < jobs.job_bytes(settings, values.shape) / taken < 2


@pytest.mark.slow
def test_one_program_serves_every_stretch_and_every_rate(caplog):
    settings = recipe(epochs=3, prototypes=5)  # of no other test
    with jax.log_compiles(), caplog.at_level("WARNING"):
        train([job(0)], settings, parallel="none")
        first = [r for r in caplog.records if "Finished XLA compilation" in r.message]
        caplog.clear()
        train([job(0)], replace(settings, learning_rate=1e-5, epochs=6), parallel="none")
        again = [r for r in caplog.records if "Finished XLA compilation" in r.message]
    assert any("run_steps" in record.message for record in first)
    assert not any("run_steps" in record.message for record in again)


def test_the_rate_rises_and_falls():
    settings = replace(recipe(), learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(settings, step, 120) for step in range(120)]
    assert rates[0] == 0.0
    assert rates[10] == 1.0
    assert max(rates) == rates[20] == 2.0
    assert rates[70] == pytest.approx(2.0 * 0.505)
    assert sorted(rates[20:], reverse=True) == rates[20:]
    assert rates[-1] < 0.025
    assert learning_rate(settings, 0, 1) == 0.0
    assert learning_rate(replace(settings, schedule="constant"), 7, 120) == 2.0


corrupt = jax.jit(corrupted, static_argnums=2)


def test_dropout_keeps_its_share_whatever_the_batch():
    seeds = np.array([3, 4, 5], np.uint32)
    settings = replace(recipe(), noise=0.0, dropout=0.3)
    ones = jnp.ones((2, 3, 64, 128))
    factors = np.asarray(corrupt(ones, seeds, settings))
    assert factors.shape == (2, 3, 64, 128)
    assert np.isin(factors, [0.0, np.float32(1) / np.float32(0.7)]).all()
    np.testing.assert_allclose((factors > 0).mean((0, 2, 3)), 0.7, atol=0.015)
    np.testing.assert_allclose(factors.mean(), 1.0, atol=0.015)
    alone = np.asarray(corrupt(ones[:, 1:2], seeds[1:2], settings))
    np.testing.assert_array_equal(alone[:, 0], factors[:, 1])


def test_noise_is_gaussian_and_each_scan_s_own():
    seeds = np.array([3, 4, 4], np.uint32)
    settings = replace(recipe(), noise=0.5, dropout=0.0)
    zeros = jnp.zeros((2, 3, 64, 128))
    found = np.asarray(corrupt(zeros, seeds, settings))
    assert scipy.stats.kstest(found[:, :2].ravel() / 0.5, "norm").pvalue > 0.01
    np.testing.assert_array_equal(found[:, 1], found[:, 2])
    assert abs(np.corrcoef(found[0, 0].ravel(), found[1, 0].ravel())[0, 1]) < 0.05
    moved = np.asarray(corrupt(zeros + 7.0, seeds, settings))
    np.testing.assert_allclose(moved, found + 7.0, atol=1e-5)
    both = np.asarray(corrupt(zeros + 7.0, seeds, replace(settings, dropout=0.5)))
    np.testing.assert_allclose((both < 7.0).mean(), 0.5, atol=0.02)


@pytest.mark.slow
def test_one_modality():
    one = job(0)
    alone = one._replace(shots=Tokens(one.shots.values[:1]))
    settings = recipe(epochs=2, modalities=("rgb",))
    (found,) = train([alone], settings, parallel="none")
    graph, _, _ = abstract_params(settings.decoder, CHANNELS)
    rebuilt = jax.jit(lambda p, s, t: merge(graph, p, s)(t))(
        found.parameters, found.statistics, alone.shots
    )
    assert rebuilt.values.shape == (1, SCANS, TOKENS, CHANNELS)


def test_a_loss_that_is_not_finite_names_job_and_step():
    settings = replace(recipe(epochs=2), learning_rate=1e38, schedule="constant")
    with pytest.raises(PirnError, match=r"job0: the loss of step 2 is (nan|inf); the step before"):
        train([job(0)], settings, parallel="none")


def test_tokens_that_are_not_finite_are_refused():
    bad = job(1)
    bad.shots.values[1, 1, 2, 3] = np.nan
    with pytest.raises(BadInputError, match="job1: tokens of normals that are not finite"):
        train([job(0), bad], recipe(), parallel="none")


@pytest.mark.parametrize(
    ("refused", "error", "message"),
    [
        ([job(0), job(0)], ConfigError, "two jobs are called job0"),
        ([job(0)._replace(seed=-1)], ConfigError, "seed -1"),
        (
            [TrainingJob("a", Tokens(job(0).shots.values[:1]), 0)],
            BadInputError,
            "of rgb and normals, 2 in front; got shape (1, 5, 16, 24)",
        ),
        (
            [TrainingJob("a", Tokens(job(0).shots.values, np.ones((2, 3), bool)), 0)],
            BadInputError,
            "(5, 16), as the tokens have; got (2, 3)",
        ),
        ([job(0, scans=0)], BadInputError, "no shots"),
    ],
)
def test_jobs_that_cannot_be_trained_are_refused(refused, error, message):
    with pytest.raises(error) as caught:
        train(refused, recipe(), parallel="none")
    assert message in str(caught.value)


def test_an_unknown_way_to_run_is_refused():
    with pytest.raises(ConfigError, match="none, pmap, sharding, auto"):
        train([job(0)], recipe(), parallel="pmpa")
