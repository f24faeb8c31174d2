"""Damaged files by the thousand, through every reader: `python -m tests.fuzz --inputs 1000000`.

Prints counts by kind and outcome, and each finding with what makes it again. Exit code 1 if any.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.fuzz.judging import OUTCOMES, Judge, Kind
from tests.fuzz.running import Found, all_kinds, run, shares

_SHOWN = 200


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="in all; slow kinds get fewer")
    parser.add_argument("--seed", type=int, default=0, help="the same gives the same inputs")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", action="append", help="a kind; may be repeated")
    parser.add_argument("--case", type=int, help="with --only: read that input, and let it raise")
    flags = parser.parse_args()
    kinds = all_kinds()
    names = [kind.name for kind in kinds]
    if unknown := set(flags.only or ()) - set(names):
        parser.error(f"no kind {', '.join(unknown)}; there are: {', '.join(names)}")
    kinds = [kind for kind in kinds if not flags.only or kind.name in flags.only]
    if flags.case is not None:
        return _again(kinds[0], flags.seed, flags.case)
    started = time.monotonic()
    wanted = dict(zip((kind.name for kind in kinds), shares(kinds, flags.inputs), strict=True))
    found = run(wanted, flags.seed, flags.jobs)
    _print(found, flags.seed)
    print(f"{len(found.findings)} findings, seed {flags.seed}, {time.monotonic() - started:.0f} s")
    return 1 if found.findings else 0


def _print(found: Found, seed: int) -> None:
    every = [sum(row[outcome] for row in found.counts.values()) for outcome in OUTCOMES]
    table = [(name, list(row.values())) for name, row in found.counts.items()]
    print(f"{'kind':18}{'inputs':>9}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for name, row in [*table, ("all", every)]:
        print(f"{name:18}{sum(row):>9}" + "".join(f"{count:>9}" for count in row))
    for kind, number, outcome, detail in found.findings[:_SHOWN]:
        print(f"{outcome}: {detail.partition(chr(10))[0][:200]}")
        print(f"    --seed {seed} --only '{kind}' --case {number}")


def _again(kind: Kind, seed: int, number: int) -> int:
    folder = Path(tempfile.mkdtemp()) / "input"
    Judge(kind, folder, seed).damage(number)
    print(folder)
    print(kind.read(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
