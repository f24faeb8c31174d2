"""A run that goes on from wherever it was; test_checkpoint.py kills it again and again.

python -m tests.training.resumable CHECKPOINTS CACHE OUT EPOCHS
"""

import sys
from pathlib import Path

import jax
import numpy as np

from pirn_jax.training import train, use_compilation_cache
from tests.training.problems import job, recipe


def main() -> None:
    checkpoints, cache, out, epochs = sys.argv[1:]
    use_compilation_cache(cache)
    print("start", flush=True)
    results = train(
        [job(0), job(1)],
        recipe(int(epochs)),
        parallel="none",
        checkpoints=Path(checkpoints),
        resume=True,
        save_seconds=0.0,
        progress=lambda done, *_: print(done, flush=True),
    )
    leaves = [leaf for result in results for leaf in jax.tree.leaves(result.parameters)]
    losses = [line["loss"] for result in results for line in result.history]
    np.savez(out, *leaves, losses=np.array(losses))


if __name__ == "__main__":
    main()
