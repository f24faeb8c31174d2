"""The loss against PyTorch's own functions, and where it must vanish."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distil.loss import Statistics, distillation_loss


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    teacher = rng.normal(1.0, 2.0, (3, 7, 5)).astype(np.float32)
    predicted = rng.normal(0.0, 0.7, (3, 7, 5)).astype(np.float32)
    mean = rng.normal(1.0, 0.3, 5).astype(np.float32)
    deviation = rng.uniform(0.5, 3.0, 5).astype(np.float32)
    return predicted, teacher, Statistics(mean, deviation)


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradient_are_those_of_torch(seed):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    predicted, teacher, statistics = problem(seed)
    p = torch.tensor(predicted, dtype=torch.float64, requires_grad=True)
    t, mean, deviation = (torch.tensor(x, dtype=torch.float64) for x in (teacher, *statistics))
    point = functional.smooth_l1_loss(p, (t - mean) / deviation, beta=0.5)
    direction = 1 - functional.cosine_similarity(p * deviation, t - mean, dim=-1).mean()
    matrices = []
    for tokens in (p * deviation, t - mean):
        rows = []
        for picture in tokens:
            x = picture - picture.mean(0)
            rows.append(
                torch.stack([functional.cosine_similarity(x, x[i][None], dim=-1) for i in range(7)])
            )
        matrices.append(torch.stack(rows))
    relation = functional.mse_loss(*matrices)
    total = point + 1.5 * direction + 3.0 * relation
    total.backward()

    def ours(x):
        found = distillation_loss(
            x, jnp.asarray(teacher), statistics, direction_weight=1.5, relation_weight=3.0
        )
        return found.total, found

    gradient, found = jax.jit(jax.grad(ours, has_aux=True))(jnp.asarray(predicted))
    expected = [float(x.detach()) for x in (total, point, direction, relation)]
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, p.grad.numpy(), atol=1e-6)


def test_the_teacher_itself_has_no_loss_and_constant_pictures_a_finite_gradient():
    _, teacher, statistics = problem()
    perfect = (teacher - statistics.mean) / statistics.deviation
    found = jax.jit(distillation_loss)(jnp.asarray(perfect), jnp.asarray(teacher), statistics)
    np.testing.assert_allclose(np.array(found), 0, atol=1e-6)

    def of_zeros(x):
        same = jnp.broadcast_to(jnp.asarray(statistics.mean)[None, None], x.shape)
        return distillation_loss(x, same, statistics).total

    assert np.isfinite(jax.jit(jax.grad(of_zeros))(jnp.zeros((3, 7, 5)))).all()
