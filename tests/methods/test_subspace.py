"""The subspace against scikit-learn's principal components."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from sklearn.decomposition import PCA

from pirn_jax.errors import ConfigError
from pirn_jax.methods.subspace import Subspace, SubspaceSettings

from .problems import CHANNELS, GRID, MODALITIES, distances, job, prepared, tokens, valid

OPTIONS = [
    SubspaceSettings(),
    SubspaceSettings(variance=0.5),
    SubspaceSettings(variance=0.8, distance="cosine"),
    SubspaceSettings(variance=0.9, scale="standardise", centre_image=True, pool=True),
]


@pytest.mark.parametrize("recipe", OPTIONS, ids=str)
def test_distances_are_the_residuals_of_the_components(recipe):
    method = Subspace(recipe, MODALITIES, GRID, CHANNELS)
    shots = job()
    (trained,) = method.learn([shots])
    new, counted = tokens(9, 2), valid(9, 2)
    found = distances(method, trained, new, counted)
    for place in range(MODALITIES):
        seen = np.asarray(shots.shots.valid)
        learned, statistics = prepared(shots.shots.values[place], seen, recipe)
        queries, _ = prepared(new[place], counted, recipe, statistics)
        queries = queries.reshape(-1, CHANNELS)
        components = PCA(recipe.variance).fit(learned[seen])
        used = np.abs(trained.parameters["components"][place]).sum(0) > 0
        assert used.sum() == components.n_components_
        rebuilt = components.inverse_transform(components.transform(queries))
        if recipe.distance == "euclidean":
            expected = ((queries - rebuilt) ** 2).sum(-1)
        else:
            pairs = zip(queries - components.mean_, rebuilt - components.mean_, strict=True)
            expected = [cosine(query, projected) for query, projected in pairs]
        np.testing.assert_allclose(found[place].ravel(), expected, rtol=2e-3, atol=2e-5)


def test_all_of_the_variance_leaves_nothing_of_the_shots():
    method = Subspace(SubspaceSettings(variance=1.0), MODALITIES, GRID, CHANNELS)
    shots = job()
    (trained,) = method.learn([shots])
    again = shots.shots.values
    found = distances(method, trained, again, shots.shots.valid)
    assert found.max() < 1e-9


@pytest.mark.parametrize("variance", [0.0, 1.5, float("nan")])
def test_bad_shares_are_refused(variance):
    with pytest.raises(ConfigError, match="variance"):
        SubspaceSettings(variance=variance)
