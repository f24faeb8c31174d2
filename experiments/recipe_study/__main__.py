"""`python experiments/recipe_study`, or `python -m experiments.recipe_study`: the study's command.

Either starts from a folder in which `harness` and `recipe_study` are not found, so the command goes
on in their own: Python begins anew with experiments/ on PYTHONPATH, where child processes look too.
"""

import os
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parents[1]


def main() -> None:
    """Become the command; nothing after this runs."""
    given = filter(None, [os.environ.get("PYTHONPATH")])
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXPERIMENTS), *given])}
    command = [sys.executable, "-m", "recipe_study.command", *sys.argv[1:]]
    os.execve(sys.executable, command, environ)


if __name__ == "__main__":
    main()
