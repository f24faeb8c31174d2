"""What the methods trained by descent promise in common, each with the smallest networks there are.

What only a whole detector can show (calibration, files) is in `test_methods.py`.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.methods.ast import Ast, AstSettings
from pirn_jax.methods.cflow import CFlow, CFlowSettings
from pirn_jax.methods.cfm import Cfm, CfmSettings
from pirn_jax.methods.descent import DescentSettings, passes
from pirn_jax.methods.simplenet import SimpleNet, SimpleNetSettings
from pirn_jax.training import TrainingJob

from .problems import CHANNELS, GRID, MODALITIES, distances, valid
from .problems import tokens as unrelated

SMALL = {"steps": 20, "batch_size": 16, "learning_rate": 1e-2}
LEARNERS = {
    "simplenet": SimpleNet(
        SimpleNetSettings(hidden=8, noise=1.0, **SMALL), MODALITIES, GRID, CHANNELS
    ),
    "cflow": CFlow(
        CFlowSettings(blocks=2, position_channels=4, **SMALL), MODALITIES, GRID, CHANNELS
    ),
    "cfm": Cfm(CfmSettings(**SMALL), MODALITIES, GRID, CHANNELS, (CHANNELS, CHANNELS)),
    "ast": Ast(
        AstSettings(width=6, position_channels=4, **SMALL | {"batch_size": 8}),
        MODALITIES, GRID, CHANNELS,
    ),
}  # fmt: skip


def tokens(seed: int, images: int) -> np.ndarray:
    """Of which the second modality follows from the first."""
    first = unrelated(seed, images)[0]
    turn = np.random.default_rng(8).standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
    return np.stack([first, np.tanh(first @ turn)])


def job() -> TrainingJob:
    return TrainingJob("job", Tokens(tokens(0, 5), valid(0, 5)), 0)


@pytest.fixture(scope="module", params=LEARNERS)
def learned(request):
    """A method, and what it made of five shots."""
    method = LEARNERS[request.param]
    (trained,) = method.learn([job()])
    return method, trained


def test_five_shots_are_learned_from(learned):
    """Every step is taken, although five are fewer than a published batch, and none is wasted."""
    method, trained = learned
    start = jax.tree.map(np.asarray, method._create(0))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, trained.parameters, start)
    assert all(jax.tree.leaves(moved))
    assert trained.history[-1]["step"] == method.descents * SMALL["steps"]
    for part in np.array_split(trained.history, method.descents):
        assert part[-1]["loss"] < part[0]["loss"]


def test_what_is_odd_is_further_away(learned):
    method, trained = learned
    new, counted = tokens(0, 3), np.ones((3, GRID[0] * GRID[1]), bool)
    # Of the other modality's kind: each by itself would be likely, but not where it is.
    odd = np.where(np.arange(16)[:, None] == 5, 4 * new[::-1], new)
    found = distances(method, trained, odd, counted)
    assert found.shape == (MODALITIES, 3, 16)
    assert (found >= 0).all()
    assert np.isfinite(found).all()
    assert found[..., 5].mean() > 1.2 * np.delete(found, [1, 4, 5, 6, 9], axis=-1).mean()


def test_each_image_is_judged_by_itself(learned):
    method, trained = learned
    new, counted = tokens(7, 4), valid(7, 4)
    together = distances(method, trained, new, counted)
    turned = distances(method, trained, new[:, ::-1], counted[::-1])
    np.testing.assert_allclose(turned[:, ::-1], together, rtol=1e-4, atol=1e-6)
    alone = distances(method, trained, new[:, 2:3], counted[2:3])
    np.testing.assert_allclose(alone[:, 0], together[:, 2], rtol=1e-4, atol=1e-6)


def test_shapes_are_known_before_anything_is_learned(learned):
    method, trained = learned
    found = (trained.parameters, trained.statistics)

    def shape_of(leaf):
        return leaf.shape, leaf.dtype

    assert jax.tree.map(shape_of, method.abstract_params()) == jax.tree.map(shape_of, found)


def test_what_a_job_becomes_depends_on_itself_alone(learned):
    method, trained = learned
    shots = job()
    told = []
    other = shots._replace(name="other", seed=1)
    both = method.learn([other, shots], progress=lambda *given: told.append(given))
    jax.tree.map(np.testing.assert_array_equal, both[1].parameters, trained.parameters)
    jax.tree.map(np.testing.assert_array_equal, both[1].statistics, trained.statistics)
    differs = jax.tree.map(lambda a, b: (a != b).any(), both[0].parameters, trained.parameters)
    assert any(jax.tree.leaves(differs))
    lines = 2 * len(trained.history)
    assert [(done, whole) for done, whole, _ in told] == [(n + 1, lines) for n in range(lines)]
    assert told[-1][2] == {shots.name: trained.history[-1]}


def test_background_teaches_nothing(learned):
    method, trained = learned
    shots = job()
    seen = shots.shots.valid
    changed = np.where(seen[None, :, :, None], shots.shots.values, 9.0).astype(np.float32)
    (again,) = method.learn([shots._replace(shots=Tokens(changed, seen))])
    jax.tree.map(np.testing.assert_array_equal, again.parameters, trained.parameters)
    nothing = shots._replace(shots=Tokens(changed, np.zeros_like(seen)))
    with pytest.raises(BadInputError, match="no token of the shots"):
        method.learn([nothing])


def test_a_loss_that_is_not_finite_ends_it():
    method = LEARNERS["cfm"]
    shots = job()
    shots = shots._replace(shots=select_scans(shots.shots, np.arange(5)))
    shots.shots.values[0, 0, shots.shots.valid[0]] = np.nan
    with pytest.raises(PirnError, match="loss up to step 2"):
        method.learn([shots])


def test_passes_meet_every_item_equally_often():
    found = passes(3, 5, 23)
    assert len(found) == 23
    for one in found[:20].reshape(4, 5):
        assert sorted(one) == [0, 1, 2, 3, 4]
    assert len(set(found[20:])) == 3
    assert not np.array_equal(found[:5], found[5:10])
    assert np.array_equal(found, passes(3, 5, 23))
    assert not np.array_equal(found, passes(4, 5, 23))


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (DescentSettings, {"steps": 0}),
        (DescentSettings, {"batch_size": 0}),
        (DescentSettings, {"learning_rate": 0.0}),
        (SimpleNetSettings, {"noise": 0.0}),
        (SimpleNetSettings, {"hidden": 0}),
        (CFlowSettings, {"blocks": 0}),
        (CFlowSettings, {"position_channels": 6}),
        (AstSettings, {"width": 0}),
        (AstSettings, {"position_channels": 2}),
    ],
)
def test_bad_values_are_refused(settings, change):
    if settings is DescentSettings:
        settings = CfmSettings
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(settings(), **change)
