"""The fused kernel, interpreted, against ott and finite differences; and what it is for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from pirn_jax.transport import fused
from tests.transport.problems import clustered_cost, plan_of

STEP = 1e-6


def ragged(problems=2, n=64):
    """Masses of images of different extent: 1 to a half, none, all of a third of them."""
    rng = np.random.default_rng(0)
    mass = rng.uniform(0.5, 1.0, (problems, n))
    mass[0, n // 2 :] = 0.0
    mass[1, ::3] = 0.0
    return mass


@pytest.mark.parametrize(
    ("iterations", "other"), [pytest.param(1, "scan", marks=pytest.mark.slow), (50, "ott")]
)
def test_equals_the_others_in_float64(iterations, other):
    costs = np.stack([clustered_cost(seed, 64, 7) for seed in range(2)])
    with jax.enable_x64(True):
        options = {
            "iterations": iterations,
            "row_mass": jnp.asarray(ragged()),
            "column_mass": jnp.asarray([4.0, 3, 2, 1, 1, 1, 1]),
        }
        plan, reference = (
            plan_of(jnp.asarray(costs), solver=solver, **options) for solver in ("pallas", other)
        )
        np.testing.assert_allclose(plan.matrix, reference.matrix, atol=1e-12)
        np.testing.assert_allclose(plan.column_error, reference.column_error, atol=1e-11)


def test_equals_ott_in_float32_at_the_decoders_size():
    """Values to 1e-5; gradients as close to ott's in float64 as float32 allows."""
    costs = np.stack([clustered_cost(seed) for seed in range(2)])
    weight = np.random.default_rng(9).normal(size=costs.shape)
    rows = np.ones((2, 256))
    rows[1, 200:] = 0.0

    def total(cost, weight, rows, solver):
        plan = plan_of(cost, solver=solver, row_mass=rows)
        return (plan.matrix * weight).sum(), plan.matrix

    differentiated = jax.jit(jax.grad(total, has_aux=True), static_argnums=3)
    single = [jnp.asarray(x, jnp.float32) for x in (costs, weight, rows)]
    gradient, matrix = differentiated(*single, "pallas")
    with jax.enable_x64(True):
        exact, reference = map(
            np.asarray, differentiated(*map(jnp.asarray, (costs, weight, rows)), "ott")
        )
    np.testing.assert_allclose(matrix, reference, atol=1e-5)
    np.testing.assert_allclose(gradient, exact, atol=1e-5 * np.abs(exact).max())
    np.testing.assert_array_equal(np.asarray(gradient)[1, 200:], 0.0)


@pytest.mark.parametrize("iterations", [pytest.param(1, marks=pytest.mark.slow), 50])
def test_gradient_is_that_of_the_iterations(iterations):
    """Reverse mode against central differences along a direction, masses ragged."""
    rng = np.random.default_rng(0)
    costs = np.stack([clustered_cost(seed, 64, 7) for seed in range(2)])
    weight, direction = rng.normal(size=costs.shape), rng.normal(size=costs.shape)

    @jax.jit
    def value_and_gradient(cost):
        def total(cost):
            options = {"iterations": iterations, "solver": "pallas"}
            return (plan_of(cost, row_mass=jnp.asarray(ragged()), **options).matrix * weight).sum()

        return jax.value_and_grad(total)(cost)

    with jax.enable_x64(True):
        ahead, behind = (value_and_gradient(costs + s * direction)[0] for s in (STEP, -STEP))
        exact = (ahead - behind) / (2 * STEP)
        reverse = (value_and_gradient(costs)[1] * direction).sum()
        assert abs(reverse - exact) <= 1e-6 * abs(exact)


def test_mapped_problems_are_those_of_a_batch():
    """Leading axes and vmap are the same thing, forward and backward."""
    costs = jnp.asarray(np.stack([clustered_cost(s, 64, 7) for s in range(4)]), jnp.float32)

    def gradient(cost):
        return jax.grad(lambda c: (plan_of(c, solver="pallas").matrix ** 2).sum())(cost)

    together = jax.jit(gradient)(costs.reshape(2, 2, 64, 7)).reshape(costs.shape)
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(costs), together, atol=1e-6)


def test_extreme_costs_stay_finite():
    rng = np.random.default_rng(0)
    costs = [
        np.full((30, 4), 1e6),
        np.tile([[0.0, 2, 2, 2]], (30, 1)),
        rng.choice([0.0, 2.0], (30, 4)),
        rng.uniform(-1e3, 1e3, (30, 4)),
    ]
    rows = jnp.asarray(np.arange(30) < 17, jnp.float32)

    def total(cost):
        matrix = plan_of(cost, solver="pallas", row_mass=rows).matrix
        return (matrix[..., 0] @ jnp.arange(30.0)).sum(), matrix

    gradient, matrix = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(costs, jnp.float32))
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(matrix.sum(-1), np.tile(rows, (4, 1)), atol=1e-5)
    np.testing.assert_allclose(matrix[0, :17], 0.25, atol=1e-6)


def test_problems_too_large_for_registers_are_left_to_the_other_solver(monkeypatch):
    monkeypatch.setattr(fused, "LARGEST", 1023)
    cost = jnp.asarray(clustered_cost(0, 64, 7), jnp.float32)
    g = fused.fused_potentials(-cost, jnp.ones(64), jnp.full(7, 64 / 7), 20)
    other = fused.scaled_potentials(-cost, jnp.ones(64), jnp.full(7, 64 / 7), 20)
    np.testing.assert_array_equal(g, other)


@pytest.mark.parametrize(("differentiated", "launches"), [(False, 1), (True, 2)])
def test_is_one_launch_on_a_gpu(differentiated, launches):
    """Lowered here for CUDA: every problem, every iteration, no loop left to the host program."""

    def total(cost):
        return (plan_of(cost, solver="pallas").matrix ** 2).sum()

    function = jax.jit(jax.grad(total) if differentiated else total)
    cost = jax.ShapeDtypeStruct((2, 24, 256, 10), jnp.float32)
    gpu = AbstractMesh((1,), ("gpu",), abstract_device=AbstractDevice("NVIDIA H100", 132, "gpu"))
    with use_abstract_mesh(gpu):
        text = function.trace(cost).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call @__gpu$xla.gpu.triton") == launches
    assert "stablehlo.while" not in text
