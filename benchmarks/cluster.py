"""Ray beside the plain commands: are the bytes the same, what does it cost, and what do kills do?

    python benchmarks/cluster.py [--scans 2000] [--size 128] [--workers 2 4] [--kills 10]
        [--jobs 24] [--folder FOLDER] [--parts tasks prepare predict kills sweep] [--json FILE]

Generated scans are written once as files, MVTec 3D-AD's way; a small model is trained on five of
them, and judges eight others, so that programs are compiled. `prepare` and `predict` are then run
plainly and on a local cluster of so many workers, on the same cores, each with a copy of the cache
that is left then; every file they write is compared byte by byte, records without `time` and the
names of their pictures' folder. Seconds are of the whole command, starting included; `start` is a
cluster's by itself. `tasks` is what a task costs that does nothing. Kills are SIGKILL to a worker
at work. The sweep's command is killed with its cluster after a third of its jobs, and given again;
its figures are compared with the local runner's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import environment, write

ROOT = Path(__file__).resolve().parents[1]
CATEGORY = "flange"


def generate(root: Path, scans: int, size: int) -> None:
    """Write the data set, unless it is there."""
    if (root / "done").is_file():
        return
    with ProcessPoolExecutor() as pool:
        parts = [range(start, min(start + 50, scans)) for start in range(0, scans, 50)]
        more = ([value] * len(parts) for value in (root, size, scans))
        list(pool.map(_generate_some, parts, *more))
    (root / "done").touch()


def _generate_some(numbers: range, root: Path, size: int, scans: int) -> None:
    import numpy as np
    import tifffile
    from PIL import Image

    from pirn_jax.scans import open_dataset

    data = open_dataset("synthetic", None, CATEGORY, size=size, train=10, test=scans)
    some = [("test", number, data.test[number]) for number in numbers]
    if not numbers.start:
        some += [("train", number, scan) for number, scan in enumerate(data.train)]
    for split, number, scan in some:
        assert scan.rgb is not None
        assert scan.mask is not None
        folder = root / CATEGORY / split / (scan.defect or "good")
        for role in ("rgb", "xyz", "gt"):
            (folder / role).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan.rgb).save(folder / "rgb" / f"{number:06}.png")
        tifffile.imwrite(folder / "xyz" / f"{number:06}.tiff", scan.xyz, photometric="rgb")
        if split == "test":
            mask = np.uint8(scan.mask > 0) * np.uint8(255)
            Image.fromarray(mask).save(folder / "gt" / f"{number:06}.png")


class Commands:
    """Commands on a data set.

    Args:
        folder: for their results, caches and errors.
        data: in it.
    """

    def __init__(self, folder: Path, data: str = "data"):
        self.run, self._folder, self._data = folder / "run", folder, folder / data

    def cache(self, out: str) -> Path:
        """Of the command that writes there."""
        return self._folder / "caches" / out

    def words(self, name: str, out: str, *more: str) -> list[str]:
        """A command's words."""
        where, data = str(self._folder / out), self._data
        given = {
            "train": ["--dataset", "mvtec3d", "--data-root", str(data), "--encoder",
                      "pirn-tiny", "--image-size", "56", "--out", where],
            "prepare": ["mvtec3d", str(data), "--out", where],
            "predict": [str(self.run), str(data / CATEGORY / "test"), "--out", where],
        }[name]  # fmt: skip
        return [sys.executable, "-m", f"pirn_jax.{name}", *given, *more]

    def start(self, name: str, out: str, *more: str) -> subprocess.Popen[bytes]:
        """Start one, its output thrown away but for errors."""
        shutil.rmtree(self._folder / out, ignore_errors=True)
        shutil.rmtree(self.cache(out), ignore_errors=True)
        if self.cache("warm").is_dir():
            shutil.copytree(self.cache("warm"), self.cache(out))
        own = {"PIRN_CACHE": str(self.cache(out)), "PYTHONPATH": str(ROOT)}
        with (self._folder / f"{out}.err").open("wb") as errors:
            return subprocess.Popen(
                self.words(name, out, *more),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | own,
                start_new_session=True,
            )

    def seconds(self, name: str, out: str, *more: str) -> float:
        """Run one to its end."""
        begun = time.perf_counter()
        code = self.start(name, out, *more).wait()
        if code not in (0, 2):
            raise SystemExit(f"{name}: {code}: {self.errors(out)}")
        return time.perf_counter() - begun

    def errors(self, out: str) -> str:
        """The last of what it said of errors."""
        return (self._folder / f"{out}.err").read_text()[-2000:]

    def files(self, out: str) -> dict[str, bytes | list[Any]]:
        """What it wrote, without what says when and where."""
        found: dict[str, bytes | list[Any]] = {}
        for path in sorted((self._folder / out).rglob("*")):
            if path.suffix == ".jsonl":
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                other = ("time", "heatmap", "mask")
                found[path.name] = [{k: v for k, v in x.items() if k not in other} for x in lines]
            elif path.is_file() and not path.name.startswith("."):
                found[str(path.relative_to(self._folder / out))] = path.read_bytes()
        return found


CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus={workers}, include_dashboard=False, log_to_driver=False)
print("at", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


class Holder(NamedTuple):
    """A cluster on this machine.

    Attributes:
        process: that started it, and with which it ends.
        flags: for commands that are to use it.
        seconds: until it answered.
    """

    process: int
    flags: tuple[str, ...]
    seconds: float


@contextlib.contextmanager
def cluster(workers: int, cache: Path) -> Iterator[Holder]:
    """A cluster of so many workers with this cache."""
    own = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "PYTHONPATH": str(ROOT),
        "PIRN_CACHE": str(cache),
    }
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        holder = subprocess.Popen(
            [sys.executable, "-c", CLUSTER.format(workers=workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | own,
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            said = next((line for line in holder.stdout if line.startswith("at ")), None)
            if said is None:
                errors.seek(0)
                raise SystemExit(f"no cluster: {errors.read()[-2000:]}")
            flags = ("--on", "ray", "--address", said.split()[1])
            yield Holder(holder.pid, flags, time.perf_counter() - begun)
        finally:
            holder.stdin.close()
            holder.wait()


def at_work(holder: int) -> list[int]:
    """Processes of workers that run a task now, of the cluster that a process holds."""
    parents, busy = {}, []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            number = int(place.name)
            parents[number] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if (place / "cmdline").read_bytes().startswith((b"ray::_one_step", b"ray::_started")):
                busy.append(number)

    def is_held(number: int) -> bool:
        while number and number != holder:
            number = parents.get(number, 0)
        return number == holder

    return [number for number in busy if is_held(number)]


def compare(commands: Commands, name: str, workers: int, plain: float) -> dict[str, Any]:
    """A command on a cluster beside the plain one, whose results lie under its name."""
    out = f"{name}-ray"
    with cluster(workers, commands.cache(out)) as held:
        ray = commands.seconds(name, out, *held.flags)
    mine, theirs = commands.files(name), commands.files(out)
    return {
        "command": name,
        "workers": workers,
        "files": len(mine),
        "different": sum(theirs.get(n) != mine.get(n) for n in mine.keys() | theirs.keys()),
        "seconds_plain": plain,
        "seconds_ray": ray,
        "seconds_cluster_start": held.seconds,
        "speed": plain / ray,
    }


def kill_workers(commands: Commands, name: str, kills: int, seconds: float) -> dict[str, Any]:
    """A command whose workers are killed, one after the other, while it runs."""
    chosen, done, out = random.Random(0), 0, f"{name}-killed"
    with cluster(2, commands.cache(out)) as held:
        process = commands.start(name, out, *held.flags)
        while process.poll() is None:
            time.sleep(seconds)
            if done < kills and (workers := at_work(held.process)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chosen.choice(workers), signal.SIGKILL)
                    done += 1
    if process.returncode not in (0, 2):
        raise SystemExit(f"{name}: {process.returncode}: {commands.errors(out)}")
    mine, theirs = commands.files(name), commands.files(out)
    return {
        "command": name,
        "kills": done,
        "exit_code": process.returncode,
        "different": sum(theirs.get(n) != mine.get(n) for n in mine.keys() | theirs.keys()),
    }


TASKS = """
import sys, time
from pirn_jax.cluster import Steps, Where
from pirn_jax.runs.spread import _hand_back as nothing
begun = time.perf_counter()
with Where(on="ray").cluster({workers}) as cluster:
    started = time.perf_counter()
    steps = Steps(nothing, nothing, nothing, nothing)
    assert list(cluster.map(steps, None, range(100))) == list(range(100))
    ready = time.perf_counter()
    list(cluster.map(steps, None, range({count})))
    done = time.perf_counter()
print(started - begun, ready - started, (done - ready) / {count})
"""


def empty_tasks(workers: int, count: int = 2000) -> dict[str, Any]:
    """What Ray takes to start, until its workers have loaded the package, and for each task."""
    code = TASKS.format(workers=workers, count=count)
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=paths, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    names = ("seconds_start", "seconds_until_ready", "seconds_a_task")
    return {"workers": workers, "tasks": count} | dict(zip(names, map(float, said), strict=True))


SWEEP = """
import json, sys
from pathlib import Path
from harness.runner import grid, run
from pirn_jax.cluster import Where
from pirn_jax.config import Config, with_settings
pirn = with_settings(Config(encoder="pirn-tiny", image_size=56, method="pirn"), {{"epochs": 6}})
configs = [Config(encoder="pirn-tiny", image_size=56), pirn]
same = {{"options": (("size", 112), ("test", 10), ("train", 10))}}
jobs = grid(configs, ["flange", "rope"], shots=[3], draws=range({draws}), **same)
with Where(on=sys.argv[1]).cluster({workers}) as cluster:
    results = run(jobs, Path(sys.argv[2]), cache=sys.argv[3], cluster=cluster)
print(json.dumps([[r.document["job"], r.figures] for r in results], sort_keys=True))
"""


def sweep(folder: Path, jobs: int) -> dict[str, Any]:
    """A sweep on a cluster, killed and given again, beside the local runner's."""
    script = folder / "sweep.py"
    code = SWEEP.format(draws=jobs // 4, workers=2)
    script.write_text(code)
    paths = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'experiments'}"}

    def start(on: str, out: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, str(script), on, str(folder / out), str(folder / "cache")]
        with (folder / f"{out}.err").open("ab") as errors:
            return subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=errors, env=paths,
                start_new_session=True,
            )  # fmt: skip

    def finish(process: subprocess.Popen[bytes], out: str) -> list[Any]:
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{out}: {process.returncode}: {Commands(folder).errors(out)}")
        return json.loads(said)

    for out in ("sweep", "sweep-ray"):
        shutil.rmtree(folder / out, ignore_errors=True)
        (folder / f"{out}.err").unlink(missing_ok=True)
    plain = finish(start("here", "sweep"), "sweep")
    first = start("ray", "sweep-ray")
    while first.poll() is None and len(list(folder.glob("sweep-ray/jobs/*.json"))) < jobs // 3:
        time.sleep(0.1)
    if first.poll() is not None:
        raise SystemExit(f"sweep-ray: ended unkilled: {Commands(folder).errors('sweep-ray')}")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = len(list(folder.glob("sweep-ray/jobs/*.json")))
    again = finish(start("ray", "sweep-ray"), "sweep-ray")
    figures = [
        abs(mine - theirs[1][name])
        for (_, own), theirs in zip(plain, again, strict=True)
        for name, mine in own.items()
    ]
    return {
        "jobs": len(plain),
        "done_when_killed": kept,
        "done_at_the_end": len(again),
        "figures": len(figures),
        "different": sum(one != 0 for one in figures),
        "largest_difference": max(figures),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kill-seconds", type=float, default=3.0)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "cluster")
    parts = ["tasks", "prepare", "predict", "kills", "sweep"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # for clusters and for who joins them
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    generate(folder / "data", given.scans, given.size)
    generate(folder / "few", 8, given.size)
    commands, rows = Commands(folder), []
    if not (commands.run / "metrics.json").is_file():
        commands.seconds("train", "run")
    if not commands.cache("warm").is_dir():
        Commands(folder, "few").seconds("predict", "warm")

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    if "tasks" in given.parts:
        tell(empty_tasks(given.workers[0]))
    plain = {}
    for name in ("prepare", "predict"):
        if name in given.parts or not (folder / name).is_dir():
            plain[name] = commands.seconds(name, name)
        if name in given.parts:
            for workers in given.workers:
                tell(compare(commands, name, workers, plain[name]))
    if "kills" in given.parts:
        for name in ("prepare", "predict"):
            tell(kill_workers(commands, name, given.kills, given.kill_seconds))
    if "sweep" in given.parts:
        tell(sweep(folder, given.jobs))
    if given.json is not None:
        about = {"scans": given.scans, "size": given.size}
        write(given.json, {"environment": environment(), **about, "rows": rows})


if __name__ == "__main__":
    main()
