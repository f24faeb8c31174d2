"""Recall per kind of defect, counted by hand."""

import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.metrics import defect_recall


def scene():
    masks = np.zeros((2, 8, 8), np.uint8)
    maps = np.zeros(masks.shape, np.float32)
    masks[0, 1:3, 1:3] = 255  # 4 pixels, 1 found
    maps[0, 1, 1] = 2
    masks[0, 1:3, 3:5] = 254  # touches it, another kind: 4 pixels, none found
    maps[0, 1, 3] = 1  # at the threshold is not above it
    masks[1, 5:8, 5:8] = 255  # 9 pixels, 3 found
    maps[1, 5, 5:8] = 1.5
    maps[1, 0, 0] = 9
    return maps, masks


def test_by_hand():
    got = defect_recall(*scene(), 1.0, {255: "crack", 254: "hole"})
    assert got["crack"] == pytest.approx(
        {
            "pixels": 13,
            "pixel_recall": 4 / 13,
            "regions": 2,
            "regions_hit": 2,
            "region_recall": 1.0,
            "mean_overlap": (1 / 4 + 3 / 9) / 2,
        }
    )
    assert got["hole"]["regions_hit"] == 0
    assert list(defect_recall(*scene(), 1.0)) == ["254", "255"]


def test_ignored_pixels_do_not_count():
    maps, masks = scene()
    got = defect_recall(maps, masks, 1.0, ignore=[maps[0] == 2, masks[1] > 0])
    assert got["255"]["pixels"] == 3
    assert got["255"]["regions_hit"] == 0


def test_errors():
    maps, masks = scene()
    with pytest.raises(BadInputError, match="no defective pixel"):
        defect_recall(maps, masks * 0, 1.0)
    with pytest.raises(BadInputError, match="whole defect ids"):
        defect_recall(maps, masks * 0.5, 1.0)
    with pytest.raises(ConfigError, match="threshold"):
        defect_recall(maps, masks, float("nan"))
    with pytest.raises(ConfigError, match="two ids"):
        defect_recall(maps, masks, 1.0, {255: "crack", 254: "crack"})


def test_metrics_stand_alone():
    """No jax, no image reader, no terminal package: numpy and scipy are enough."""
    import subprocess
    import sys

    code = (
        "import sys, pirn_jax.metrics;"
        "heavy = {'jax', 'flax', 'torch', 'PIL', 'tifffile', 'rich', 'tyro', 'sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
