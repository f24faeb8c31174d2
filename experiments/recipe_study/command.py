"""The recipe study: is the default better than the baselines, and is every part of it needed?

    python experiments/recipe_study --weights vit_tiny_patch16_224.safetensors --data-root DATA
    python experiments/recipe_study --grid full --encoder dinov2-base --image-size 224 448
    python experiments/recipe_study --report-only         # the page again, from the JSON

Writes experiments/results/recipe.json, its figures, and experiments/results/recipe.md, in which the
section "Conclusions" is typed by a person and kept. A killed study goes on where it was (`--out`),
and pictures are encoded once (`--cache`). Any encoder will do; the report names it.

The protocol below was committed before the runs; `rows.py` holds the same as data.

PROTOCOL

Sets. Generated parts (frozen by hash) with RGB + normals; two kinds, rope and dowel, choose nothing
and are only reported on. Real: road (RGB + normals, and RGB alone; the plane is the part, nothing
is removed), tire, cookie, hazelnut_toy (RGB). cookie and hazelnut_toy were photographed at another
exposure where they are defective: pixel metrics only. For every set the report says what the
colour of the border alone scores, and what each system scores with the defect cut out of its map.

Metrics. I-AUROC, P-AUROC, AUPRO up to 30 % false positives. A set's quality, by which options are
chosen, is the mean of those that count for it.

Shots. 5 is the main figure, 10 and 1 beside it. Draws of the shots (`draw`) and the seed of the
initialisation are apart: draws 0, 1, ... all with seed 0; further seeds at draw 0 alone. A grid may
look at fewer draws under shift; a drop is of the same draws, clean and shifted.

Systems. `default` as committed; `paper`, the equations to the letter; memory, subspace and
INP-Former with their named options; and "ours, chosen": the best of default and the rows of the
questions that keep APR, BPA and MNC.

Selection. Leave one set out: for a set to be reported on, each system with options (ours among
them) takes the one whose quality is best on the other sets, unshifted, 5 shots, first size: the
mean over the generated kinds that may choose, as one, and the real sets. Ties go to the option
named first. Road and road RGB are one set. Shifted scans choose nothing.

Shifts. Test scans, good and defective alike, under `shifts.py`: gradient, colour, gamma, blur, and
tilt where there is geometry. A shifted figure is the mean over a set's families, its drop the clean
figure less that. None of the families is in any augmentation.

Differences. Paired bootstrap over images (good and defective apart) and draws, 95 % percentile
interval; pooled over sets as `rows.POOLS` says, sets resampled each by itself. With
different numbers of draws, the draws both have are compared.

Questions. Every row against default on the sets that choose, unshifted, 5 shots, first size.

Apart. Defects of texture, of geometry and of both (generated); those over 20 % of the picture.

Size. The first --image-size is the study; at each further one the main comparison is repeated on
the real sets with 5 shots, each system in the setting that the first size chose. The grids differ
in kinds, scans, draws and rows (`rows.GRIDS`). In the reduced grid INP-Former, whose authors
train 200 epochs on 22 copies of each shot, is trained for as many epochs without the copies, on one
draw, with 5 shots, on rope, dowel, road and tire alone; the full grid has both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pirn_jax.storage import read_object, write_whole
from recipe_study.analysis import choose, record
from recipe_study.report import write_report
from recipe_study.rows import GENERATED, GRIDS, REAL, TestSet
from recipe_study.study import Study, run_main, run_selection


def open_sets(options: argparse.Namespace) -> list[TestSet]:
    """The generated sets of the grid, and the real ones that are there."""
    kinds = GRIDS[options.grid].kinds
    sets = [one for one in GENERATED if not one.selects or one.name in kinds]
    for one in REAL:
        if options.data_root and (Path(options.data_root) / one.folder / one.place).is_dir():
            sets.append(one)
        else:
            print(f"{one.name} is not at hand and is left out", file=sys.stderr)
    if options.sets:
        sets = [one for one in sets if one.name in options.sets]
    return sets


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    here = Path(__file__).resolve().parents[1]  # experiments/
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--grid", choices=GRIDS, default="reduced")
    parser.add_argument("--encoder", default="vit-tiny-16")
    parser.add_argument("--weights", help="its file; without it the cache, then the hub")
    parser.add_argument("--image-size", type=int, nargs="+", default=[224])
    parser.add_argument("--data-root", help="holds mvtec3d_rgb, mvtec3d_rgbxyz, mvtec2d")
    parser.add_argument("--sets", nargs="+", help="only these")
    parser.add_argument("--rows", nargs="+", help="of the questions only these")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"), help="of single results")
    parser.add_argument("--cache", help="of features and programs")
    parser.add_argument("--results", type=Path, default=here / "results", help="JSON and figures")
    parser.add_argument("--report", type=Path, default=here / "results" / "recipe.md")
    parser.add_argument("--dry", action="store_true", help="only say how long it may take")
    parser.add_argument("--report-only", action="store_true", help="write the report again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, analyse, write."""
    options = parse(arguments)
    file = options.results / "recipe.json"
    if not options.report_only:
        study = Study(options, open_sets(options))
        run_selection(study)
        if options.dry:  # as if the first option were chosen for every set
            run_main(study, {s: dict.fromkeys(study.sets, rows[0])
                             for s, rows in study.systems.items()})  # fmt: skip
            return
        chosen, qualities = choose(study)
        run_main(study, chosen)
        options.results.mkdir(parents=True, exist_ok=True)
        found = json.dumps(record(study, chosen, qualities), ensure_ascii=False, allow_nan=False)
        write_whole(file, found.encode() + b"\n")
    write_report(read_object(file), __doc__ or "", options.report, options.results)
    print(options.report)


if __name__ == "__main__":
    main()
