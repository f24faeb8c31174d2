"""A lot judged against itself, held to loops in numpy."""

import numpy as np
import pytest

from pirn_jax.errors import BadInputError
from pirn_jax.scoring.lot import lot_distances

M, S, N, C = 2, 8, 5, 3


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).normal(size=(M, S, N, C)).astype(np.float32)


def valid(**shown):
    """All tokens but those of the scans named: scan2=0 shows none, scan3=2 the first two."""
    found = np.ones((S, N), bool)
    for name, count in shown.items():
        found[int(name.removeprefix("scan")), count:] = False
    return found


def by_loops(tokens, others, seen):
    found = np.zeros(tokens.shape[:3])
    for m, i, n in np.ndindex(*found.shape):
        nearest = [
            ((others[m, j][seen[j]] - tokens[m, i, n]) ** 2).sum(-1).min() / (2 * C)
            for j in range(len(seen))
            if j != i and seen[j].any()
        ]
        found[m, i, n] = np.mean(sorted(nearest)[: max(1, int(0.3 * len(nearest)))])
    return found


@pytest.mark.parametrize("seen", [valid(), valid(scan2=0, scan3=2)], ids=["all", "some"])
def test_distances_are_those_of_loops(tokens, seen):
    expected = by_loops(tokens, tokens, seen)
    assert int(0.3 * (S - 1)) == 2  # more than the nearest scan counts
    np.testing.assert_allclose(lot_distances(tokens, tokens, seen), expected, atol=1e-5)


def test_more_may_be_looked_among_than_is_judged(tokens):
    turned = np.concatenate([tokens, tokens[..., ::-1]], 2)
    seen = np.concatenate([valid(scan1=3), valid(scan1=0)], 1)
    expected = by_loops(tokens, turned, seen)
    found = lot_distances(tokens, turned, seen)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found <= lot_distances(tokens, tokens, valid(scan1=3)) + 1e-6).all()


def test_the_order_of_the_scans_orders_the_result_and_no_more(tokens):
    seen, order = valid(scan4=2), np.random.default_rng(1).permutation(S)
    found = lot_distances(tokens, tokens, seen)
    shuffled = lot_distances(tokens[:, order], tokens[:, order], seen[order])
    np.testing.assert_allclose(shuffled, found[:, order], atol=1e-6)


def test_what_most_scans_show_is_not_odd_and_what_one_shows_is(tokens):
    same = np.repeat(tokens[:, :1], S, 1)
    same[0, 5, 2] += 10.0
    found = lot_distances(same, same, valid())
    assert np.unravel_index(found.argmax(), found.shape) == (0, 5, 2)
    assert np.delete(found.reshape(-1), found.argmax()).max() < 1e-5


@pytest.mark.parametrize("shown", [0, 1])
def test_a_scan_without_another_cannot_be_judged(tokens, shown):
    seen = np.zeros((S, N), bool)
    seen[:shown] = True
    with pytest.raises(BadInputError, match=f"a lot of {shown}: .* against the others"):
        lot_distances(tokens, tokens, seen)
