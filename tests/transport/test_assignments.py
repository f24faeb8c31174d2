"""The family: what the rows of each sum to, oracles where there are some, and one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import scipy.special

from pirn_jax.errors import ConfigError
from pirn_jax.transport import FAMILY, assign, cosine_cost, find_assignment
from tests.transport.problems import assigned, clustered_cost

COST = clustered_cost(0, 60, 6)
ROWS_SUM_TO_ONE = {"ot", "softmax", "linear", "semi_relaxed", "sparsemax", "annealed"}


@pytest.mark.parametrize("name", FAMILY)
def test_rows_padding_and_gradient(name):
    mass = jnp.asarray((np.arange(60) < 45) * 1.0, jnp.float32)

    def total(cost):
        plan = assign(cost, name, row_mass=mass)
        return (plan.matrix[:, 0] * jnp.arange(60.0)).sum(), plan

    cost = jnp.asarray(COST, jnp.float32)
    (_, plan), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(cost)
    matrix = np.asarray(plan.matrix)
    assert (matrix >= 0).all()
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(matrix[45:], 0.0)
    np.testing.assert_allclose(gradient[45:], 0.0, atol=1e-25)
    sums = matrix[:45].sum(1)
    if name in ROWS_SUM_TO_ONE:
        np.testing.assert_allclose(sums, 1.0, atol=1e-5)
    elif name == "partial":
        assert (sums <= 1 + 1e-5).all()
        np.testing.assert_allclose(sums.sum(), 0.9 * 45, rtol=1e-2)
    elif name == "unbalanced":
        assert 0.5 * 45 < sums.sum() < 1.5 * 45
    else:
        assert (sums < 6).all()
    alone = assigned(cost[:45], name)
    np.testing.assert_allclose(matrix[:45], alone.matrix, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_stop(name):
    cost = jnp.asarray(COST, jnp.float32)
    gradient = jax.grad(lambda c: (assigned(c, name, gradient="stop").matrix ** 2).sum())(cost)
    np.testing.assert_array_equal(gradient, 0.0)


def test_softmax_and_sigmoid():
    cost = jnp.asarray(COST, jnp.float32)
    np.testing.assert_allclose(
        assign(cost, "softmax", epsilon=0.1).matrix,
        scipy.special.softmax(-COST / 0.1, 1),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        assign(cost, "sigmoid", epsilon=0.1).matrix,
        scipy.special.expit((1 - COST) / 0.1 - np.log(6)),
        atol=1e-5,
    )


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    matrix = np.asarray(assign(jnp.asarray(COST, jnp.float32), "sparsemax", epsilon=1.0).matrix)
    for row, weights in zip(-COST, matrix, strict=True):
        expected = ot.utils.proj_simplex(row)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert (matrix == 0).any()


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
@pytest.mark.parametrize("name", ["unbalanced", "semi_relaxed"])
def test_relaxed_equals_pot(name):
    epsilon, tau = 0.1, 0.9
    price = epsilon * tau / (1 - tau)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        np.full(60, 1 / 60),
        np.full(6, 1 / 6),
        COST,
        epsilon,
        (price if name == "unbalanced" else np.inf, price),
        method="sinkhorn_stabilized",
        reg_type="entropy",
        numItermax=5000,
        stopThr=1e-14,
    )
    with jax.enable_x64(True):
        plan = assigned(jnp.asarray(COST), name, epsilon=epsilon, iterations=2000)
    np.testing.assert_allclose(plan.matrix, 60 * expected, atol=1e-5)


def test_partial_leaves_the_costliest_tokens():
    cost = COST.copy()
    cost[:6] = 1.9  # a tenth of the tokens far from every prototype
    matrix = assigned(jnp.asarray(cost, jnp.float32), "partial", iterations=500).matrix
    assert matrix[:6].sum() < 0.05
    np.testing.assert_allclose(matrix.sum(0), 0.9 * 60 / 6, rtol=1e-2)


def test_annealed_ends_at_the_balanced_plan():
    with jax.enable_x64(True):
        cost = jnp.asarray(COST)
        annealed = assigned(cost, "annealed", iterations=2000).matrix
        balanced = assigned(cost, "ot", iterations=2000).matrix
        np.testing.assert_allclose(annealed, balanced, atol=1e-6)


def test_heads_are_transports_of_their_own():
    rng = np.random.default_rng(0)
    tokens, prototypes = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((50, 24), (5, 24)))
    together = assigned(cosine_cost(tokens, prototypes, heads=3)).matrix
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        alone = assigned(cosine_cost(tokens[:, part], prototypes[:, part])).matrix
        # Rounding of 8 products in the cost, as ε = 0.05 magnifies it.
        near = 8 * float(np.finfo(np.float32).eps) / 0.05
        np.testing.assert_allclose(together[head], alone, atol=near)


def test_cosine_cost_equals_scipy_and_knows_zero():
    rng = np.random.default_rng(1)
    tokens, prototypes = rng.normal(size=(20, 8)), rng.normal(size=(4, 8))
    cost = cosine_cost(jnp.asarray(tokens, jnp.float32), jnp.asarray(prototypes, jnp.float32))
    expected = scipy.spatial.distance.cdist(tokens, prototypes, "cosine")
    np.testing.assert_allclose(cost, expected, atol=1e-6)
    zero = jnp.zeros((2, 8))
    value, gradient = jax.value_and_grad(lambda z: cosine_cost(z, zero).sum())(zero)
    assert value == 4.0
    np.testing.assert_array_equal(gradient, 0.0)


def nearest(cost, *, epsilon, iterations, row_mass):
    """An assignment of one's own: all of a token to its nearest prototype."""
    return row_mass[..., None] * jax.nn.one_hot(cost.argmin(-1), cost.shape[-1], dtype=cost.dtype)


def test_ones_own_assignment():
    cost = jnp.asarray(COST, jnp.float32)
    plan = assign(cost, nearest)
    np.testing.assert_array_equal(np.asarray(plan.matrix).argmax(1), COST.argmin(1))
    usage = np.bincount(COST.argmin(1), minlength=6) / 10
    np.testing.assert_allclose(plan.column_error, np.abs(usage - 1).max(), atol=1e-6)


def test_by_import_path():
    cost = jnp.asarray(COST, jnp.float32)
    path = f"{__name__}:nearest"
    np.testing.assert_array_equal(assign(cost, path).matrix, assign(cost, nearest).matrix)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("softmaks", "did you mean 'softmax'"),
        ("no_such_module:f", "cannot import"),
        ("math:pi", "not a function"),
        (":x", "no import path"),
        ("..rel:x", "no import path"),
        ("json:", "no import path"),
        ("json:loads:dumps", "no import path"),
    ],
)
def test_unknown_assignments(name, message):
    with pytest.raises(ConfigError, match=message):
        find_assignment(name)


def test_a_module_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot import assignment .*division by zero"):
        find_assignment("broken_on_import:f")


def test_wrong_shape_and_gradient_are_refused():
    cost = jnp.asarray(COST, jnp.float32)
    with pytest.raises(ConfigError, match="shape"):
        assign(cost, lambda cost, **_: cost.sum(-1))
    with pytest.raises(ConfigError, match="returned list of shape None"):
        assign(cost, lambda cost, **_: [1.0])
    with pytest.raises(ConfigError, match="'json:loads' cannot be called as one"):
        assign(cost, "json:loads")
    with pytest.raises(ConfigError, match="implicit"):
        assign(cost, "softmax", gradient="implicit")
