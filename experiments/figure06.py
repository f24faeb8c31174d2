"""Figure 6: large anomalies.

    python experiments/figure06.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/figure06.py --quick

The test scans in which defects cover the largest share of the part, each category's two largest:
does APR, which refines prototypes on the image at hand, take the defect for normal?
Expected (paper, 10 shots): large defects are marked as a whole.
Cost: one model per category.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from experiments.drawing import (
    Opened,
    default,
    draw_rows,
    few,
    figure_command,
    open_jobs,
    rows_of_maps,
)
from experiments.options import Options

_EACH, _ROWS = 2, 6


def largest(opened: Opened) -> list[int]:
    """The scans with the most defective pixels."""
    sizes = [0 if truth.mask is None else int(truth.mask.sum()) for truth in opened.truths]
    order = np.argsort(sizes)[::-1][:_EACH]
    return [int(place) for place in order if sizes[place]]


def draw(options: Options) -> None:
    """Train, draw."""
    opened = open_jobs([default(options)], few(options, 10), options)
    if opened is None:
        return
    rows = rows_of_maps(opened[0], largest)[:_ROWS]
    title = "Figure 6: the largest anomalies of each category"
    draw_rows(rows, title, "figure06", options, opened[0][0].detector.demo)


if __name__ == "__main__":
    figure_command(draw)
