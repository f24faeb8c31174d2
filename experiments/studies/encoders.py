"""What the small encoders are worth on the real sets: the table of docs/encoders.md.

    python experiments/studies/encoders.py --shared ../shared

Each encoder with the memory and with the default recipe, 5 shots, three draws of the shots, on five
real sets; of the sets whose defects were photographed at another exposure only the pixel figures
count. Every cell is written when it is done, and a second call goes on where the first one stopped.
`--sizes 448` measures the memory at another picture size. Times are the least of several, warm, on
whatever else the machine does meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from pirn_jax import PIRN, Config, load_encoder, open_dataset
from pirn_jax.encoder import Encoder
from pirn_jax.scans import choose_shots

Cell = dict[str, float | None]

SHOTS = 5
CALLS = 8  # of which the fastest counts


class Set(NamedTuple):
    """A real set: where it lies, what of it is used, whether its image scores prove nothing."""

    dataset: str
    folder: str
    modalities: tuple[str, ...]
    exposure_differs: bool = False


SETS = {
    "tire": Set("mvtec3d", "mvtec3d_rgb", ("rgb",)),
    "road": Set("mvtec3d", "mvtec3d_rgbxyz", ("rgb", "normals")),
    "cable_gland": Set("mvtec3d", "mvtec3d_rgbxyz", ("rgb", "normals")),
    "cookie": Set("mvtec2d", "mvtec2d", ("rgb",), exposure_differs=True),
    "hazelnut_toy": Set("mvtec2d", "mvtec2d", ("rgb",), exposure_differs=True),
}
FILES: dict[str, str | None] = {
    "pirn-tiny": None,
    "vit-tiny-16": "vit_tiny_patch16_224.safetensors",
    "dinov2-small": "dinov2_small_fp16.safetensors",
}
RULES = {"dinov2-small": "hf"}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    shared: Path = Path("../shared")
    """The folder with real sets (data/) and weights (weights/)."""
    out: Path = Path("experiments/results/encoders.json")
    """Where the cells are kept; cells found there are not measured again."""
    encoders: tuple[str, ...] = tuple(FILES)
    """Which encoders."""
    methods: tuple[str, ...] = ("memory", "default")
    """memory, or default: what runs unless told otherwise."""
    sets: tuple[str, ...] = tuple(SETS)
    """Which sets."""
    draws: tuple[int, ...] = (0, 1, 2)
    """Seeds; each chooses the shots and starts the parameters."""
    sizes: tuple[int, ...] = (224,)
    """Sides of the pictures in pixels."""


def main(options: Options) -> None:
    """Measure what is missing, cell by cell, and print the tables."""
    known = json.loads(options.out.read_text()) if options.out.is_file() else {"cells": {}}
    cells: dict[str, Cell] = known["cells"]
    for method, draw, size, name in product(
        options.methods, options.draws, options.sizes, options.encoders
    ):
        missing = [s for s in options.sets if key_of(name, method, s, draw, size) not in cells]
        if not missing:
            continue
        file = FILES[name]
        weights = None if file is None else options.shared / "weights" / file
        encoder = load_encoder(name, weights, size, position_rule=RULES.get(name))
        for chosen in missing:
            cell = measure(encoder, method, chosen, draw, options.shared / "data")
            cells[key_of(name, method, chosen, draw, size)] = cell
            write(options.out, {"processors": os.cpu_count(), "cells": cells})
            print(name, method, chosen, draw, size, cell, flush=True)
    for size in options.sizes:
        print(f"\n{size} px\n{table(cells, size)}")


def key_of(encoder: str, method: str, chosen: str, draw: int, size: int) -> str:
    """A cell's name."""
    return f"{encoder} {method} {chosen} {draw} {size}"


def measure(encoder: Encoder, method: str, chosen: str, draw: int, data: Path) -> Cell:
    """One cell: fit on the draw's shots, judge the test scans, time a scan.

    Args:
        encoder: as loaded.
        method: memory or default.
        chosen: of SETS.
        draw: the seed.
        data: the folder of the sets.

    Returns:
        The figures (no image figure where the exposure gives it away), seconds to fit with
        compilation, milliseconds of the encoder for a picture and its normals, and of a whole
        prediction.
    """
    about = SETS[chosen]
    # mvtec3d wants point clouds unless told otherwise, and tire has none.
    photographs = about.dataset == "mvtec3d" and about.modalities == ("rgb",)
    options = {"modalities": ("rgb",)} if photographs else {}
    opened = open_dataset(about.dataset, data / about.folder, chosen, **options)
    keys = choose_shots(opened.train.keys, SHOTS, draw, about.dataset, chosen)
    shots = [opened.train[opened.train.keys.index(key)] for key in keys]
    config = Config(
        encoder=encoder.config.name,
        image_size=encoder.image_size[0],
        modalities=about.modalities,
        method="memory" if method == "memory" else "auto",
        seed=draw,
    )
    start = time.perf_counter()
    model = PIRN(config, encoder=encoder).fit(shots)
    fitted = time.perf_counter() - start
    figures = model.evaluate(opened.test)
    scan = opened.test[0]
    pair = np.random.RandomState(0).rand(2, *encoder.image_size, 3).astype(np.float32)
    return {
        "i_auroc": None if about.exposure_differs else figures["i_auroc"],
        "p_auroc": figures["p_auroc"],
        "aupro_0.3": figures["aupro_0.3"],
        "fit_s": round(fitted, 1),
        "encoder_ms": fastest(lambda: encoder(pair).block_until_ready()),
        "predict_ms": fastest(lambda: model.predict(scan)),
    }


def fastest(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of several warm calls."""
    call()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return round(min(times), 1)


def write(path: Path, document: Mapping[str, object]) -> None:
    """The file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(partial, path)


def table(cells: Mapping[str, Cell], size: int) -> str:
    """The cells as Markdown: means over the draws there are; what is not there says so.

    Of the last column: the encoder's time for a picture and its normals, and a whole prediction's.
    """
    lines = [
        "| encoder | method | " + " | ".join(SETS) + " | ms a pair: encoder, all |",
        "| --- | --- |" + " --- |" * (len(SETS) + 1),
    ]
    for name, method in product(FILES, ("memory", "default")):
        row, pairs = [], []
        for chosen, about in SETS.items():
            keys = (key_of(name, method, chosen, draw, size) for draw in (0, 1, 2))
            found = [cells[key] for key in keys if key in cells]
            row.append(_shown(found))
            pairs += found if about.modalities == ("rgb", "normals") else []
        least = [
            f"{min(t for c in pairs if (t := c[kind]) is not None):.0f}" if pairs else ""
            for kind in ("encoder_ms", "predict_ms")
        ]
        times = ", ".join(least) if pairs else "not measured"
        lines.append(f"| {name} | {method} | {' | '.join(row)} | {times} |")
    return "\n".join(lines)


def _shown(found: Sequence[Cell]) -> str:
    if not found:
        return "not measured"
    shown = []
    for name in ("i_auroc", "p_auroc", "aupro_0.3"):
        values = [value for cell in found if (value := cell[name]) is not None]
        shown.append(f"{np.mean(values):.3f}" if values else "–")
    few = "" if len(found) == 3 else f" ({len(found)} draw{'s' if len(found) > 1 else ''})"
    return " / ".join(shown) + few


if __name__ == "__main__":
    main(tyro.cli(Options))
