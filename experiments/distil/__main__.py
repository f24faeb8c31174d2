"""`python experiments/distil --help`."""

import sys
from pathlib import Path

if not __package__:  # started by its folder's path: the modules are those of the package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distil.command import Options, main
from pirn_jax.command import exits, parse

if __name__ == "__main__":
    with exits() as words:
        main(parse(Options, words, prog="python experiments/distil"))
