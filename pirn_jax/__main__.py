"""`python -m pirn_jax`, or `pirn-jax`: lists the commands, or runs one: `pirn-jax predict …`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from pirn_jax import __version__

COMMANDS = {
    "train": "learn from a few good scans, set a threshold, judge test scans, write a report",
    "predict": "is this part good? files and folders, judged by a trained model",
    "serve": "the same over HTTP, with a page to look at parts and verdicts",
    "evaluate": "the models of a run on its test scans again, or on others",
    "export": "a trained model as one file, judged with without JAX",
    "doctor": "what is wrong with this installation or this data, and how to mend it",
    "prepare": "normals and object masks of a whole dataset, kept for the runs on it",
    "metrics": "exact metrics of any detector's anomaly maps",
    "encoder": "a picture's tokens as colours",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """List the commands, print the version, or hand over to a command.

    Args:
        arguments: instead of the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else "--help"
    if first == "--version":
        print(f"pirn_jax {__version__}")  # noqa: T201
    elif first in ("--help", "-h"):
        lines = [f"  {name:<9} {what}" for name, what in COMMANDS.items()]
        usage = "usage: pirn-jax [--version] COMMAND …   (or python -m pirn_jax.COMMAND …)"
        print("\n".join([usage, "", *lines, "", "pirn-jax COMMAND --help lists its options"]))  # noqa: T201
    elif first in COMMANDS:
        sys.argv = [f"pirn-jax {first}", *words[1:]]
        runpy.run_module(f"pirn_jax.{first}", run_name="__main__", alter_sys=True)
    else:
        from pirn_jax.command import USAGE
        from pirn_jax.errors import did_you_mean

        known = ", ".join(COMMANDS)
        print(  # noqa: T201
            f"error: no command {first!r}{did_you_mean(first, COMMANDS)}\n  → there are {known}",
            file=sys.stderr,
        )
        raise SystemExit(USAGE)


if __name__ == "__main__":
    main()
