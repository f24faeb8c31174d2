"""A run of so many steps that goes on from wherever it was; test_train.py kills it.

python -m tests.experiments.distil.resumable CACHE CHECKPOINTS OUT STEPS SAVE_SECONDS
"""

import sys
from pathlib import Path

import numpy as np
from distil import train
from distil.schedule import Schedule

from pirn_jax.training.compilation import use_compilation_cache
from tests.experiments.distil.problems import RECIPE, library, teacher


def main() -> None:
    cache, checkpoints, out, steps, save_seconds = sys.argv[1:]
    use_compilation_cache(cache)
    steps_done = 0

    def stop() -> bool:
        nonlocal steps_done
        print(steps_done, flush=True)
        steps_done += 1
        return False

    result = train.distil(
        RECIPE,
        Schedule(steps=int(steps), warm_up=0.1),
        teacher(),
        library(),
        {"even": 1, "odd": 2},
        Path(checkpoints),
        resume=True,
        save_seconds=float(save_seconds),
        stop=stop,
    )
    np.savez(out, **result.parameters, steps=result.steps)


if __name__ == "__main__":
    main()
