"""Metrics serve any detector: what importing them takes."""

import subprocess
import sys


def test_metrics_stand_alone():
    """No jax, no image reader, no terminal package: numpy and scipy are enough."""
    code = (
        "import sys, pirn_jax.metrics;"
        "heavy = {'jax', 'flax', 'torch', 'PIL', 'tifffile', 'rich', 'tyro', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
