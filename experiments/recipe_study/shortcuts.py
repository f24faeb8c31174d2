"""What can be told of a set without looking at the defect: the colour of its border.

    distance   standardised distance of the border's mean colour to that of the training scans
    oracle     the channel, and the direction, that tell best; chosen with the labels

Either well above 0.5 says that good and defective scans were photographed differently, and that
image scores on the set prove nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from harness.bootstrap import image_auroc
from harness.jobs import Job, name_of, open_job
from pirn_jax.storage import read_object, write_json
from recipe_study.rows import TestSet

BORDER = 10
"""Pixels."""


def border_figures(one: TestSet, job: Job, cache: Path) -> dict[str, Any]:
    """I-AUROC of the border's colour on a set, kept in the cache.

    Args:
        one: the set.
        job: any job on it.
        cache: the folder.
    """
    path = cache / "border" / f"{name_of(job)}.json"
    if path.is_file():
        return read_object(path)
    data, _, _ = open_job(job)
    good = np.stack([border_colour(scan.rgb) for scan in data.train if scan.rgb is not None])
    scans = [(border_colour(s.rgb), s.label == 1) for s in data.test if s.rgb is not None]
    colours, bad = np.stack([c for c, _ in scans]), np.array([b for _, b in scans])
    found = {k: round(v, 4) for k, v in auroc_of_border(good, colours, bad).items()}
    write_json(path, found)
    return found


def auroc_of_border(
    good: Float64[np.ndarray, "k 3"],
    colours: Float64[np.ndarray, "n 3"],
    bad: np.ndarray,
) -> dict[str, float]:
    """Both figures from the colours of training and test scans."""
    once = np.ones((1, len(bad)))
    away = (((colours - good.mean(0)) / (good.std(0) + 1e-9)) ** 2).mean(1)
    each = [float(image_auroc(channel, bad, once)[0]) for channel in colours.T]
    return {
        "border distance": float(image_auroc(away, bad, once)[0]),
        "border oracle": max(max(value, 1 - value) for value in each),
    }


def border_colour(rgb: UInt8[np.ndarray, "H W 3"]) -> Float64[np.ndarray, " 3"]:
    """Mean colour of the outermost pixels."""
    where = np.ones(rgb.shape[:2], bool)
    where[BORDER:-BORDER, BORDER:-BORDER] = False
    return rgb[where].mean(0, dtype=np.float64)
