"""How hard are the generated categories? Shortcuts must fail and a strong baseline must not be done.

    python -m experiments.generator_difficulty --weights vit_tiny_patch16_224.safetensors

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
import platform
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, uniform_filter, zoom
from scipy.stats import rankdata

from pirn_jax.scans.synthetic import (
    CATEGORIES,
    DEFECTS,
    GENERATOR_VERSION,
    HELD_OUT,
    open_synthetic,
)
from pirn_jax.scans.synthetic_defects import FLAWS

SIDE = 224
PICTURES = ("rgb", "normals", "sum")


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a defective scan scores above a good one, ties counted half."""
    ranks, bad = rankdata(scores), labels.sum()
    return float((ranks[labels == 1].sum() - bad * (bad + 1) / 2) / (bad * (len(labels) - bad)))


# --- scan to pictures ---------------------------------------------------------------------------


def part_pixels(xyz: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The part: more than 5 mm above the plane through the picture's border, small gaps closed."""
    edge = np.zeros_like(valid)
    edge[:10], edge[-10:], edge[:, :10], edge[:, -10:] = True, True, True, True
    edge &= valid
    design = np.column_stack([xyz[edge][:, :2], np.ones(edge.sum())]).astype(np.float64)
    plane, *_ = np.linalg.lstsq(design, xyz[edge][:, 2].astype(np.float64), rcond=None)
    lifted = xyz[..., :2] @ plane[:2] + plane[2] - xyz[..., 2]
    lifted = lifted / np.sqrt(1 + plane[0] ** 2 + plane[1] ** 2)
    return binary_fill_holes(binary_closing(valid & (lifted > 0.005), iterations=2))


def plane_fit_normals(xyz: np.ndarray, valid: np.ndarray, window: int = 5) -> np.ndarray:
    """Unit normals by least squares of z over x, y in a window, towards the sensor, else zeros."""
    weight = valid.astype(np.float64)
    centre = xyz[valid].astype(np.float64).mean(0)
    x, y, z = np.moveaxis((xyz.astype(np.float64) - centre) * weight[..., None], -1, 0)
    mean = {name: uniform_filter(field, window) for name, field in {
        "n": weight, "x": x, "y": y, "z": z, "xx": x * x, "xy": x * y, "yy": y * y,
        "xz": x * z, "yz": y * z}.items()}  # fmt: skip
    n = np.maximum(mean["n"], 1e-9)
    xx, yy = mean["xx"] - mean["x"] ** 2 / n, mean["yy"] - mean["y"] ** 2 / n
    xy = mean["xy"] - mean["x"] * mean["y"] / n
    xz, yz = mean["xz"] - mean["x"] * mean["z"] / n, mean["yz"] - mean["y"] * mean["z"] / n
    determinant = xx * yy - xy**2
    good = (n > 6 / window**2) & (determinant > 1e-3 * (xx + yy) ** 2 / 4)
    safe = np.where(good, determinant, 1.0)
    slope_x, slope_y = (xz * yy - yz * xy) / safe, (yz * xx - xz * xy) / safe
    normal = np.stack([slope_x, slope_y, -np.ones_like(slope_x)], -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True) * good[..., None]


def pictures(scan) -> dict[str, np.ndarray]:
    """Photograph and normal picture, (SIDE, SIDE, 3) in [0, 1], background black."""
    part = part_pixels(scan.xyz, scan.valid)
    normals = plane_fit_normals(scan.xyz, scan.valid)
    seen = part & normals.any(-1)
    full = {
        "rgb": scan.rgb / 255.0 * part[..., None],
        "normals": (normals + 1) / 2 * seen[..., None],
    }
    factor = SIDE / scan.rgb.shape[0]
    return {name: np.clip(zoom(image, (factor, factor, 1), order=1, grid_mode=True, mode="nearest"), 0, 1)
            for name, image in full.items()}  # fmt: skip


# --- the three kinds of score ---------------------------------------------------------------------


def vit_tokens(weights: str):
    """ViT-Ti/16 in PyTorch: images (B, 224, 224, 3) in [0, 1] -> mean of blocks 2..10, (B, N, C)."""
    import torch
    from safetensors.torch import load_file

    w = load_file(weights)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        return torch.layer_norm(x, (192,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    @torch.no_grad()
    def encode(images: np.ndarray) -> np.ndarray:
        x = torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2) * 2 - 1
        x = torch.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
        total = 0
        for block in range(10):
            name = f"blocks.{block}"
            qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
            q, k, v = qkv.reshape(*x.shape[:2], 3, 3, 64).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + linear(mixed.transpose(1, 2).flatten(2), f"{name}.attn.proj")
            hidden = torch.nn.functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + linear(hidden, f"{name}.mlp.fc2")
            if block >= 1:
                total = total + x[:, 1:]
        return (total / 9).numpy()

    return encode


def memory_maps(shots: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Cosine distance of each test token to the nearest shot token, as smoothed (B, SIDE, SIDE)."""
    bank = shots.reshape(-1, shots.shape[-1])
    bank = bank / np.linalg.norm(bank, axis=-1, keepdims=True)
    tests = tests / np.linalg.norm(tests, axis=-1, keepdims=True)
    far = np.stack([1 - (tokens @ bank.T).max(-1) for tokens in tests])
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", required=True, help="ViT-Ti/16 weights, timm names, safetensors")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    encode = vit_tokens(options.weights)

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
                maps[picture] = memory_maps(encode(shots), encode(tests))
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
            print(f"seed {seed} {category:9s} " + "  ".join(
                f"{name} {values['all'][-1]:.3f}" for name, values in table.items()), flush=True)  # fmt: skip

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
    """The table as markdown, everything as JSON."""
    mean = {m: {d: float(np.mean(v)) for d, v in row.items()} for m, row in table.items()}
    spread = {m: float(np.std(row["all"])) for m, row in table.items()}
    seeds = " ".join(map(str, options.seeds))
    command = "python -m experiments.generator_difficulty --weights vit_tiny_patch16_224.safetensors"
    command += "" if options.seeds == [0, 1, 2] else f" --seeds {seeds}"
    lines = [
        f"# Difficulty of the generated data, generator version {GENERATOR_VERSION}", "",
        f"    {command}", "",
        f"Image AUROC, 5 shots, 60 test scans a category, mean over seeds {seeds} and "
        f"{len(options.categories)} categories; ± is the standard deviation over them.", "",
        "| target | measured |", "| --- | --- |",
        f"| distance to the mean image ≤ 0.75 | {max(v['all'] for m, v in mean.items() if m.startswith('mean image')):.3f} (the strongest of four) |",
        f"| border statistics ≤ 0.6 | {mean['border statistics, distance']['all']:.3f} distance, {mean['border statistics, classifier']['all']:.3f} classifier |",
        f"| global statistics ≤ 0.6 | {mean['global statistics, distance']['all']:.3f} distance, {mean['global statistics, classifier']['all']:.3f} classifier |",
        f"| memory, 0.75 to 0.95 overall | {mean['memory, sum']['all']:.3f} |",
        f"| memory, no type at chance or solved | {min(v for d, v in mean['memory, sum'].items() if d != 'all'):.3f} to {max(v for d, v in mean['memory, sum'].items() if d != 'all'):.3f} |",
        "", "By type of defect (each against the good scans of its category):", "",
        "| method | all | " + " | ".join(DEFECTS) + " |", "| --- " * (len(DEFECTS) + 2) + "|",
        "| *where it is* | | " + " | ".join(FLAWS[d].modality for d in DEFECTS) + " |",
    ]  # fmt: skip
    for method, row in mean.items():
        cells = [f"{row[d]:.3f}" if d in row else "" for d in DEFECTS]
        lines.append(f"| {method} | {row['all']:.3f} ± {spread[method]:.3f} | " + " | ".join(cells) + " |")
    lines += ["", "By category, all types:", "", "| category | " + " | ".join(f"memory, {p}" for p in PICTURES)
              + " | mean image, strongest |", "| --- " * 5 + "|"]  # fmt: skip
    for category, row in by_category.items():
        note = " (held out)" if category in HELD_OUT else ""
        strongest = max(np.mean(v) for m, v in row.items() if m.startswith("mean image"))
        cells = [f"{np.mean(row[f'memory, {p}']):.3f}" for p in PICTURES] + [f"{strongest:.3f}"]
        lines.append(f"| {category}{note} | " + " | ".join(cells) + " |")
    lines += ["", f"Rendering 75 scans of 256×256 took {np.median(render_seconds):.1f} s (median; "
              f"longest {max(render_seconds):.1f} s) in one process.", ""]  # fmt: skip
    text = "\n".join(lines)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "generator_difficulty.md").write_text(text, encoding="utf-8")
    record = {
        "generator_version": GENERATOR_VERSION, "command": command, "seeds": options.seeds,
        "python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine(),
        "mean": mean, "per_category_and_seed": table, "per_category": by_category,
        "render_seconds": render_seconds,
    }  # fmt: skip
    path = options.out / "generator_difficulty.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
