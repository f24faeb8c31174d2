"""The runner: what defines a job, what comes of it, and that a killed sweep goes on."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from harness import runner
from harness.arrays import pack, unpack
from harness.bootstrap import figures_of, plain_figures
from harness.evaluation import evaluation_of
from harness.jobs import Job, describe, grid, identity, name_of, open_job
from pirn_jax.cluster import Cluster
from pirn_jax.config import Config, with_settings
from pirn_jax.detector import PIRN
from pirn_jax.errors import BadInputError, ConfigError

SMALL = {"epochs": 2, "decoder.layers": 1, "decoder.iterations": 5}
CONFIG = with_settings(
    Config(encoder="pirn-tiny", image_size=70, recipe="paper", geometry="grid"), SMALL
)
DATA = (("size", 96), ("test", 8), ("train", 4))
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Tokens are kept; the compiler's cache stays as the suite has it."""
    before = jax.config.jax_compilation_cache_dir
    yield str(tmp_path_factory.mktemp("cache"))
    jax.config.update("jax_compilation_cache_dir", before)


def flipped(scan, times):
    """Every picture turned upside down so often."""
    turn = times % 2 == 1
    arrays = {
        name: getattr(scan, name)[::-1].copy()
        for name in ("rgb", "xyz", "valid", "mask")
        if turn and getattr(scan, name) is not None
    }
    return scan._replace(**arrays)


SHIFTS = {"none": None, "flipped": functools.partial(flipped, times=1)}


@pytest.fixture(scope="module")
def jobs():
    return grid([CONFIG], ["biscuit"], shots=[2], draws=range(2), shifts=SHIFTS, options=DATA)


@pytest.fixture(scope="module")
def swept(jobs, cache, tmp_path_factory):
    """The folder and results of a sweep that was stopped after one job and begun again."""
    folder = tmp_path_factory.mktemp("sweep")
    lines, trained = [], []

    def stop(line):
        lines.append(line)
        if line.startswith("[1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(jobs, folder, cache=cache, say=stop)
    done = sorted((folder / "jobs").glob("*.json"))
    assert len(done) == 1
    first = done[0].read_bytes()

    fit = runner.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "fit", lambda own, shots: trained.append(len(own)) or fit(own, shots))
        results = runner.run(jobs, folder, cache=cache, say=lines.append)
    assert done[0].read_bytes() == first, "a finished job is left alone"
    return folder, results, lines, trained


def test_a_stopped_sweep_goes_on_and_loses_no_job(swept, jobs):
    folder, results, lines, trained = swept
    assert [result.job for result in results] == jobs
    assert len(list((folder / "jobs").glob("*.json"))) == len(jobs) == 4
    assert trained == [2], "two models in one call, each judged with and without the shift"
    assert any("1 done, 3 to do" in line for line in lines)
    assert sum(" left] " in line for line in lines) == 4


def test_a_finished_sweep_trains_nothing(swept, jobs, cache, monkeypatch):
    monkeypatch.setattr(runner, "fit", lambda *_: pytest.fail("trained again"))
    again = runner.run(jobs, swept[0], cache=cache, say=lambda line: None)
    assert [r.figures for r in again] == [r.figures for r in swept[1]]


@pytest.mark.slow
def test_a_damaged_result_is_made_again(swept, jobs, cache):
    folder, results, _, _ = swept
    path = folder / "jobs" / f"{name_of(jobs[0])}.json"
    path.write_bytes(path.read_bytes()[:100])
    (again,) = runner.run(jobs[:1], folder, cache=cache, say=lambda line: None)
    # Trained alone: on two devices its scans are spread, not the jobs, and sums round differently.
    assert again.figures == pytest.approx(results[0].figures, abs=1e-5)


