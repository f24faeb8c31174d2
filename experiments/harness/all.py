"""Every table and figure, one after the other, each in a process of its own.

    python experiments/harness/all.py --quick --out experiments/results  # as committed
    python experiments/harness/all.py --quick --dry-run
    python experiments/harness/all.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base

Takes the flags of a table. Results that tables share are made once; compiled programs are shared
through the cache. One that fails is named at the end, and the others are made all the same. To make
results again after pirn_jax has changed, give a new folder with --jobs, or remove the old one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = sorted(
    path
    for kind in ("table", "figure")
    for path in Path(__file__).resolve().parents[1].glob(f"{kind}[0-9][0-9].py")
)


def main(flags: list[str]) -> int:
    """Run every script with the flags; the number of those that failed."""
    failed = []
    for script in SCRIPTS:
        start = time.monotonic()
        if subprocess.run([sys.executable, str(script), *flags]).returncode:
            failed.append(script.stem)
        print(f"== {script.stem}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
