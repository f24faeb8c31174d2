"""Balanced plans against POT, scipy, and finite differences of the map itself."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
import scipy.optimize
from jax.test_util import check_grads

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.transport import balanced_plan
from tests.transport.problems import clustered_cost, plan_of

STEP = (1e-6, -1e-6)  # of central differences
SOLVERS = ["ott", "scan", "kernel"]  # "auto" is one of them: test_auto_is_the_fast_one


def pot_plan(cost, epsilon, iterations=5000, mass=None):
    n, k = cost.shape
    mass = np.ones(n) if mass is None else mass
    total = mass.sum()
    plan = ot.sinkhorn(
        mass / total,
        np.full(k, 1 / k),
        cost,
        epsilon,
        method="sinkhorn_log",
        numItermax=iterations,
        stopThr=1e-15,
        warn=False,
    )
    return plan * total


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_converged_plan_equals_pot(solver, epsilon):
    cost = clustered_cost(0)
    with jax.enable_x64(True):
        plan = plan_of(jnp.asarray(cost), epsilon=epsilon, iterations=3000, solver=solver)
    np.testing.assert_allclose(plan.matrix, pot_plan(cost, epsilon), atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_small_epsilon_reaches_the_exact_plan(solver):
    cost = np.random.default_rng(3).uniform(0, 1, (40, 4))
    exact = ot.emd(np.full(40, 1 / 40), np.full(4, 1 / 4), cost) * 40
    with jax.enable_x64(True):
        plan = plan_of(jnp.asarray(cost), epsilon=1e-3, iterations=3000, solver=solver)
    np.testing.assert_allclose(plan.matrix, exact, atol=0.02)


@pytest.mark.parametrize("solver", SOLVERS)
def test_small_epsilon_square_problem_is_the_assignment(solver):
    cost = np.random.default_rng(5).uniform(0, 1, (12, 12))
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    with jax.enable_x64(True):
        plan = plan_of(jnp.asarray(cost), epsilon=1e-3, iterations=3000, solver=solver)
    np.testing.assert_array_equal(np.asarray(plan.matrix).argmax(1)[rows], columns)
    np.testing.assert_allclose(np.asarray(plan.matrix).max(1), 1.0, atol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_solvers_agree_in_float32(seed):
    cost = jnp.asarray(clustered_cost(seed), jnp.float32)
    reference = plan_of(cost, solver="ott")
    with jax.enable_x64(True):
        exact = plan_of(jnp.asarray(clustered_cost(seed)), solver="ott").matrix
    for solver in ("scan", "kernel"):
        plan = plan_of(cost, solver=solver)
        np.testing.assert_allclose(plan.matrix, reference.matrix, atol=3e-6)
        np.testing.assert_allclose(plan.matrix, exact, atol=1e-5)
        np.testing.assert_allclose(plan.column_error, reference.column_error, atol=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 50, 131])
def test_solvers_agree_after_any_number_of_iterations(iterations):
    with jax.enable_x64(True):
        cost = jnp.asarray(clustered_cost(1, 64, 7))
        plans = [
            plan_of(cost, iterations=iterations, solver=solver).matrix
            for solver in ("ott", "scan", "kernel")
        ]
    np.testing.assert_allclose(plans[1], plans[0], atol=1e-12)
    np.testing.assert_allclose(plans[2], plans[0], atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_marginals(solver):
    for seed in range(5):
        cost = jnp.asarray(clustered_cost(seed), jnp.float32)
        for iterations in (1, 50, 500):
            plan = plan_of(cost, iterations=iterations, solver=solver)
            np.testing.assert_allclose(plan.matrix.sum(1), 1.0, atol=1e-5)
            assert plan.row_error < 1e-5
        np.testing.assert_allclose(plan.matrix.sum(0) / 25.6, 1.0, atol=1e-4)
        np.testing.assert_allclose(
            plan.column_error, np.abs(np.asarray(plan.matrix).sum(0) / 25.6 - 1).max(), atol=1e-6
        )
        assert plan.iterations == 500


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_without_mass_take_no_part(solver):
    cost = clustered_cost(2)
    mass = np.zeros(256)
    mass[:150] = 1.0
    mass[150:180] = 0.5
    with jax.enable_x64(True):
        plan = plan_of(jnp.asarray(cost), solver=solver, row_mass=jnp.asarray(mass))
        alone = plan_of(jnp.asarray(cost[:180]), solver=solver, row_mass=jnp.asarray(mass[:180]))
        converged = plan_of(
            jnp.asarray(cost), solver=solver, iterations=3000, row_mass=jnp.asarray(mass)
        )
    np.testing.assert_array_equal(np.asarray(plan.matrix)[180:], 0.0)
    np.testing.assert_allclose(np.asarray(plan.matrix)[:180], alone.matrix, atol=1e-12)
    np.testing.assert_allclose(np.asarray(plan.matrix).sum(1), mass, atol=1e-12)
    np.testing.assert_allclose(np.asarray(converged.matrix).sum(0), mass.sum() / 10, rtol=1e-8)
    np.testing.assert_allclose(
        np.asarray(converged.matrix)[:180], pot_plan(cost[:180], 0.05, mass=mass[:180]), atol=1e-8
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_column_masses(solver):
    shares = np.array([4.0, 3, 2, 1, 0])
    with jax.enable_x64(True):
        plan = plan_of(
            jnp.asarray(clustered_cost(0, 100, 5)),
            iterations=3000,
            solver=solver,
            column_mass=jnp.asarray(shares),
        )
    np.testing.assert_allclose(np.asarray(plan.matrix).sum(0), 10 * shares, rtol=1e-4, atol=1e-6)


EXTREME = {
    "zero": np.zeros((30, 4)),
    "huge": np.full((30, 4), 1e6),
    "one prototype wins": np.tile([[0.0, 2, 2, 2]], (30, 1)),
    "two values": np.random.default_rng(0).choice([0.0, 2.0], (30, 4)),
    "wide": np.random.default_rng(1).uniform(-1e3, 1e3, (30, 4)),
    "duplicate tokens": np.tile(np.random.default_rng(5).uniform(0, 2, (1, 4)), (30, 1)),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("counted", [30, 17, 0])
def test_extreme_costs_stay_finite(counted, solver):
    costs = jnp.asarray(np.stack(list(EXTREME.values())), jnp.float32)
    rows = jnp.asarray(np.arange(30) < counted, jnp.float32)

    def first_column(costs):
        plan = plan_of(costs, solver=solver, row_mass=rows)
        return (plan.matrix[..., 0] @ jnp.arange(30.0)).sum(), plan

    (_, plan), gradient = jax.jit(jax.value_and_grad(first_column, has_aux=True))(costs)
    assert jnp.isfinite(plan.matrix).all()
    assert jnp.isfinite(plan.column_error).all()
    assert jnp.isfinite(gradient).all()
    expected = np.tile(np.arange(30) < counted, (len(EXTREME), 1))
    np.testing.assert_allclose(plan.matrix.sum(-1), expected, atol=1e-5)
    np.testing.assert_allclose(plan.matrix[0, :counted], 0.25, atol=1e-6)
    np.testing.assert_allclose(plan.matrix[5, :counted], 0.25, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(30, 1), (3, 8), (1, 1)], ids=["K=1", "N<K", "1x1"])
def test_unusual_shapes(shape, solver):
    cost = jnp.asarray(np.random.default_rng(2).uniform(0, 2, shape), jnp.float32)
    plan = plan_of(cost, solver=solver, iterations=200)
    np.testing.assert_allclose(plan.matrix.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(plan.matrix.sum(0), shape[0] / shape[1], rtol=1e-3)


@pytest.mark.parametrize(("n", "k"), [(3, 12), (40, 7)])
def test_any_masses_any_solver(n, k):
    """Masses over six orders of magnitude, and none."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        mass = rng.choice([0.0, 1e-6, 0.3, 1.0], n)
        mass[0] = 1.0
        with jax.enable_x64(True):
            cost, rows = jnp.asarray(rng.uniform(0, 2, (n, k))), jnp.asarray(mass)
            plans = [
                plan_of(cost, epsilon=e, solver=s, row_mass=rows).matrix
                for e in (0.01, 1.0)
                for s in SOLVERS
            ]
        for i in (0, 3):
            np.testing.assert_allclose(plans[i + 1], plans[i], atol=1e-9)
            np.testing.assert_allclose(plans[i + 2], plans[i], atol=1e-9)