@pytest.mark.slow
def test_figures_are_those_of_the_detector_itself(swept, jobs):
    """From pictures instead of cached tokens, through fit and evaluate."""
    job, result = jobs[0], swept[1][0]
    data, _, _ = open_job(job)
    from pirn_jax.scans import choose_shots

    keys = choose_shots(data.train.keys, 2, 0, "synthetic", "biscuit")
    model = PIRN(job.config).fit(data.train.select(keys))
    expected = model.evaluate(data.test)
    assert result.figures == pytest.approx(
        {name: expected[name] for name in result.figures}, abs=2e-4
    )
    assert set(result.document["modalities"]) == {"rgb", "normals"}
    assert "aupro_0.3" in result.document["cfm99"]


def test_what_is_kept_gives_the_figures_again(swept):
    """The bootstrap's own computation, on no resampling at all."""
    for result in swept[1]:
        evaluation, bad = evaluation_of(result.document)
        found = plain_figures(evaluation, bad)
        for name in ("i_auroc", "p_auroc", "aupro_0.3"):
            assert found[name] == pytest.approx(result.figures[name], abs=2e-3)
        twice = figures_of(evaluation, bad, np.full((1, len(bad)), 2))
        assert twice["aupro_0.3"][0] == pytest.approx(found["aupro_0.3"], abs=1e-9)


def test_a_shift_changes_pictures_and_truth_alike(swept):
    plain, shifted = swept[1][:2]
    assert shifted.job.shift == "flipped"
    assert plain.document["images"]["key"] == shifted.document["images"]["key"]
    assert plain.document["images"]["score"] != shifted.document["images"]["score"]


def test_what_defines_a_job_names_it():
    job = Job(CONFIG, "biscuit", options=DATA)
    same = [
        dataclasses.replace(job, tags={"row": "mine"}),
        dataclasses.replace(job, config=with_settings(CONFIG, {"decoder.context": "ot"})),
        dataclasses.replace(job, config=dataclasses.replace(CONFIG, background="plane")),
    ]
    other = [
        dataclasses.replace(job, draw=1),
        dataclasses.replace(job, config=dataclasses.replace(CONFIG, seed=1)),
        dataclasses.replace(job, config=with_settings(CONFIG, {"epochs": 3})),
        dataclasses.replace(job, config=dataclasses.replace(CONFIG, modalities=("rgb",))),
        dataclasses.replace(job, shots=2),
        dataclasses.replace(job, options=(("size", 96), ("test", 9))),
        dataclasses.replace(job, shift="flipped", transform=SHIFTS["flipped"]),
        dataclasses.replace(job, shift="flipped", transform=functools.partial(flipped, times=3)),
    ]
    assert {name_of(one) for one in same} == {name_of(job)}
    assert len({name_of(one) for one in (job, *other)}) == 1 + len(other)
    assert "/" not in json.dumps(identity(job)), "no path"


def test_a_dry_run_does_nothing(tmp_path, cache):
    lines = []
    jobs = grid([CONFIG], ["biscuit"], options=DATA)
    assert runner.run(jobs, tmp_path, cache=cache, dry=True, say=lines.append) == []
    assert "1 to do" in lines[0]
    assert "about" in lines[0]
    assert not (tmp_path / "jobs").exists()


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="no jobs"):
        runner.run([], tmp_path)
    with pytest.raises(ConfigError, match="transform"):
        Job(CONFIG, "biscuit", shift="dark")


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_arrays_survive_json(dtype):
    array = np.random.default_rng(0).integers(0, 2, (3, 0, 5) if dtype == "bool" else (3, 4))
    array = array.astype(dtype)
    again = unpack(json.loads(json.dumps(pack(array))))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    "change", [{"dtype": "object"}, {"shape": [10**9]}, {"zlib": "AAAA"}, {"shape": [-1]}]
)
def test_arrays_that_lie_are_refused(change):
    with pytest.raises(BadInputError, match="packed array"):
        unpack(pack(np.zeros(4, np.float32)) | change)


