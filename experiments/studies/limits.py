"""What limits detection on cable_gland: by defect, and by how near a scan's pose is to the shots'.

    python experiments/studies/limits.py --shared ../shared

What runs by default learns 1, 5 and 10 shots, three draws each. Test scans of each defect stand
against all good ones. Pose is told by silhouettes: a scan's largest overlap (intersection over
union) with one of the shots' silhouettes at any angle within the picture; scans at or above the
median of the test set are near, the others far. The halves hold few good scans, eight in all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Bool, Float

from harness.options import command
from pirn_jax import PIRN, Config
from pirn_jax.detector import Evaluator, Truth, fit_models
from pirn_jax.detector.result import Inferred
from pirn_jax.geometry import choose_object
from pirn_jax.geometry.part import MARGIN, Part, find_part, overlap, turned_silhouettes
from pirn_jax.scans import Scan, choose_shots
from pirn_jax.storage import write_json
from real_sets import SETS, encoder_of, open_set, tests_of

FIGURES = {"i_auroc": "I-AUROC", "aupro_0.3": "AUPRO@30 %"}
Figures = dict[str, float]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    shared: Path = Path("../shared")
    """The folder with real sets (data/) and weights (weights/)."""
    out: Path = Path("experiments/results/limits.json")
    """Figures; the table beside it, as .md."""
    encoder: str = "dinov2-small"
    """Of pirn-tiny, dinov2-small."""
    chosen: str = "cable_gland"
    """A set with points."""
    shots: tuple[int, ...] = (1, 5, 10)
    """How many shots."""
    draws: tuple[int, ...] = (0, 1, 2)
    """Seeds: each chooses the shots."""
    size: int = 224
    """Side of the pictures in pixels."""


def main(options: Options) -> None:
    """Measure, and print the table."""
    about = SETS[options.chosen]
    data = open_set(about, options.shared)
    parts = [part_of(scan) for scan in data.test]
    rows: dict[int, dict[str, list[Figures]]] = {}
    encoder = None
    for shots in options.shots:
        rows[shots] = defaultdict(list)
        for draw in options.draws:
            config = Config(
                encoder=options.encoder,
                modalities=about.modalities,
                seed=draw,
                image_size=options.size,
            )
            encoder = encoder_of(config, options.shared) if encoder is None else encoder
            model = PIRN(config, encoder=encoder)
            keys = choose_shots(data.train.keys, shots, draw, about.dataset, about.category)
            chosen = data.train.select(keys)
            fit_models([model], [chosen], ["model"])
            tokens, truths = tests_of(data.test, model)
            found = list(model.predict_tokens(tokens))
            near = nearness(parts, [part_of(scan) for scan in chosen])
            for name, members in groups(truths, near).items():
                rows[shots][name].append(figures_of(truths, found, members))
        print(shots, {name: mean_of(rows[shots][name]) for name in rows[shots]}, flush=True)
    write_json(options.out, {"size": options.size, "draws": list(options.draws), "shots": rows})
    page = table(rows, options)
    options.out.with_suffix(".md").write_text(page)
    print(page)


def part_of(scan: Scan) -> Part:
    """Where the part lies in a scan with points."""
    part = find_part(scan.xyz, scan.valid, choose_object(scan.xyz, scan.valid).object)
    assert part is not None
    return part


def nearness(parts: Sequence[Part], shots: Sequence[Part]) -> Float[np.ndarray, " S"]:
    """Each part's largest overlap with a shot's silhouette, at any angle within the picture."""
    side = MARGIN * max(part.extent * part.pitch for part in (*parts, *shots))
    known = [turned_silhouettes(shot, side)[0] for shot in shots]
    return np.array(
        [
            max(overlap(one, other) for one in known for other in turned_silhouettes(part, side))
            for part in parts
        ]
    )


def groups(
    truths: Sequence[Truth], near: Float[np.ndarray, " S"]
) -> dict[str, Bool[np.ndarray, " S"]]:
    """Which test scans are compared: each defect with all good ones, and each half of the poses."""
    defects = np.array([truth.defect for truth in truths])
    good = np.array([truth.label == 0 for truth in truths])
    kinds = sorted({str(defect) for defect in defects[~good]})
    closer = near >= np.median(near)
    return {
        "all": np.ones(len(near), bool),
        **{kind: good | (defects == kind) for kind in kinds},
        "pose near a shot's": closer,
        "pose far from all shots'": ~closer,
    }


def figures_of(
    truths: Sequence[Truth], found: Sequence[Inferred], members: Bool[np.ndarray, " S"]
) -> Figures:
    """Figures of some of the scans; those that are not defined are left out."""
    evaluator = Evaluator()
    for truth, inferred, member in zip(truths, found, members, strict=True):
        if member:
            evaluator.add(truth, inferred)
    figures, _ = evaluator.figures()
    return {name: round(figures[name], 4) for name in FIGURES if name in figures}


def mean_of(draws: Sequence[Figures]) -> str:
    """Means over the draws for which a figure is defined."""
    kept = ([draw[name] for draw in draws if name in draw] for name in FIGURES)
    return " / ".join(f"{np.mean(values):.3f}" if values else "–" for values in kept)


def table(rows: dict[int, dict[str, list[Figures]]], options: Options) -> str:
    """The page as Markdown."""
    names = list(next(iter(rows.values())))
    lines = [
        f"Written by `{command()}`. {' / '.join(FIGURES.values())} of what runs by default on "
        f"{options.chosen}, {options.encoder}, {options.size} px, means of {len(options.draws)} "
        "draws. A defect's scans stand against all good ones; near and far: "
        "`experiments/studies/limits.py`.",
        "",
        f"| shots | {' | '.join(names)} |",
        "| --- |" + " --- |" * len(names),
    ]
    for shots, found in rows.items():
        lines.append(f"| {shots} | {' | '.join(mean_of(found[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Options))
