"""Figure 5: what each branch sees of texture-only and of geometry-only defects.

    python experiments/figure05.py --dataset eyecandies --data-root ROOT --encoder dinov2-base
    python experiments/figure05.py --quick

Rows of RGB, normals, truth, the maps of the two branches and the fused map; first defects of
texture alone, then of geometry alone. Which is which is known of generated parts, and by the name
of the defect in Eyecandies (colors; bumps, dents, normals) and MVTec 3D-AD (color; bent, hole).
Expected (paper): the RGB branch finds texture, the normals branch geometry; the other one may give
false positives there.
Cost: one model per category.
"""

from harness.drawing import (
    Panels,
    TrainedModel,
    default,
    draw_rows,
    few,
    figure_command,
    rows_of_maps,
    train_models,
    typical,
)
from harness.options import Options
from pirn_jax.detector import Truth
from pirn_jax.scans.synthetic.generator import describe

_NAMED = {
    "texture": ("colors", "color"),
    "geometry": ("bumps", "dents", "normals", "bent", "hole"),
}
_ROWS = 3  # of each kind


def seen_in(trained: TrainedModel, truth: Truth) -> str:
    """Where a defect is to be found: texture, geometry, both, or "" where it is not known."""
    if trained.job.generated:
        seed = dict(trained.job.options).get("seed", 0)
        return describe(trained.job.category, truth.key, seed).modality
    return next((kind for kind, names in _NAMED.items() if truth.defect in names), "")


def draw(options: Options) -> None:
    """Train, draw."""
    shots = few(options, 10)
    trained = train_models([default(options, shots)], shots, options)
    if trained is None:
        return
    rows: list[Panels] = []
    for kind in _NAMED:

        def chosen(one: TrainedModel, kind: str = kind) -> list[int]:
            return typical(one, lambda truth: seen_in(one, truth) == kind)

        found = rows_of_maps(trained[0], chosen)[:_ROWS]
        rows += [Panels(f"{kind} only\n{row.label}", row.pictures) for row in found]
    title = "Figure 5: defects of texture alone and of geometry alone, branch by branch"
    draw_rows(rows, title, "figure05", options, trained[0][0].detector.random_weights)


if __name__ == "__main__":
    figure_command(draw)
