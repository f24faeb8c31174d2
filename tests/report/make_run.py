"""A small run folder, made by hand in the formats that the commands write."""

import csv
import json
from pathlib import Path

import numpy as np

from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.report.layout import picture_stem
from pirn_jax.scans import Scan
from pirn_jax.scoring import calibrate

THRESHOLD_SCORES = np.array([0.30, 0.33, 0.35, 0.41, 0.38])
SIDE = 48


def write_run(
    folder: Path,
    categories=("flange", "housing"),
    seeds=(0,),
    *,
    defects=("crack", "stain"),
    good=4,
    each=3,
    modalities=("rgb", "normals"),
    masks=True,
    calibrated=True,
    data="generated",
    random=True,
    scans=None,
) -> Path:
    """Write a run folder whose files agree with one another.

    `scans`: a function (category, key) -> Scan, for pictures worth looking at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every: dict[str, dict] = {}
    for category in categories:
        for seed in seeds:
            model = folder / category / f"seed{seed}"
            every.setdefault(category, {})[f"seed{seed}"] = write_model(
                model,
                np.random.default_rng([seed, len(category)]),
                category,
                defects=defects,
                good=good,
                each=each,
                modalities=modalities,
                masks=masks,
                calibrated=calibrated,
                scans=scans,
            )
    dump(folder / "metrics.json", {
        "categories": every,
        "mean": {},
        "data": data,
        "encoder": {"name": "vit-tiny-16", "random": random},
        "recipe": {"name": "default", "changed": {"decoder.prototypes": 50}},
    })  # fmt: skip
    dump(folder / "config.json", {
        "dataset": "synthetic",
        "encoder": "vit-tiny-16",
        "image_size": 224,
        "modalities": list(modalities),
        "method": "pirn",
        "recipe": "default",
        "settings": {"decoder": {"prototypes": 50}, "epochs": 60},
        "geometry": "grid",
        "background": "auto",
        "foreground": "mask",
        "shots": 5,
        "seeds": list(seeds),
    })  # fmt: skip
    dump(folder / "environment.json", {
        "command": ["python", "-m", "pirn_jax.train", "--shots", "5"],
        "packages": {"jax": "0.10.2", "numpy": "2.0.0"},
        "devices": ["cpu:0"],
    })  # fmt: skip
    dump(folder / "split.json", {
        category: {
            f"seed{seed}": {
                "format": "pirn_jax split 1",
                "dataset": "synthetic",
                "category": category,
                "seed": seed,
                "order": "hash",
                "shots": [
                    {"key": f"train/good/{n:03}", "sha256": {"rgb": "0" * 64}} for n in range(5)
                ],
            }
            for seed in seeds
        }
        for category in categories
    })  # fmt: skip
    lines = [
        {"job": f"{c}/seed{s}", "epoch": e, "step": 2 * e, "loss": 0.9 * 0.93**e + 0.02 * (s + 1)}
        for e in range(1, 61)
        for c in categories
        for s in seeds
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_model(
    model, rng, category, *, defects, good, each, modalities, masks, calibrated, scans
) -> dict:
    (model / "maps").mkdir(parents=True)
    (model / "pictures").mkdir()
    kinds = [("good", n) for n in range(good)]
    kinds += [(defect, n) for defect in defects for n in range(each)]
    threshold = calibrate(THRESHOLD_SCORES)
    rows, maps, truths = [], [], []
    for defect, place in kinds:
        key = f"test/{defect}/{place:03}"
        scan = (scans or plain_scan)(category, key)
        bad = defect != "good"
        height, width = scan.rgb.shape[:2]
        truth = scan.mask > 0 if scan.mask is not None else np.zeros((height, width), bool)
        strength = rng.uniform(0.02, 0.6) if bad else 0.0
        base = {m: smooth(rng.normal(size=truth.shape)) * 0.05 + 0.16 for m in modalities}
        each_map = {
            m: np.clip(v + strength / len(base) * smooth(truth * 1.0), 0, 2).astype(np.float32)
            for m, v in base.items()
        }
        fused = np.sum(list(each_map.values()), axis=0, dtype=np.float32)
        score = float(fused.max())
        name = picture_stem(key)
        np.save(model / "maps" / f"{name}.npy", fused)
        arrays = {f"map_{m}": v.astype(np.float16) for m, v in each_map.items()}
        arrays["rgb"] = scan.rgb
        if "normals" in modalities:
            normals = scan.normals if scan.normals is not None else np.zeros_like(scan.rgb)
            arrays["normals"] = np.rint((normals + 1.0) * 127.5).astype(np.uint8)
        if masks:
            arrays["mask"] = truth.astype(np.uint8) * 255
        np.savez_compressed(model / "pictures" / f"{name}.npz", **arrays)
        verdict = int(score > threshold.threshold) if calibrated else ""
        rows.append([key, int(bad), defect, score, verdict])
        maps.append(fused)
        truths.append(truth)
    with (model / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "label", "defect", "score", "pred_label"])
        table.writerows(rows)
    figures = image_metrics(
        np.array([row[3] for row in rows]),
        np.array([row[1] for row in rows]),
        threshold=threshold.threshold if calibrated else None,
    )
    if masks:
        pixels = evaluate_maps(maps, truths, curves=200)
        curves = {name: pixels.pop(name) for name in ("roc", "pro")}
        figures |= pixels
        dump(model / "curves.json", curves)
    if calibrated:
        dump(model / "calibration.json", threshold._asdict())
    usage = rng.dirichlet(np.full(10, 3.0), len(modalities))
    dump(model / "usage.json", {m: u.tolist() for m, u in zip(modalities, usage, strict=True)})
    dump(model / "metrics.json", figures)
    return figures


def plain_scan(category: str, key: str) -> Scan:
    rgb = np.full((SIDE, SIDE, 3), 120, np.uint8)
    rgb[8:40, 8:40] = (150, 140, 90)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if "/good/" not in key:
        mask[20:28, 14:22] = 255
    return Scan(rgb, None, np.ones((SIDE, SIDE), bool), mask=mask, key=key)


def smooth(values: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(values.astype(np.float32), 3)


def dump(path: Path, document) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
