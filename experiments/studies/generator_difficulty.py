"""How hard are the generated categories: do shortcuts fail, and is a strong baseline challenged?

    python experiments/studies/generator_difficulty.py --weights vit_tiny_patch16_224.safetensors

Measured per category and seed on 5 shots and all test scans, image AUROC:

* **mean image**: distance to the mean of the five shots, by pixel, of the photograph and of the
  normals; both as the mean over the picture and as the highest smoothed value. Target <= 0.75.
* **border** and **global** statistics (means, spreads, share of missing points, of the 10-pixel
  border and of the whole picture): as a distance to the good scans, and by a classifier that has
  seen the labels of all other categories and seeds. Target <= 0.6: nothing but the defect itself
  may tell a defective scan from a good one.
* **memory**: distance of each token to the nearest token of the five shots, mean of blocks 2..10
  of a real ViT-Ti/16, photograph and normals alone and summed. Target 0.75 to 0.95 overall, no
  type of defect at chance or solved, no type of picture enough for all.

About 2 minutes per seed on two CPU cores. Writes generator_difficulty.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from scipy.stats import rankdata

from pirn_jax.encoder import Encoder, load_encoder
from pirn_jax.geometry import make_views, remove_background
from pirn_jax.scans import Scan
from pirn_jax.scans.synthetic.defects import FLAWS
from pirn_jax.scans.synthetic.generator import (
    CATEGORIES,
    DEFECTS,
    GENERATOR_VERSION,
    HELD_OUT,
    generator_hash,
    open_synthetic,
)

SIDE = 224
PICTURES = ("rgb", "normals", "sum")


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a defective scan scores above a good one, ties counted half."""
    ranks, bad = rankdata(scores), labels.sum()
    return float((ranks[labels == 1].sum() - bad * (bad + 1) / 2) / (bad * (len(labels) - bad)))


# --- scan to pictures ---------------------------------------------------------------------------


def pictures(scan: Scan) -> dict[str, np.ndarray]:
    """Photograph and normals as the encoder sees them, (SIDE, SIDE, 3) in [0, 1]."""
    assert scan.xyz is not None
    views = make_views(scan, SIDE, remove_background(scan.xyz))
    assert views.rgb is not None
    assert views.normals is not None
    return {"rgb": views.rgb, "normals": views.normals}


# --- the three kinds of score ---------------------------------------------------------------------


