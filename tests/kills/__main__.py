"""Every work killed at every operation, with counts: `python -m tests.kills`.

The names of works may follow, to do these alone; `--step N` takes every N-th state of them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

from tests.kills import works
from tests.kills.killing import kill_at_every_operation


def main() -> int:
    """Returns the exit code: 1 if a work did not end as undisturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*")
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    encoder, failed = works.small_encoder(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        older = folder / "older"
        every = {
            "save over an older model": works.saving(encoder),
            "keep features": works.caching(),
            "predict": works.predicting(encoder, over=False),
            "predict over others": works.predicting(encoder, over=True),
            "prepare": works.preparing(),
            "train": works.training(older, over=False),
            "train over an older run": works.training(older, over=True),
            "evaluate": works.evaluating(older),
        }
        for title, work in every.items():
            if options.works and title not in options.works:
                continue
            try:
                kills = kill_at_every_operation(work, folder / "work", step=options.step)
            except AssertionError as error:
                print(f"{title}: NOT THE SAME: {error}", flush=True)
                failed += 1
            else:
                print(f"{title}: {kills} kills, each to the same end", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
