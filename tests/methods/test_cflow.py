"""CFlow's loss, rate and floor; its flow is in `test_flow.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.decoder import Tokens
from pirn_jax.methods.cflow import CFlow, CFlowSettings, Loss, create, forward
from pirn_jax.methods.flow import positions, rotations

from .problems import CHANNELS, GRID, MODALITIES, distances, job

SETTINGS = CFlowSettings(blocks=2, position_channels=4, steps=10, batch_size=16)
METHOD = CFlow(SETTINGS, MODALITIES, GRID, CHANNELS)


def test_the_loss_is_the_log_sigmoid_of_the_likelihood_of_each_channel():
    turns = jnp.asarray(rotations(0, 2, CHANNELS))
    keys = jax.random.split(jax.random.key(0))
    streams = [create(CHANNELS, 2, 4, key) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *streams)
    random = np.random.default_rng(0)
    x = random.standard_normal((7, MODALITIES, CHANNELS)).astype(np.float32)
    places = random.integers(0, 16, 7)
    expected = 0.0
    for m, stream in enumerate(streams):
        position = jnp.asarray(positions(GRID, 4)[places])
        z, log_determinant = (
            np.asarray(a, np.float64)
            for a in forward(stream, turns, jnp.asarray(x[:, m]), position)
        )
        log_p = log_determinant - 0.5 * (z**2).sum(1) - 0.5 * CHANNELS * np.log(2 * np.pi)
        expected += np.mean(-np.log(1 / (1 + np.exp(-log_p / CHANNELS))))
    loss = jax.jit(Loss(GRID, 4, 2e-4, 10).__call__)
    batch = {"tokens": jnp.asarray(x), "places": jnp.asarray(places, jnp.int32)}
    found = loss(stacked, {"rotations": turns}, batch, jax.random.key(0))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_likeliest_token_of_the_shots_has_distance_zero():
    shots = job()
    (trained,) = METHOD.learn([shots])
    seen = shots.shots.valid
    found = distances(METHOD, trained, shots.shots.values, seen)
    for stream in found:
        assert stream[seen].min() == pytest.approx(0.0, abs=1e-5)
        assert stream[seen].max() > 0.01


def test_where_a_token_stands_matters():
    shots = job()
    (trained,) = METHOD.learn([shots])
    same = np.broadcast_to(shots.shots.values[:, :1, :1], (2, 1, 16, CHANNELS))
    judged = jax.jit(lambda p, s, t: METHOD.distances(p, s, Tokens(t, np.ones((1, 16), bool)))[0])
    found = judged(trained.parameters, trained.statistics, same)
    assert np.asarray(found).std(-1).min() > 1e-5
