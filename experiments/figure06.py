"""Figure 6: large anomalies.

    python experiments/figure06.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/figure06.py --quick

The test scans in which defects cover the largest share of the part, each category's two largest:
does APR, which refines prototypes on the image at hand, take the defect for normal?
Expected (paper, 10 shots): large defects are marked as a whole.
Cost: one model per category.
"""

import numpy as np

from harness.drawing import (
    TrainedModel,
    default,
    draw_rows,
    few,
    figure_command,
    rows_of_maps,
    train_models,
)
from harness.options import Options

_EACH, _ROWS = 2, 6


def largest(trained: TrainedModel) -> list[int]:
    """The scans with the most defective pixels."""
    sizes = [0 if truth.mask is None else int(truth.mask.sum()) for truth in trained.truths]
    order = np.argsort(sizes)[::-1][:_EACH]
    return [int(place) for place in order if sizes[place]]


def draw(options: Options) -> None:
    """Train, draw."""
    shots = few(options, 10)
    trained = train_models([default(options, shots)], shots, options)
    if trained is None:
        return
    rows = rows_of_maps(trained[0], largest)[:_ROWS]
    title = "Figure 6: the largest anomalies of each category"
    draw_rows(rows, title, "figure06", options, trained[0][0].detector.random_weights)


if __name__ == "__main__":
    figure_command(draw)
