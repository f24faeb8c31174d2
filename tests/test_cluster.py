"""Where work is done; and, with Ray, that tasks are done once, in order, whatever is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pirn_jax.cluster import Where
from pirn_jax.errors import ConfigError, MissingDependencyError

ROOT = Path(__file__).resolve().parents[1]


def test_flags_that_contradict_are_refused():
    for flags in ({"address": "auto"}, {"cores": 2}):
        with pytest.raises(ConfigError, match="--on ray"):
            Where(**flags)
    with pytest.raises(ConfigError, match="cores"):
        Where(on="ray", cores=0)
    with Where().cluster() as cluster:
        assert cluster is None


def test_without_ray_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pirn-jax\[ray\]"),
        Where(on="ray").cluster(),
    ):
        pass


WORK = """
import sys
import ray
from pirn_jax.cluster import Steps, Where
from pirn_jax.errors import BadInputError
from tests import ray_tasks as tasks

ray.init(address="local", num_cpus=2, num_gpus=int(sys.argv[1]), include_dashboard=False)
out = sys.stdout
with Where(on="ray").cluster() as cluster:
    steps = Steps(tasks.whole, tasks.read, tasks.judge, tasks.write)
    found = []
    for value, pid in cluster.map(steps, 10, range(40)):
        if value in (12, 25):
            tasks.kill(pid)
        found.append(value)
    assert found == list(range(10, 50)), found
    executor = cluster.executor(tasks.start, (5,))
    futures = [executor.submit(tasks.add, number) for number in range(20)]
    assert [future.result() for future in futures] == list(range(5, 25))
    for run in (lambda: list(cluster.map(steps, 0, ["bad"])), executor.submit(tasks.fails).result):
        try:
            run()
        except BadInputError as error:
            assert error.remedy == "mend it" and "ray" not in str(error).lower(), str(error)
        else:
            raise AssertionError
    out.write("done\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 1])  # Ray counts a GPU that is none; JAX is told of CPUs alone
def test_tasks_are_done_once_and_in_order_whatever_is_killed(gpus):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(gpus)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done\n")  # what Ray says of those killed is on stderr
