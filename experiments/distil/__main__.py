"""`python experiments/distil --help`."""

import sys
from pathlib import Path

if not __package__:  # started by its folder's path: the modules are those of the package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from distil.command import Options, main
from pirn_jax.command import exits

if __name__ == "__main__":
    with exits():
        main(tyro.cli(Options, prog="python experiments/distil"))
