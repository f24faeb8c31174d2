"""Running a command as a user would: another process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(name: str, *arguments: object, cache: Path | None = None, seconds: int = 600):
    """Run a command; it knows no network and one device, whatever the test session has."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "PIRN_DATA", "PIRN_CACHE")
    }
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    if cache is not None:
        environment["PIRN_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", f"pirn_jax.{name}", *map(str, arguments)],
        capture_output=True, text=True, timeout=seconds, env=environment, check=False,
    )  # fmt: skip
