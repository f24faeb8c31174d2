"""Every table and figure, one after the other, in one process.

    python experiments/all.py --quick --out experiments/results     # what is committed, remade
    python experiments/all.py --quick --dry-run
    python experiments/all.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base

Takes the flags of a table. Results that tables share are made once, and so are compiled programs.
One that fails is named at the end, and the others are made all the same. To make results again
after pirn_jax has changed, give a new folder with --jobs, or remove the old one.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

SCRIPTS = sorted(
    path
    for kind in ("table", "figure")
    for path in Path(__file__).resolve().parent.glob(f"{kind}[0-9][0-9].py")
)


def main(flags: list[str]) -> int:
    """Run every script with the flags; the number of those that failed."""
    failed, given = [], sys.argv
    for script in SCRIPTS:
        start = time.monotonic()
        sys.argv = [str(script), *flags]
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stopped:
            if stopped.code:
                failed.append(script.stem)
        finally:
            sys.argv = given
        print(f"== {script.stem}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