def test_auto_is_the_fast_one():
    cost = jnp.asarray(clustered_cost(0), jnp.float32)
    auto, kernel = (balanced_plan(cost, solver=s).matrix for s in ("auto", "kernel"))
    np.testing.assert_array_equal(auto, kernel)


@pytest.mark.parametrize("solver", ["ott", "scan", "kernel"])
@pytest.mark.parametrize("masked", [False, True])
def test_unrolled_gradient_is_that_of_the_fifty_step_map(solver, masked):
    """Reverse mode against central differences along a direction."""
    mass = jnp.asarray(np.arange(256) < 200, jnp.float32) if masked else None

    @jax.jit
    def value_and_gradient(cost, weight):
        rows = None if mass is None else mass.astype(cost.dtype)
        return jax.value_and_grad(
            lambda c: (balanced_plan(c, solver=solver, row_mass=rows).matrix * weight).sum()
        )(cost)

    with jax.enable_x64(True):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            cost = clustered_cost(seed)
            weight, direction = rng.normal(size=cost.shape), rng.normal(size=cost.shape)
            ahead, behind = (value_and_gradient(cost + s * direction, weight)[0] for s in STEP)
            exact = (ahead - behind) / (STEP[0] - STEP[1])
            reverse = (value_and_gradient(cost, weight)[1] * direction).sum()
            assert abs(reverse - exact) <= 1e-5 * abs(exact)


