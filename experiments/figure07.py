"""Figure 7: localisation on Eyecandies, 5 shots.

    python experiments/figure07.py --dataset eyecandies --data-root ROOT --encoder dinov2-base
    python experiments/figure07.py --quick

Rows of RGB, normals, truth, the maps of the RGB and of the normals branch, and the fused map: of
each category the defective scan whose score is the median of its kind of defect, one kind after
the other over the categories. Generated parts stand in with --quick.
Expected (paper): the fused map marks the defect where one branch alone misses it.
Cost: one model per category.
"""

from harness.drawing import (
    TrainedModel,
    default,
    draw_rows,
    figure_command,
    rows_of_maps,
    train_models,
    typical,
)
from harness.options import Options

_EACH, _ROWS = 3, 8


def chosen(trained: TrainedModel) -> list[int]:
    """Some kinds of defect of a category."""
    return typical(trained)[-_EACH:]


def draw(options: Options) -> None:
    """Train, draw."""
    trained = train_models([default(options, 5)], 5, options)
    if trained is None:
        return
    rows = rows_of_maps(trained[0], chosen)[:_ROWS]
    title = "Figure 7: localisation with 5 shots (the paper: Eyecandies)"
    draw_rows(rows, title, "figure07", options, trained[0][0].detector.random_weights)


if __name__ == "__main__":
    figure_command(draw)
