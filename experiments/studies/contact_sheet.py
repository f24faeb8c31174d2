"""A picture of the generated data: parts, defects, masks, and the relief behind them.

    python experiments/studies/contact_sheet.py

One row for each kind of part: two good parts and the relief of the second, then three defects, one
of texture, one of geometry, one of both, each as photograph, relief and mask. The relief is the
measured point map lit from the left, so a defect of texture leaves no trace in it; black is where
the sensor saw nothing. Under a minute; writes contact_sheet.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pirn_jax.scans import Scan
from pirn_jax.scans.synthetic.generator import (
    CATEGORIES,
    HELD_OUT,
    defects_of,
    describe,
    open_synthetic,
)

TILE, CAPTION, GAP, MARGIN = 118, 17, 6, 8
INK, PAPER, SOFT = (25, 25, 25), (255, 255, 255), (110, 110, 110)
# One of texture, geometry, both; all nine types turn up.
SHOWN = {
    "flange": ("scratch", "dent", "contamination"),
    "housing": ("print_missing", "warp", "crack"),
    "biscuit": ("stain", "bump", "hole"),
    "webbing": ("stain", "bump", "hole"),
    "heatsink": ("scratch", "dent", "contamination"),
    "foam": ("stain", "dent", "crack"),
    "rope": ("stain", "warp", "contamination"),
    "dowel": ("print_missing", "dent", "crack"),
}


def photograph(scan: Scan) -> Image.Image:
    """The photograph."""
    assert scan.rgb is not None
    return Image.fromarray(scan.rgb)


def relief(scan: Scan) -> Image.Image:
    """The point map as a lit surface."""
    assert scan.xyz is not None
    xyz = scan.xyz.astype(np.float64)
    down, right = np.gradient(xyz, axis=0), np.gradient(xyz, axis=1)
    normal = np.cross(right, down)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-15)
    normal *= -np.sign(normal[..., 2:])
    light = np.array([-0.62, -0.45, -0.65])
    shade = np.clip(normal @ light / np.linalg.norm(light), 0, 1) * scan.valid
    return Image.fromarray((235 * shade).astype(np.uint8)).convert("RGB")


def strongest(category: str, defect: str, keys: tuple[str, ...]) -> int:
    """The scan of this type that shows it best: strength times the root of the share."""
    records = [describe(category, key) for key in keys]
    return max(
        (k for k, record in enumerate(records) if record.defect == defect),
        key=lambda k: records[k].strength * records[k].share ** 0.5,
    )


def main() -> None:
    """Render and compose."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    options = parser.parse_args()

    columns = 3 + 3 * 3
    groups = [0, 3, 6, 9]  # a gap before each of these columns
    lefts = [
        MARGIN + column * TILE + 3 * GAP * sum(column >= g for g in groups[1:])
        for column in range(columns)
    ]
    row_height = TILE + CAPTION + GAP
    sheet = Image.new(
        "RGB", (lefts[-1] + TILE + MARGIN, 2 * MARGIN + row_height * len(CATEGORIES)), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, category in enumerate(CATEGORIES):
        assert set(SHOWN[category]) <= set(defects_of(category))
        data = open_synthetic(category)
        first, second = data.train[0], data.train[2]
        tiles = [photograph(first), photograph(second), relief(second)]
        captions = [category + (" (held out)" if category in HELD_OUT else "") + ": good"]
        for defect in SHOWN[category]:
            scan = data.test[strongest(category, defect, data.test.keys)]
            record = describe(category, scan.key)
            assert scan.mask is not None
            mask = Image.fromarray(np.where(scan.mask > 0, 255, 40).astype(np.uint8))
            tiles += [photograph(scan), relief(scan), mask.convert("RGB")]
            captions.append(
                f"{defect.replace('_', ' ')} ({record.modality}), "
                f"strength {record.strength:.2f}, {100 * record.share:.1f} %"
            )
        top = MARGIN + row * row_height
        for column, tile in zip(groups, captions, strict=True):
            draw.text((lefts[column], top), tile, INK if column == 0 else SOFT, font=font)
        for left, tile in zip(lefts, tiles, strict=True):
            sheet.paste(tile.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top + CAPTION))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "contact_sheet.png"
    # Six bits a colour: sensor noise below that would double the file.
    Image.fromarray(np.asarray(sheet) // 4 * 4 + 3).save(path, optimize=True)
    print(f"{path}: {sheet.width}×{sheet.height}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