@pytest.mark.parametrize("solver", ["ott", "scan", "kernel"])
def test_implicit_gradient_is_that_of_the_limit(solver):
    @jax.jit
    def value_and_gradient(cost, weight):
        def limit(c):
            plan = balanced_plan(c, iterations=3000, solver=solver, gradient="implicit")
            return (plan.matrix * weight).sum()

        return jax.value_and_grad(limit)(cost)

    with jax.enable_x64(True):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            cost = clustered_cost(seed, 64, 7)
            weight, direction = rng.normal(size=cost.shape), rng.normal(size=cost.shape)
            ahead, behind = (value_and_gradient(cost + s * direction, weight)[0] for s in STEP)
            exact = (ahead - behind) / (STEP[0] - STEP[1])
            implicit = (value_and_gradient(cost, weight)[1] * direction).sum()
            assert abs(implicit - exact) <= 1e-5 * abs(exact)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gradient", ["implicit", "stop"])
def test_gradient_mode_does_not_change_the_plan(solver, gradient):
    cost = jnp.asarray(clustered_cost(0), jnp.float32)
    np.testing.assert_array_equal(
        plan_of(cost, solver=solver, gradient=gradient).matrix,
        plan_of(cost, solver=solver).matrix,
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_stopped_gradient_is_zero(solver):
    cost = jnp.asarray(clustered_cost(0), jnp.float32)
    gradient = jax.grad(lambda c: (plan_of(c, solver=solver, gradient="stop").matrix ** 2).sum())(
        cost
    )
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gradient", ["unroll", "implicit"])
def test_batched_float32_gradients(solver, gradient):
    """Leading axes and vmap are the same thing, and close to float64."""
    costs = np.stack([clustered_cost(seed) for seed in range(4)])
    weight = np.random.default_rng(9).normal(size=costs.shape)
    # At the limit for `implicit`: away from it the two precisions stop at different potentials.
    iterations = 50 if gradient == "unroll" else 1000

    def total(c, w):
        plan = plan_of(c, iterations=iterations, solver=solver, gradient=gradient)
        return (plan.matrix * w).sum()

    single = jnp.asarray(costs, jnp.float32), jnp.asarray(weight, jnp.float32)
    together = jax.jit(jax.grad(total))(*single)
    mapped = jax.jit(jax.vmap(jax.grad(total)))(*single)
    assert jnp.isfinite(together).all()
    np.testing.assert_allclose(together, mapped, atol=1e-4)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(costs), jnp.asarray(weight)))
    scale = np.abs(exact).max()
    np.testing.assert_allclose(together, exact, atol=2e-5 * scale)


@pytest.mark.parametrize("solver", SOLVERS)
def test_epsilon_may_be_traced(solver):
    cost = jnp.asarray(clustered_cost(0), jnp.float32)
    traced = jax.jit(lambda e: plan_of(cost, epsilon=e, solver=solver).matrix)
    np.testing.assert_allclose(
        traced(0.1), balanced_plan(cost, epsilon=0.1, solver=solver).matrix, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_raised(dtype):
    cost = jnp.asarray(clustered_cost(0), dtype)
    plan = plan_of(cost, solver="scan")
    assert plan.matrix.dtype == jnp.float32
    np.testing.assert_array_equal(
        plan.matrix, plan_of(cost.astype(jnp.float32), solver="scan").matrix
    )


def test_scan_has_forward_mode_too():
    with jax.enable_x64(True):
        cost = jnp.asarray(clustered_cost(0, 32, 4))
        check_grads(lambda c: plan_of(c, solver="scan", epsilon=0.3).matrix, (cost,), order=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "kernal"}, "did you mean 'kernel'"),
        ({"gradient": "unrolled"}, "did you mean 'unroll'"),
        ({"iterations": 0}, "at least 1"),
        ({"epsilon": 0.0}, "above 0"),
        ({"epsilon": float("nan")}, "above 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        balanced_plan(jnp.zeros((4, 2)), **options)


def test_empty_cost_is_refused():
    with pytest.raises(BadInputError, match="tokens, prototypes"):
        balanced_plan(jnp.zeros((0, 2)))
