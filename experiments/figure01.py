"""Figure 1: accuracy against shots; tokens and prototypes, softmax against balanced transport.

    python experiments/figure01.py --dataset eyecandies --data-root ROOT --encoder dinov2-base
    python experiments/figure01.py --quick

Left: image AUROC at 5, 10, 50 and all shots, the paper's curves cited, ours measured (the jobs of
Table 1). Right: t-SNE of the RGB tokens of good test scans at the decoder's scale, with the
prototypes refined for them, for softmax and for balanced transport; beside them how many of the K
prototypes answer for the tokens (exp of the entropy of usage).
Expected (paper): ours above every curve; softmax leaves prototypes in a heap, transport spreads
them.
Cost: left the rows of Table 1 that are ours; right two models.
"""

import numpy as np

from harness.drawing import (
    RED,
    TrainedModel,
    default,
    few,
    figure_command,
    rebuilt,
    save,
    train_models,
    valid_tokens,
)
from harness.options import Options
from harness.runner import Job, run
from harness.table import plan_jobs
from paper import OURS, TABLE1
from table01 import choose

_TOKENS = 400  # shown of each panel
_ALL = 200  # where "all shots" stands on the axis


def draw(options: Options) -> None:
    """Run, train, draw."""
    from matplotlib.figure import Figure

    curves: dict[str, list[Job]] = {}
    for row, recipe, jobs in plan_jobs(choose(options), options):
        if not row.cited:
            curves.setdefault(f"{recipe}, measured", []).extend(jobs)
    every = [job for jobs in curves.values() for job in jobs]
    with options.cluster() as cluster:
        results = run(
            every, options.jobs, cache=options.cache, dry=options.dry_run, cluster=cluster
        )
    accuracy = {result.job: result.figures["i_auroc"] for result in results}
    kinds = {"softmax": "softmax", "balanced transport": "ot"}
    shots = few(options, 10)
    configs = [default(options, shots, {"decoder.assignment": kind}) for kind in kinds.values()]
    trained = train_models(configs, shots, options)
    if trained is None:
        return
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, *right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    of = options.dataset if (options.dataset, 5) in TABLE1 else "eyecandies"
    for method in TABLE1[of, 5]:
        points = {k or _ALL: TABLE1[of, k][method]["i_auroc"] for k in (5, 10, 50, 0)}
        style = {"color": "black"} if method == OURS else {"color": "grey", "alpha": 0.5}
        label = f"{OURS}, paper ({of})" if method == OURS else None
        left.plot(list(points), list(points.values()), "--", linewidth=0.8, label=label, **style)
    ticks = {5, 10, 50, _ALL}
    for name, jobs in curves.items():
        counts = list(dict.fromkeys(job.shots for job in jobs))
        means = [np.mean([accuracy[job] for job in jobs if job.shots == k]) for k in counts]
        left.plot([k or _ALL for k in counts], means, "o-", markersize=3, label=name)
        ticks |= {k or _ALL for k in counts}
    ticks = sorted(ticks)
    left.set(xscale="log", xlabel="shots", ylabel="I-AUROC")
    left.set_xticks(ticks, ["all" if k == _ALL else str(k) for k in ticks], minor=False)
    left.set_xticks([], minor=True)
    left.legend(fontsize=5)
    left.set_title("grey: other systems, cited, other sampling", fontsize=6)
    for axis, name, models in zip(right, kinds, trained, strict=True):
        embed(axis, models[0], name)
    save(
        figure,
        "Figure 1: accuracy against shots; RGB tokens and prototypes by t-SNE",
        "figure01",
        options,
        models[0].detector.random_weights,
    )


def embed(axis, trained: TrainedModel, name: str) -> None:
    """Tokens and prototypes of good test scans in the plane."""
    from sklearn.manifold import TSNE

    places = [place for place, truth in enumerate(trained.truths) if truth.label == 0]
    made = rebuilt(trained, places)
    seen = valid_tokens(trained, places)
    rgb = trained.detector.config.modalities.index("rgb")
    tokens = np.asarray(made.target)[rgb][seen]
    if len(tokens) > _TOKENS:
        tokens = tokens[np.linspace(0, len(tokens) - 1, _TOKENS).astype(int)]
    prototypes = np.asarray(made.prototypes)[rgb].mean(0)
    points = np.concatenate([tokens, prototypes])
    points = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)
    perplexity = min(30.0, (len(points) - 1) / 3)
    plane = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(points)
    usage = np.asarray(made.diagnostics.usage)[-1, rgb].mean(0)
    effective = np.exp(-np.sum(usage * np.log(np.maximum(usage, 1e-12))))
    axis.scatter(*plane[: len(tokens)].T, s=3, color="#7f8c8d", label="tokens")
    axis.scatter(*plane[len(tokens) :].T, s=45, marker="*", color=RED, label="prototypes")
    axis.set(xticks=[], yticks=[])
    axis.set_title(
        f"{name}, {trained.job.category}: {effective:.1f} of {len(prototypes)} in use", fontsize=6
    )
    axis.legend(fontsize=5)


if __name__ == "__main__":
    figure_command(draw)
