"""Figure 8: localisation on MVTec 3D-AD, 5 shots.

    python experiments/figure08.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/figure08.py --quick

Rows of RGB, normals, truth, the maps of the RGB and of the normals branch, and the fused map: of
each category the defective scan whose score is the median of its kind of defect, one kind after
the other over the categories. Generated parts stand in with --quick.
Expected (paper): the fused map marks the defect where one branch alone misses it.
Cost: one model per category.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.drawing import (
    Opened,
    default,
    draw_rows,
    figure_command,
    open_jobs,
    rows_of_maps,
    typical,
)
from experiments.options import Options

_EACH, _ROWS = 3, 8


def chosen(opened: Opened) -> list[int]:
    """Some kinds of defect of a category."""
    return typical(opened)[:_EACH]


def draw(options: Options) -> None:
    """Train, draw."""
    opened = open_jobs([default(options)], 5, options)
    if opened is None:
        return
    rows = rows_of_maps(opened[0], chosen)[:_ROWS]
    title = "Figure 8: localisation with 5 shots (the paper: MVTec 3D-AD)"
    draw_rows(rows, title, "figure08", options, opened[0][0].detector.demo)


if __name__ == "__main__":
    figure_command(draw)