@pytest.mark.slow
def test_a_sweep_killed_ten_times_loses_no_job(tmp_path):
    """SIGKILL at some moment of each run; what is there can always be read, and all gets there."""
    script = tmp_path / "sweep.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tests.experiments.harness.test_runner import CONFIG, DATA\n"
        "from harness.runner import grid, run\n"
        "jobs = grid([CONFIG], ['biscuit', 'rope'], shots=[2], draws=range(2), options=DATA)\n"
        f"run(jobs, Path({str(tmp_path / 'out')!r}), cache={str(tmp_path / 'cache')!r})\n"
    )
    random, kills = np.random.default_rng(0), 0
    places = [str(ROOT), str(ROOT / "experiments"), os.environ.get("PYTHONPATH", "")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    for _ in range(60):
        process = subprocess.Popen(
            [sys.executable, str(script)], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + (random.uniform(2, 10) if kills < 10 else 600)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        finished = process.poll() is not None
        if not finished:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        for path in (tmp_path / "out").glob("jobs/*.json"):
            assert json.loads(path.read_text())["format"] == runner.FORMAT
        if finished:
            assert process.returncode == 0
            break
    assert kills
    assert len(list((tmp_path / "out" / "jobs").glob("*.json"))) == 4


def test_workers_of_a_cluster_give_the_same_results(jobs, swept, cache, tmp_path):
    """Through one that does its tasks here; a result that is there is not made again."""

    class InThisProcess(Cluster):
        def __init__(self):
            self.slots, self.gpus, self.given = 2, 0, []

        def map(self, steps, shared, tasks):
            for task in tasks:
                self.given += [describe(job) for tests in task for job in tests]
                yield steps.write(shared, steps.judge(shared, steps.read(shared, task)))

    lines, cluster = [], InThisProcess()
    found = runner.run(jobs, tmp_path, cache=cache, cluster=cluster, say=lines.append)
    assert sorted(cluster.given) == sorted(map(describe, jobs))
    assert {line.split("]")[0] for line in lines if line.startswith("[")} == {"[4/4"}
    local = runner.run(jobs, swept[0], cache=cache, say=lines.append)
    assert [one.figures for one in found] == [one.figures for one in local]
    next((tmp_path / "jobs").glob("*.json")).unlink()
    again = InThisProcess()
    assert runner.run(jobs, tmp_path, cache=cache, cluster=again, say=lines.append)
    assert len(again.given) == 1


def test_a_cluster_is_given_every_job_once(jobs, tmp_path, monkeypatch):
    """Through a stand-in for submitit that runs nothing."""
    from types import SimpleNamespace

    from harness import slurm

    given = {}

    class AutoExecutor:
        def __init__(self, folder):
            given["folder"] = folder

        def update_parameters(self, **parameters):
            given.update(parameters)

        def map_array(self, function, *arguments):
            assert function is slurm.work
            return list(zip(*arguments, strict=True))

    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=AutoExecutor))
    configs = [CONFIG, dataclasses.replace(CONFIG, modalities=("rgb",))]
    whole = [*jobs, *grid(configs[1:], ["biscuit"], shots=[2], draws=range(2), options=DATA)]
    parts = slurm.submit(whole, tmp_path, parts=3, timeout_min=5)
    assert given == {"folder": str(tmp_path / "slurm"), "timeout_min": 5}
    # Workers unpickle `harness.slurm.work` by its name, and so must find it.
    found = os.environ["PYTHONPATH"].split(os.pathsep)
    assert found == [str(ROOT / "experiments"), "mine"]
    name = f"{slurm.work.__module__}.{slurm.work.__qualname__}"
    subprocess.run(
        [sys.executable, "-c", "import pkgutil, sys; pkgutil.resolve_name(sys.argv[1])", name],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*found, str(ROOT)])},
    )
    assert sorted(describe(job) for part, _, _ in parts for job in part) == sorted(
        describe(job) for job in whole
    )
    assert all(len({job.config.modalities for job in part}) <= 1 for part, _, _ in parts)
    with pytest.raises(ConfigError, match="parts"):
        slurm.split(whole, 0)
