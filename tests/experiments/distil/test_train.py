"""Training: it learns, goes on after a kill, and is the same on one device and two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from distil import command
from distil.augmentation import augmented
from distil.loss import Statistics
from distil.program import Comparison, Program
from distil.schedule import Schedule
from distil.student import slice_teacher
from distil.train import distil
from distil.validation import figures
from pirn_jax.errors import ConfigError
from pirn_jax.training.compilation import use_compilation_cache
from tests.experiments.distil.problems import (
    RECIPE,
    library,
    png,
    recipe,
    some_pictures,
    teacher,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="module")
def compiled_once(tmp_path_factory):
    """Tests share their compiled programs, with the processes they start too."""
    before = jax.config.jax_compilation_cache_dir
    folder = use_compilation_cache(tmp_path_factory.mktemp("programs"))
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)


def a_program(own=RECIPE, devices: int | None = None):
    large = teacher()
    network = own.network(large)
    program = Program(network, large, own.optimization(), own.batch, own.seed, devices)
    crops = some_pictures(own.batch)
    statistics = program.statistics([crops, crops[::-1]])
    state = program.initial(slice_teacher(network, large, own.seed), statistics)
    return program, program.place(state), crops


@pytest.mark.slow
def test_the_statistics_are_those_of_the_teachers_tokens():
    _, state, crops = a_program()
    large, augment, tokens = teacher(), jax.jit(augmented), []
    for number, batch in enumerate([crops, crops[::-1]]):
        key = jax.random.fold_in(jax.random.key(RECIPE.seed), np.uint32(2**32 - 1 - number))
        tokens.append(np.asarray(large(augment(key, np.asarray(batch))), np.float64))
    tokens = np.stack(tokens).reshape(-1, large.channels)
    np.testing.assert_allclose(state.statistics["mean"], tokens.mean(0), atol=1e-5)
    np.testing.assert_allclose(state.statistics["deviation"], tokens.std(0), rtol=1e-3)


@pytest.mark.slow
def test_it_overfits_one_batch():
    program, state, crops = a_program(recipe(student="32x3x4", weight_decay=0.0))
    images = crops.astype(np.float32) / 255
    before = program.compare(state, crops)
    losses = []
    for step in range(400):
        state, found = program.update(state, images, 3e-3 * (1 - step / 400))
        losses.append(float(found.total))
    after = program.compare(state, crops)
    assert losses[-1] < losses[0] / 20, (losses[0], losses[-1])
    assert after.cosine.mean() > 0.95 > 0.5 > before.cosine.mean()


@pytest.mark.slow
def test_two_devices_take_the_same_steps_as_one():
    assert jax.local_device_count() >= 2
    ends, losses = [], []
    for devices in (1, 2):
        program, state, crops = a_program(devices=devices)
        for number in range(3):
            state, found = program.step(state, crops, number, 1e-3)
            losses.append(np.array(found))
            if number == 0:
                ends.append(program.fetch(state))
        spread = {leaf.sharding.num_devices for leaf in jax.tree.leaves(state.parameters)}
        assert spread == {devices}
    np.testing.assert_allclose(losses[:3], losses[3:], atol=1e-5)
    one, two = ends
    for path, value in one.parameters.items():
        moment = one.optimizer[1].mu[path]
        np.testing.assert_allclose(moment, two.optimizer[1].mu[path], atol=1e-6, err_msg=path)
        # Adam divides by the gradient's size: one that is rounding alone, as that of the keys'
        # bias is, moves its parameter as far as any.
        same = np.isclose(value, two.parameters[path], rtol=0, atol=1e-5)
        assert same[np.abs(moment) > 1e-5].all(), path
        assert same.mean() > 0.6, path
    with pytest.raises(ConfigError, match="cut among 2"):
        a_program(recipe(batch=7), devices=2)


@pytest.mark.slow
def test_killed_between_checkpoints_it_ends_as_if_it_had_not_been(tmp_path, compiled_once):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'experiments'}"}
    environment["XLA_FLAGS"] = ""
    steps = 14

    def start(name: str, save_seconds: float) -> subprocess.Popen:
        run = [sys.executable, "-m", "tests.experiments.distil.resumable"]
        files = [str(compiled_once), str(tmp_path / name), str(tmp_path / f"{name}.npz")]
        files += [str(steps), str(save_seconds)]
        return subprocess.Popen(
            run + files, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )

    whole = start("whole", 3600)
    assert len(whole.communicate()[0].split()) == steps
    assert whole.returncode == 0
    killed = start("killed", 0)
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) == 6:
            killed.kill()
            break
    killed.communicate()
    assert not (tmp_path / "killed.npz").exists()
    kept = [int(path.name) for path in (tmp_path / "killed").iterdir() if path.name.isdigit()]
    assert kept
    assert 0 < max(kept) < steps
    # No further checkpoint until the end: what was done after the last one is done again.
    again = start("killed", 3600)
    counted = again.communicate()[0].split()
    assert again.returncode == 0
    assert len(counted) == steps - max(kept)
    first, second = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "killed"))
    assert sorted(first.files) == sorted(second.files)
    for name in first.files:
        np.testing.assert_allclose(first[name], second[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_checkpoints_of_another_run_are_refused(tmp_path):
    def go(own=RECIPE, **options):
        schedule = Schedule(steps=1)
        sources = {"even": 1, "odd": 1}
        return distil(own, schedule, teacher(), library(), sources, tmp_path, **options)

    go()
    with pytest.raises(ConfigError, match="earlier run"):
        go()
    with pytest.raises(ConfigError, match="another run"):
        go(recipe(relation_weight=1.0), resume=True)


@pytest.mark.slow
def test_the_clock_ends_a_run_and_so_does_a_request(tmp_path):
    schedule, sources = Schedule(minutes=1e-6), {"even": 1, "odd": 1}
    result = distil(RECIPE, schedule, teacher(), library(), sources, tmp_path / "a")
    assert result.steps == 0
    answers = iter([False, False, True])
    schedule = Schedule(minutes=60)
    result = distil(
        RECIPE,
        schedule,
        teacher(),
        library(),
        sources,
        tmp_path / "b",
        stop=lambda: next(answers),
    )
    assert result.steps == 2
    assert result.history[-1]["step"] == 2


def test_the_rate_rises_and_falls():
    schedule = Schedule(steps=1000, peak=2.0, warm_up=0.1)
    rates = [schedule.rate(step, schedule.share(step, 0.0)) for step in range(1000)]
    assert np.argmax(rates) == 100
    assert rates[100] == pytest.approx(2.0)
    assert rates[0] < 0.05
    assert rates[550] == pytest.approx(1.0)
    assert rates[-1] < 1e-4
    clock = Schedule(minutes=2, peak=2.0, warm_up=0.1)
    assert clock.share(7, 60.0) == 0.5
    assert clock.rate(24, 0.1) == pytest.approx(1.0)  # gently, where steps are few
    for wrong in ({}, {"minutes": 1, "steps": 1}, {"steps": 0}, {"steps": 1, "peak": -1.0}):
        with pytest.raises(ConfigError, match="minutes"):
            Schedule(**wrong)


def test_figures_are_those_of_all_tokens_together():
    rng = np.random.default_rng(0)
    wanted = rng.normal(0.4, 1.0, (5, 6, 3))
    given = wanted + 0.3 * rng.normal(size=wanted.shape)
    cosines = (wanted * given).sum(-1) / np.linalg.norm(wanted, axis=-1)
    cosines = (cosines / np.linalg.norm(given, axis=-1)).mean(1)
    error, squares = np.square(given - wanted).sum((1, 2)), np.square(wanted).sum((1, 2))
    found = Comparison(cosines, cosines, error, squares, wanted.sum(1))
    results = figures(found, 6, np.array([0, 0, 1, 1, 1]), ["a", "b"])
    for name, chosen in (("all", slice(None)), ("a", slice(2)), ("b", slice(2, 5))):
        t, s = wanted[chosen].reshape(-1, 3), given[chosen].reshape(-1, 3)
        r2 = 1 - np.square(s - t).sum() / np.square(t - t.mean(0)).sum()
        assert results[name]["r2"] == pytest.approx(r2)
        assert results[name]["pictures"] == len(wanted[chosen])


@pytest.mark.slow
def test_augmented_pictures_are_colours_and_differ_by_key():
    crops = some_pictures(40)
    augment = jax.jit(augmented)
    first, again, other = (np.asarray(augment(jax.random.key(seed), crops)) for seed in (0, 0, 1))
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).mean((1, 2, 3)) > 1e-3).mean() > 0.9
    assert (first[36:].std((1, 2)) > 0).any(axis=1).all()  # procedural, none of them empty


@pytest.mark.slow
def test_the_command_writes_a_student_and_its_figures(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i, picture in enumerate(some_pictures(12)):
        (folder / f"{i}.png").write_bytes(png(picture))
    (folder / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr(command, "load_encoder", lambda *_, **__: teacher())
    options = command.Options(
        (folder,), tmp_path / "out", steps=2, threads=2, memory=1.0, recipe=RECIPE
    )
    command.main(options)
    said = capsys.readouterr().err
    assert "left out: 'photographs/bad.png'" in said
    written = json.loads((tmp_path / "out" / "student_16x3x2.json").read_text())
    assert written["steps"] == 2
    assert written["pictures"] == {"photographs": {"count": 12, "weight": 1}}
    assert written["left_out"] == 1
    assert written["held_out"]["after"]["all"]["pictures"] == 2
    assert written["bytes"] == (tmp_path / "out" / written["file"]).stat().st_size


def test_the_folder_is_a_command():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "experiments/distil", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "usage: python experiments/distil" in result.stdout
    assert "--minutes" in result.stdout


def test_statistics_are_folded_into_nothing_while_training():
    program, state, crops = a_program()
    mean, deviation = (np.array(state.statistics[key]) for key in ("mean", "deviation"))
    state, _ = program.step(state, crops, 0, 1e-3)
    kept = Statistics(**state.statistics)
    np.testing.assert_array_equal(kept.mean, mean)
    np.testing.assert_array_equal(kept.deviation, deviation)