def tokens(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """Tokens of many pictures, five at a time: one compiled program, little memory."""
    batches = [encoder(images[k : k + 5].astype(np.float32)) for k in range(0, len(images), 5)]
    return np.concatenate([np.asarray(batch) for batch in batches])


def memory_maps(shots: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Cosine distance of each test token to the nearest shot token, as smoothed (B, SIDE, SIDE)."""
    bank = shots.reshape(-1, shots.shape[-1])
    bank = bank / np.linalg.norm(bank, axis=-1, keepdims=True)
    tests = tests / np.linalg.norm(tests, axis=-1, keepdims=True)
    far = np.stack([1 - (image @ bank.T).max(-1) for image in tests])
    grid = round(far.shape[1] ** 0.5)
    maps = far.reshape(-1, grid, grid)
    up = zoom(maps, (1, SIDE / grid, SIDE / grid), order=1, grid_mode=True, mode="nearest")
    return gaussian_filter(up, (0, 4 * SIDE / 224, 4 * SIDE / 224), mode="reflect")


def mean_image_scores(shots: np.ndarray, tests: np.ndarray) -> dict[str, np.ndarray]:
    """Distance to the mean of the shots: averaged over the picture, and its smoothed peak."""
    away = np.abs(tests - shots.mean(0)).mean(-1)
    peak = gaussian_filter(away, (0, 4, 4)).max((1, 2))
    return {"mean": away.mean((1, 2)), "peak": peak}


def statistics(scan, border: bool) -> np.ndarray:
    """Colour and geometry statistics of the 10-pixel border or of the whole picture."""
    where = np.ones_like(scan.valid)
    if border:
        where[10:-10, 10:-10] = False
    colour, measured = scan.rgb[where] / 255.0, where & scan.valid
    z = scan.xyz[..., 2][measured]
    slope = np.abs(np.diff(scan.rgb.astype(float).mean(-1), axis=0)).mean()
    return np.array(
        [*colour.mean(0), *colour.std(0), measured.sum() / where.sum(), z.mean(), z.std(),
         *([] if border else [slope])]
    )  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--weights", required=True, help="ViT-Ti/16 weights, timm names, safetensors"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    options = parser.parse_args()
    encoder = load_encoder("vit-tiny-16", weights=options.weights, image_size=SIDE)

    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    by_category: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    groups, render_seconds = [], []
    for seed in options.seeds:
        for category in options.categories:
            data = open_synthetic(category, seed=seed)
            start = time.perf_counter()
            scans = {name: list(getattr(data, name)) for name in ("train", "validation", "test")}
            render_seconds.append(time.perf_counter() - start)
            labels = np.array(data.test.labels)
            types = np.array(data.test.defects)
            views = {name: [pictures(scan) for scan in scans[name]] for name in ("train", "test")}
            maps, scores = {}, {}
            for picture in ("rgb", "normals"):
                shots = np.stack([view[picture] for view in views["train"]])
                tests = np.stack([view[picture] for view in views["test"]])
                maps[picture] = memory_maps(tokens(encoder, shots), tokens(encoder, tests))
                for how, values in mean_image_scores(shots, tests).items():
                    scores[f"mean image, {picture}, {how}"] = values
            maps["sum"] = maps["rgb"] + maps["normals"]
            for picture in PICTURES:
                scores[f"memory, {picture}"] = maps[picture].max((1, 2))
            for place in ("border", "global"):
                normal = np.stack([statistics(s, place == "border")
                                   for s in scans["train"] + scans["validation"]])  # fmt: skip
                found = np.stack([statistics(s, place == "border") for s in scans["test"]])
                found = (found - normal.mean(0)) / (normal.std(0) + 1e-9)
                scores[f"{place} statistics, distance"] = np.sqrt((found**2).mean(-1))
                groups.append((place, found, labels))
            for method, values in scores.items():
                table[method]["all"].append(auroc(values, labels))
                by_category[category][method].append(table[method]["all"][-1])
                for defect in DEFECTS:
                    if (types == defect).any():
                        pick = (types == defect) | (labels == 0)
                        table[method][defect].append(auroc(values[pick], labels[pick]))
            latest = "  ".join(f"{p} {table[f'memory, {p}']['all'][-1]:.3f}" for p in PICTURES)
            print(f"seed {seed}  {category:9s} memory: {latest}", flush=True)

    for place in ("border", "global"):
        table[f"{place} statistics, classifier"]["all"] = classifier_aurocs(
            [(x, y) for name, x, y in groups if name == place]
        )
    write(options, table, by_category, render_seconds)


def classifier_aurocs(groups: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """AUROC on each group of a logistic regression on the statistics of all other groups."""
    from sklearn.linear_model import LogisticRegression

    out = []
    for held, (features, labels) in enumerate(groups):
        others = [g for k, g in enumerate(groups) if k != held]
        x, y = np.concatenate([g[0] for g in others]), np.concatenate([g[1] for g in others])

        def expand(f: np.ndarray) -> np.ndarray:  # values and how unusual they are
            f = np.clip(f, -5, 5)
            return np.concatenate([f, np.abs(f)], -1)

        model = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced").fit(expand(x), y)
        out.append(auroc(model.decision_function(expand(features)), labels))
    return out


def write(options, table, by_category, render_seconds) -> None:
    """The tables as markdown, everything as JSON."""
    mean = {m: {d: float(np.mean(v)) for d, v in row.items()} for m, row in table.items()}
    seeds = " ".join(map(str, options.seeds))
    command = (
        "python experiments/studies/generator_difficulty.py "
        f"--weights vit_tiny_patch16_224.safetensors --seeds {seeds}"
    )
    types = [mean["memory, sum"][defect] for defect in DEFECTS]
    best = [max(mean[f"memory, {p}"][d] for p in ("rgb", "normals")) for d in DEFECTS]
    alone = {p: min(mean[f"memory, {p}"][d] for d in DEFECTS) for p in ("rgb", "normals")}
    shortcut = max(row["all"] for method, row in mean.items() if method.startswith("mean image"))
    target = {
        "distance to the mean image ≤ 0.75": f"{shortcut:.3f} (the strongest of four)",
        **{
            f"{place} statistics ≤ 0.6": " ".join(
                f"{mean[f'{place} statistics, {how}']['all']:.3f} {how}"
                for how in ("distance", "classifier")
            )
            for place in ("border", "global")
        },
        "memory on tokens, 0.75 to 0.95 overall": f"{mean['memory, sum']['all']:.3f}",
        "no type at chance or solved": f"{min(types):.3f} to {max(types):.3f} (sum), "
        f"{min(best):.3f} to {max(best):.3f} (the better picture)",
        "no picture solves every type": ", ".join(
            f"{name} alone: weakest type {value:.3f}" for name, value in alone.items()
        ),
    }
    rows = [
        ["method", "all", *DEFECTS],
        ["*where it is*", "", *(FLAWS[d].modality for d in DEFECTS)],
    ]
    for method, row in mean.items():
        overall = f"{row['all']:.3f} ± {np.std(table[method]['all']):.3f}"
        rows.append([method, overall, *(f"{row[d]:.3f}" if d in row else "" for d in DEFECTS)])
    kinds = [["category", *(f"memory, {p}" for p in PICTURES), "mean image, strongest"]]
    for category, row in by_category.items():
        note = " (held out)" if category in HELD_OUT else ""
        strongest = max(np.mean(v) for m, v in row.items() if m.startswith("mean image"))
        values = [*(np.mean(row[f"memory, {p}"]) for p in PICTURES), strongest]
        kinds.append([category + note, *(f"{value:.3f}" for value in values)])
    text = "\n".join(
        [
            f"# Difficulty of the generated data, version {GENERATOR_VERSION}",
            f"\nGenerator hash `{generator_hash()}`.\n\n    {command}\n",
            "Image AUROC with 5 shots and 60 test scans for each category and seed; mean over "
            f"{len(by_category)} categories and {len(options.seeds)} seeds, ± their standard "
            "deviation.\n",
            markdown([["target", "measured"], *map(list, target.items())]),
            "\nBy type of defect, each against the good scans of its category and seed:\n",
            markdown(rows),
            "\nBy category:\n",
            markdown(kinds),
            f"\nRendering 75 scans of 256×256: {np.median(render_seconds):.1f} s (median, longest "
            f"{max(render_seconds):.1f} s), one process.\n",
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "generator_difficulty.md").write_text(text, encoding="utf-8")
    record = {
        "generator_version": GENERATOR_VERSION,
        "generator_hash": generator_hash(),
        "command": command,
        "seeds": options.seeds,
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
        "mean": mean,
        "per_category_and_seed": table,
        "per_category": by_category,
        "render_seconds": render_seconds,
    }
    path = options.out / "generator_difficulty.json"
    path.write_text(json.dumps(rounded(record)) + "\n", encoding="utf-8")
    print("\n" + text)


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])


def rounded(value):
    """The same with floats to four places."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
