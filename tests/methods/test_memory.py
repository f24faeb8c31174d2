"""The memory bank against scikit-learn's nearest neighbours."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods import memory
from pirn_jax.methods.memory import Memory, MemorySettings
from pirn_jax.training import TrainingJob

from .problems import CHANNELS, GRID, MODALITIES, distances, job, prepared, tokens, valid

OPTIONS = [
    MemorySettings(),
    MemorySettings(distance="euclidean"),
    MemorySettings(centre_image=True),
    MemorySettings(pool=True),
    MemorySettings(scale="centre"),
    MemorySettings(scale="standardise", distance="euclidean"),
    MemorySettings(pool=True, centre_image=True, scale="whiten"),
]


@pytest.mark.parametrize("recipe", OPTIONS, ids=str)
def test_distances_are_those_to_the_nearest_neighbours(recipe):
    method = Memory(recipe, MODALITIES, GRID, CHANNELS)
    shots = job()
    (trained,) = method.learn([shots])
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(method, trained, new, counted)
    for place in range(MODALITIES):
        seen = np.asarray(shots.shots.valid)
        bank, statistics = prepared(shots.shots.values[place], seen, recipe)
        queries, _ = prepared(new[place], counted, recipe, statistics)
        neighbours = NearestNeighbors(n_neighbors=1, metric=recipe.distance, algorithm="brute")
        expected, _ = neighbours.fit(bank[seen]).kneighbors(queries.reshape(-1, CHANNELS))
        np.testing.assert_allclose(found[place].ravel(), expected[:, 0], rtol=2e-4, atol=2e-6)


def test_a_token_of_the_shots_has_distance_zero():
    method = Memory(MemorySettings(), MODALITIES, GRID, CHANNELS)
    shots = job()
    (trained,) = method.learn([shots])
    again = shots.shots.values
    found = distances(method, trained, again, shots.shots.valid)
    seen = np.asarray(shots.shots.valid)
    assert found[:, seen].max() < 1e-12
    assert found[:, ~seen].min() > 1e-3  # the background is not in the bank


def test_a_token_of_zeros_is_near_its_like_and_no_stand_in_for_a_neighbour():
    """Background of points is all zeros, counts where all locations do, and is in the bank."""
    random = np.random.default_rng(5)
    shape = (MODALITIES, 2, GRID[0] * GRID[1], CHANNELS)
    bank, new = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    bank[:, :, :4] = new[:, :, :4] = 0
    everywhere = np.ones(shape[1:3], bool)
    method = Memory(MemorySettings(), MODALITIES, GRID, CHANNELS)
    (trained,) = method.learn([TrainingJob("x", Tokens(bank, everywhere), 0)])
    found = distances(method, trained, new, everywhere)
    assert not found[:, :, :4].any()
    for place in range(MODALITIES):
        some, queries = bank[place, :, 4:].reshape(-1, CHANNELS), new[place, :, 4:]
        neighbours = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(some)
        expected, _ = neighbours.kneighbors(queries.reshape(-1, CHANNELS))
        assert (expected > 0.5).any()
        np.testing.assert_allclose(found[place, :, 4:].ravel(), expected[:, 0], atol=2e-6)


def test_chunks_change_nothing(monkeypatch):
    found = []
    for size in (1024, 8, 5):
        monkeypatch.setattr(memory, "CHUNK", size)
        method = Memory(MemorySettings(), MODALITIES, GRID, CHANNELS)
        (trained,) = method.learn([job()])
        assert trained.parameters["bank"].shape[1] % size == 0
        found.append(distances(method, trained, tokens(9, 2), valid(9, 2)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-7)
    np.testing.assert_allclose(found[0], found[2], atol=1e-7)


def test_each_image_by_itself():
    method = Memory(MemorySettings(pool=True, centre_image=True), MODALITIES, GRID, CHANNELS)
    (trained,) = method.learn([job()])
    new, counted = tokens(9, 3), valid(9, 3)
    together = distances(method, trained, new, counted)
    for place in range(3):
        one = slice(place, place + 1)
        alone = distances(method, trained, new[:, one], counted[one])
        np.testing.assert_allclose(alone[:, 0], together[:, place], atol=1e-6)


def test_shots_without_the_part_are_refused():
    empty = job()
    nothing = Tokens(empty.shots.values, np.zeros_like(empty.shots.valid))
    with pytest.raises(BadInputError, match="no token of the shots"):
        Memory(MemorySettings(), MODALITIES, GRID, CHANNELS).learn([TrainingJob("x", nothing, 0)])


@pytest.mark.parametrize(
    "change", [{"distance": "l2"}, {"photometric": -1}, {"rotations": -1}, {"scale": "layernorm"}]
)
def test_bad_values_are_refused(change, unchecked):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(MemorySettings(), **change)
