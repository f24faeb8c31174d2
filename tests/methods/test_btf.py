"""BTF against scikit-learn's nearest neighbours among the coreset."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pirn_jax.decoder import Tokens
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods.btf import Btf, BtfSettings
from pirn_jax.methods.coreset import choose
from pirn_jax.training import TrainingJob

from .problems import CHANNELS, GRID, distances, job, tokens, valid

WIDTHS = (CHANNELS, 5)  # the second modality has fewer channels, and zeros in place of the rest


def narrow(values):
    values = values.copy()
    values[1] *= 40  # as histograms are larger than a network's channels
    values[1, ..., WIDTHS[1] :] = 0
    return values


@pytest.mark.parametrize("balance", [True, False])
def test_distances_are_those_to_the_coreset_of_places(balance):
    method = Btf(BtfSettings(balance=balance, share=0.3), GRID, CHANNELS, WIDTHS)
    shots = Tokens(narrow(tokens(0, 3)), valid(0, 3))
    (trained,) = method.learn([TrainingJob("x", shots, 0)])
    new, counted = narrow(tokens(9, 2)), valid(9, 2)
    found = distances(method, trained, new, counted)
    learned = shots.values[:, shots.valid].astype(float)
    size = np.sqrt(learned.var(1).sum(-1)) if balance else np.ones(2)

    def places(x):
        return np.concatenate([x[0] / size[0], x[1][..., : WIDTHS[1]] / size[1]], -1)

    bank = places(learned)
    bank = bank[choose(bank.astype(np.float32), int(np.ceil(0.3 * len(bank))))]
    queries = places(new).reshape(-1, sum(WIDTHS))
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank)
    expected, which = neighbours.kneighbors(queries)
    np.testing.assert_allclose(found.sum(0).ravel(), expected[:, 0], rtol=1e-4)
    squares = (queries - bank[which[:, 0]]) ** 2
    share = squares[:, CHANNELS:].sum(-1) / squares.sum(-1)
    np.testing.assert_allclose(found[1].ravel() / expected[:, 0], share, rtol=1e-3)
    # Unscaled, the larger modality decides alone, which is the trap of the published code.
    assert (np.median(share) > 0.9) == (not balance)


def test_shots_without_the_part_are_refused():
    empty = job()
    nothing = Tokens(empty.shots.values, np.zeros_like(empty.shots.valid))
    with pytest.raises(BadInputError, match="no token of the shots"):
        Btf(BtfSettings(), GRID, CHANNELS, WIDTHS).learn([TrainingJob("x", nothing, 0)])
    with pytest.raises(ConfigError, match="share"):
        replace(BtfSettings(), share=0.0)
