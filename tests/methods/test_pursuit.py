"""Orthogonal matching pursuit against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from pirn_jax.methods.pursuit import pursue

rebuild = jax.jit(pursue, static_argnums=2)


@pytest.mark.parametrize(("atoms", "count"), [(10, 3), (2, 3)])
def test_vectors_are_rebuilt_as_by_scikit_learn(atoms, count):
    random = np.random.default_rng(0)
    middle = random.standard_normal((40, 1, 16))  # near to each other, as nearest neighbours are
    given = (middle + 0.3 * random.standard_normal((40, atoms, 16))).astype(np.float32)
    vectors = (middle[:, 0] + 0.3 * random.standard_normal((40, 16))).astype(np.float32)
    found = np.asarray(rebuild(vectors, given, count))
    for vector, own, one in zip(vectors.astype(float), given.astype(float), found, strict=True):
        sizes = orthogonal_mp(own.T, vector, n_nonzero_coefs=min(atoms, count))
        np.testing.assert_allclose(one, sizes @ own, atol=1e-4)


def test_atoms_that_add_nothing_are_of_no_use():
    random = np.random.default_rng(1)
    one, other, vector = random.standard_normal((3, 8)).astype(np.float32)
    given = np.stack([one, one, -2 * one, 0 * one, other])
    found = rebuild(vector[None], given[None], 3)[0]
    sizes, *_ = np.linalg.lstsq(np.stack([one, other], 1), vector, rcond=None)
    np.testing.assert_allclose(found, sizes @ np.stack([one, other]), atol=1e-5)
    np.testing.assert_allclose(rebuild(one[None], given[None], 3)[0], one, atol=1e-6)
    assert not np.asarray(rebuild(vector[None], 0 * given[None], 3)).any()
