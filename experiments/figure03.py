"""Figure 3: anomaly maps beside other systems', and how well scores separate.

    python experiments/figure03.py --dataset mvtec3d --data-root ROOT --encoder dinov2-base
    python experiments/figure03.py --quick

Left: RGB, truth, the maps of the measured baselines and ours. Right: image scores of good and
defective test scans, each system's divided by its own median of the good. The paper shows BTF, AST
and M3DM; here stand the baselines that are measured on the same tokens.
Expected (paper, 10 shots): sharper maps with fewer false positives, a wider margin.
Cost: one model per system and category.
"""

import numpy as np

from harness.drawing import (
    GREEN,
    RED,
    default,
    few,
    figure_command,
    save,
    scales,
    train_models,
    typical,
)
from harness.options import Options
from pirn_jax.report.heatmap import colour_map

_ROWS = 4


def draw(options: Options) -> None:
    """Train, draw."""
    from matplotlib.figure import Figure

    shots = few(options, 10)
    configs = {name: options.baseline(name) for name in ("memory", "subspace")}
    configs[f"PIRN, {options.recipes[-1]}"] = default(options, shots)
    trained = train_models(configs.values(), shots, options)
    if trained is None:
        return
    ours = trained[-1]
    shown = [(k, place) for k, one in enumerate(ours) for place in typical(one)]
    shown = [shown[k] for k in np.unique(np.linspace(0, len(shown) - 1, _ROWS).astype(int))]
    figure = Figure(figsize=(9, 1.25 * len(shown) + 0.8), layout="constrained")
    both = figure.subfigures(1, 2, width_ratios=(1.5, 1), squeeze=False)
    left, right = np.asarray(both)[0]
    axes = left.subplots(len(shown), 2 + len(configs), squeeze=False)
    for axis, name in zip(axes[0], ("RGB", "truth", *configs), strict=True):
        axis.set_title(name, fontsize=7)
    for line, (category, place) in zip(axes, shown, strict=True):
        (view,) = ours[category].views([place])
        mask = np.zeros(view.valid.shape, bool) if view.mask is None else view.mask
        base = view.normals if view.rgb is None else view.rgb
        pictures = {"RGB": base, "truth": colour_map(mask.astype(np.float32), 0.0, 1.3)}
        for name, models in zip(configs, trained, strict=True):
            one = models[category]
            pictures[name] = colour_map(one.inferences[place].fused, 0.0, scales(one)["fused"])
        for axis, picture in zip(line, pictures.values(), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        truth = ours[category].truths[place]
        line[0].set_ylabel(f"{ours[category].job.category}\n{truth.defect}", fontsize=6)
    for axis, name, models in zip(right.subplots(len(configs), 1), configs, trained, strict=True):
        scores = {0: [], 1: []}
        for one in models:
            good = [
                i.score for i, t in zip(one.inferences, one.truths, strict=True) if t.label == 0
            ]
            for inference, truth in zip(one.inferences, one.truths, strict=True):
                if truth.label is not None:
                    scores[truth.label].append(inference.score / max(np.median(good), 1e-12))
        bins = np.linspace(min(map(min, scores.values())), max(map(max, scores.values())), 20)
        axis.hist(scores[0], bins, color=GREEN, alpha=0.6, label="good", density=True)
        axis.hist(scores[1], bins, color=RED, alpha=0.6, label="defective", density=True)
        axis.set_title(f"{name}: image score / median of the good", fontsize=6)
        axis.tick_params(labelsize=5)
        axis.legend(fontsize=5)
    title = "Figure 3: maps beside the measured baselines', and distributions of scores"
    save(figure, title, "figure03", options, ours[0].detector.random_weights)


if __name__ == "__main__":
    figure_command(draw)
