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
from pirn_jax import cluster as module
from pirn_jax.cluster import Steps, Where
from pirn_jax.errors import BadInputError, MachineError
from tests import ray_tasks as tasks

module.RETRIES = 2
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
    for name in ("deadly", "deadly on a GPU")[: 1 + cluster.gpus]:
        try:
            list(cluster.map(steps, "", [name]))
        except MachineError as error:
            assert f"workers died 3 times at one task ({name})" in str(error), str(error)
        else:
            raise AssertionError
    try:
        executor.submit(tasks.whole, "", "deadly").result()
    except MachineError as error:
        assert "workers died 3 times" in str(error), str(error)
    else:
        raise AssertionError
    out.write("done\\n")
"""


LOST = """
import sys
import ray
from ray.cluster_utils import Cluster
from pirn_jax.cluster import Steps, Where
from tests import ray_tasks as tasks

machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
both = [machines.add_node(num_cpus=0, num_gpus=1) for _ in range(2)]
ray.init(address=machines.address)
other = ray.remote(num_cpus=0, num_gpus=1)(tasks.Holder).remote()
held = ray.get(other.where.remote())
(ours,) = [one for one in both if one.node_id != held]
out = sys.stdout
with Where(on="ray").cluster() as cluster:
    assert cluster.gpus == 2
    steps = Steps(tasks.whole, tasks.read, tasks.judge, tasks.write)
    found, pids = [], set()
    for value, pid in cluster.map(steps, 0, range(40)):
        found.append(value)
        pids.add(pid)
        if value == 5:
            ray.kill(other)
        if value == 20:
            machines.remove_node(ours, allow_graceful=False)
    assert found == list(range(40)), found
    assert len(pids) == 2, pids
    out.write("done\\n")
ray.shutdown()  # else Ray ends machines that are gone, and with them this process
machines.shutdown()
"""


def ends_well(code, *arguments):
    pytest.importorskip("ray")
    own = {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | own,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done\n")  # what Ray says of those killed is on stderr


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, 1])  # Ray counts a GPU that is none; JAX is told of CPUs alone
def test_tasks_are_done_once_and_in_order_whatever_is_killed(gpus):
    ends_well(WORK, str(gpus))


@pytest.mark.slow
def test_a_gpu_that_is_anothers_joins_later_and_one_that_is_lost_is_not_waited_for():
    ends_well(LOST)
