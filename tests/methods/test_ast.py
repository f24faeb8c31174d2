"""AST's losses and student; its flow is in `test_flow.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.methods.ast import Grids, StudentLoss, TeacherLoss
from pirn_jax.methods.ast_network import create_student, create_teacher, study, teach

GRID, P, C, WIDTH = (3, 2), 4, 4, 5
GRIDS = Grids(GRID, P)


def problem():
    random = np.random.default_rng(0)
    values = random.standard_normal((2, 3, 6, C // 2)).astype(np.float32)
    counted = (random.random((3, 6)) < 0.7).astype(np.float32)
    x, where = GRIDS.of(jnp.asarray(values), jnp.asarray(counted))
    teacher = jax.tree.map(lambda leaf: leaf + 0.1, create_teacher(C, P, jax.random.key(1)))
    return values, counted, x, where, teacher, create_student(C, P, WIDTH, jax.random.key(2))


def test_modalities_lie_side_by_side_and_the_background_is_zero():
    values, counted, x, where, _, _ = problem()
    assert x.shape == (3, *GRID, C)
    np.testing.assert_array_equal(x[1, 2, 0], values[:, 1, 4].ravel() * counted[1, 4])
    np.testing.assert_array_equal(where[1, 2, 0], counted[1, 4])


def test_losses_are_means_over_what_counts():
    _, _, x, where, teacher, student = problem()
    batch = {"x": x, "where": where}
    z, log_determinant = (np.asarray(a, np.float64) for a in teach(teacher, x, GRIDS.position))
    counts = np.asarray(where) > 0
    half_square = 0.5 * (z**2).sum(-1) + 0.5 * C * np.log(2 * np.pi)
    expected = ((half_square - log_determinant) / C)[counts].mean()
    found = jax.jit(TeacherLoss(GRIDS, 1e-3).__call__)(teacher, {}, batch, jax.random.key(0))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    missed = ((np.asarray(study(student, x, GRIDS.position)[0]) - z) ** 2).mean(-1)
    found = jax.jit(StudentLoss(GRIDS, 1e-3).__call__)(student, teacher, batch, jax.random.key(0))
    assert float(found) == pytest.approx(missed[counts].mean(), rel=1e-4)


@pytest.mark.torch
def test_the_student_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    _, _, x, _, _, ours = problem()
    ours = jax.tree.map(np.asarray, ours)

    def convolution(layer):
        kernel = torch.tensor(layer["kernel"])
        inputs, outputs = len(kernel) // 9, kernel.shape[1]
        made = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        made.weight.data = kernel.reshape(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        made.bias.data = torch.tensor(layer["bias"])
        return made

    act = torch.nn.LeakyReLU()
    position = np.broadcast_to(GRIDS.position, (3, *GRID, P))
    y = torch.tensor(np.concatenate([x, position], -1)).permute(0, 3, 1, 2)
    with torch.no_grad():
        y = act(convolution(ours["enter"])(y))
        for k in range(4):
            block, inside = ours[f"block{k}"], y
            for n in (1, 2):
                norm = torch.nn.BatchNorm2d(WIDTH)  # in training: the batch's moments
                inside = act(norm(convolution(block[f"conv{n}"])(inside)))
            y = y + inside
        y = convolution(ours["leave"])(y).permute(0, 2, 3, 1)
    found, used = jax.jit(study)(ours, x, GRIDS.position)
    np.testing.assert_allclose(found, y, atol=1e-4)
    # By moments that are kept, an image alone is what it was among the others.
    alone, _ = jax.jit(study)(ours, x[:1], GRIDS.position, used)
    np.testing.assert_allclose(alone[0], found[0], atol=1e-4)
