"""Running a command as a user would: another process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLIM = ROOT / "tests" / "e2e" / "slim"
"""On the path of modules first: a process then finds none of what slim installations lack."""


def start(
    name: str, *arguments: object, cache: Path | None = None, devices: int = 1
) -> subprocess.Popen:
    """Start a command as in a slim installation.

    It knows no network and so many devices, whatever the test session has.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PIRN_DATA", "PIRN_CACHE")
    }
    places = os.pathsep.join((str(SLIM), str(ROOT)))
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": places, "COLUMNS": "120"}
    # Of two flags of a name the last one holds.
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    if cache is not None:
        environment["PIRN_CACHE"] = str(cache)
    return subprocess.Popen(
        [sys.executable, "-m", f"pirn_jax.{name}", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 600) -> subprocess.CompletedProcess:
    """Its output once it has ended; killed, with `subprocess.TimeoutExpired`, if it does not."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def command(
    name: str, *arguments: object, cache: Path | None = None, seconds: float = 600
) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    return finish(start(name, *arguments, cache=cache), seconds)
