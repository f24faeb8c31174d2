"""Figure 4: how far tokens move when they are rebuilt, normal against anomalous.

    python experiments/figure04.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/figure04.py --quick

Above: RGB tokens of defective test scans before (E at the decoder's scale) and after (Z_rec), in
the plane of the first two principal components of the displacements (in that of the tokens, which
the paper shows, they are rebuilt best and hardly move); an arrow is a token, a star a refined
prototype. Below: lengths of the displacements, in all dimensions. A token is anomalous where a
fifth of its patch is.
Expected (paper): normal tokens move little, anomalous ones far.
Cost: one model per category.
"""

import numpy as np

from harness.drawing import (
    GREEN,
    RED,
    TrainedModel,
    default,
    defective_tokens,
    few,
    figure_command,
    rebuilt,
    save,
    train_models,
    valid_tokens,
)
from harness.options import Options
from pirn_jax.metrics import image_metrics

_LINES = 250  # drawn of each kind
_CATEGORIES = 2


def draw(options: Options) -> None:
    """Train, draw."""
    from matplotlib.figure import Figure

    shots = few(options, 10)
    trained = train_models([default(options, shots)], shots, options)
    if trained is None:
        return
    shown = trained[0][:_CATEGORIES]
    figure = Figure(figsize=(max(5.0, 3.6 * len(shown)), 5.2), layout="constrained")
    axes = figure.subplots(2, len(shown), height_ratios=(1.4, 1), squeeze=False)
    for above, below, one in zip(*axes, shown, strict=True):
        move(above, below, one)
    title = "Figure 4: displacement of RGB tokens, normal (green) and anomalous (red)"
    save(figure, title, "figure04", options, shown[0].detector.random_weights)


def move(plane, histogram, trained: TrainedModel) -> None:
    """Tokens before and after, and how far apart they are."""
    places = [place for place, truth in enumerate(trained.truths) if truth.label == 1]
    made = rebuilt(trained, places)
    seen = valid_tokens(trained, places)
    bad = defective_tokens(trained, places)[seen]
    rgb = trained.detector.config.modalities.index("rgb")
    before, after = (np.asarray(x)[rgb][seen] for x in (made.target, made.values))
    prototypes = np.asarray(made.prototypes)[rgb].mean(0)
    centre = before.mean(0)
    _, _, axes = np.linalg.svd(after - before, full_matrices=False)
    start, end, stars = ((x - centre) @ axes[:2].T for x in (before, after, prototypes))
    lengths = np.linalg.norm(after - before, axis=-1)
    for kind, colour in ((~bad, GREEN), (bad, RED)):
        few_of = np.flatnonzero(kind)
        few_of = few_of[np.linspace(0, len(few_of) - 1, min(_LINES, len(few_of))).astype(int)]
        moved = end[few_of] - start[few_of]
        strong = 0.9 if kind is bad else 0.35
        plane.scatter(*start[few_of].T, s=4, color=colour, alpha=strong, linewidths=0)
        plane.quiver(*start[few_of].T, *moved.T, color=colour, angles="xy", scale_units="xy",
                     scale=1, width=0.003, alpha=strong)  # fmt: skip
    plane.scatter(*stars.T, s=30, marker="*", color="black", zorder=3)
    plane.set(xticks=[], yticks=[])
    plane.set_title(trained.job.category, fontsize=7)
    bins = np.linspace(0, np.quantile(lengths, 0.995), 40)
    histogram.hist(lengths[~bad], bins, color=GREEN, alpha=0.6, density=True, label="normal")
    histogram.hist(lengths[bad], bins, color=RED, alpha=0.6, density=True, label="anomalous")
    if 0 < bad.sum() < len(bad):
        found = image_metrics(lengths.astype(np.float64), bad)["i_auroc"]
        histogram.set_title(f"AUROC of the length, token by token: {found:.3f}", fontsize=6)
    histogram.set_xlabel("displacement", fontsize=6)
    histogram.tick_params(labelsize=5)
    histogram.legend(fontsize=5)


if __name__ == "__main__":
    figure_command(draw)
