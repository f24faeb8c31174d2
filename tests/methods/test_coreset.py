"""The coreset against the definition, by plain loops."""

import numpy as np
import pytest

from pirn_jax.methods.coreset import choose, coreset


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_farthest_is_chosen_next(count):
    tokens = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32) + 3
    chosen = [0]
    for _ in range(count - 1):
        away = [min(np.linalg.norm(x - tokens[place]) for place in chosen) for x in tokens]
        chosen.append(int(np.argmax(away)))
    assert choose(tokens, count).tolist() == chosen


def test_a_share_is_rounded_up_and_no_token_comes_twice():
    tokens = np.random.default_rng(0).standard_normal((21, 3)).astype(np.float32)
    assert len(coreset(tokens, 0.1)) == 3
    np.testing.assert_array_equal(coreset(tokens[:1], 0.1), tokens[:1])
    same = np.ones((6, 2), np.float32)
    assert sorted(choose(same, 9)) == list(range(6))
