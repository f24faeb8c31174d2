"""What runs by default against memory and subspace, on the real sets: who is ahead, by how much.

    python experiments/real_sets.py --shared ../shared
    python experiments/real_sets.py --shared ../shared --sets cable_gland \
        --out experiments/results/tiles.json --systems default "448 px" "2 x 2 tiles"
    python experiments/real_sets.py --shared ../shared --encoders pirn-tiny \
        --sets cable_gland road flange biscuit --out experiments/results/methods.json \
        --systems default memory subspace simplenet cflow cfm ast

Every system learns from the same shots, seen the same way (square around the part, copies), in the
setting found best for it; `memory, published` is the memory as it is published. With --shifts the
test scans are shown as another lamp, lens or fixture would show them (`harness.shifts`), and the
page says how much of each figure that costs. A unit (an encoder on a set with so many shots, all
draws) is written to --jobs, system by system, and what is there is not measured again unless the
code has changed. Differences have a 95 % interval, by the paired bootstrap of `harness.bootstrap`
over images and draws; a pooled one is the mean over sets, each resampled by itself. Of cookie and
hazelnut_toy the defects were photographed at another exposure: no image figures there.
"""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from jaxtyping import Float

from harness.bootstrap import (
    METRICS,
    Evaluation,
    histograms,
    interval,
    pixels_of,
    replicate,
    resample,
)
from harness.options import command
from harness.provenance import function_hash, source_hash
from harness.shifts import families_of, shifted
from pirn_jax import PIRN, Config, load_encoder, open_dataset
from pirn_jax.config import with_settings
from pirn_jax.decoder import Tokens
from pirn_jax.detector import BATCH, Evaluator, Truth, fit_models, prefetch, view_scan
from pirn_jax.detector.encoders import features_of, with_points
from pirn_jax.encoder import Encoder, in_tiles
from pirn_jax.geometry import Views
from pirn_jax.geometry.prepared import PreparedCache
from pirn_jax.scans import Dataset, Scan, choose_shots
from pirn_jax.storage import read_object, write_json
from pirn_jax.training import FeatureCache, extract

GENERATED_TESTS = 60
REPLICATES = 400
_COPIES = {"jitter": 4, "rotations": 0}
_SCALED = {"normalised": True, "scale": "standardise", "centre_image": True}


class Set(NamedTuple):
    """A set: where it lies, what of it is used, whether its image scores prove nothing."""

    dataset: str
    folder: str
    category: str
    modalities: tuple[str, ...]
    exposure_differs: bool = False


BOTH = ("rgb", "normals")
SETS = {
    "cable_gland": Set("mvtec3d", "mvtec3d_rgbxyz", "cable_gland", BOTH),
    "road": Set("mvtec3d", "mvtec3d_rgbxyz", "road", BOTH),
    "flange": Set("synthetic", "", "flange", BOTH),
    "biscuit": Set("synthetic", "", "biscuit", BOTH),
    "tire": Set("mvtec3d", "mvtec3d_rgb", "tire", ("rgb",)),
    "road, RGB": Set("mvtec3d", "mvtec3d_rgbxyz", "road", ("rgb",)),
    "cookie": Set("mvtec2d", "mvtec2d", "cookie", ("rgb",), exposure_differs=True),
    "hazelnut_toy": Set("mvtec2d", "mvtec2d", "hazelnut_toy", ("rgb",), exposure_differs=True),
}
POOLS = {
    "RGB + geometry": ("cable_gland", "road", "flange", "biscuit"),
    "photographs": ("tire", "road, RGB", "cookie", "hazelnut_toy"),
}
FIGURES = {
    "i_auroc": "I-AUROC",
    "p_auroc": "P-AUROC",
    "aupro_0.3": "AUPRO@30 %",
    "aupro_0.05": "AUPRO@5 %",
}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("mixture", {}),
    "memory": ("memory", _COPIES | _SCALED | {"distance": "euclidean"}),
    "memory, other light": (
        "memory",
        _COPIES | _SCALED | {"distance": "euclidean", "photometric": 4},
    ),
    "memory, own level": (
        "memory",
        _COPIES | _SCALED | {"distance": "euclidean", "own_level": 0.25},
    ),
    "memory, published": ("memory", {}),
    "subspace": ("subspace", _COPIES | _SCALED),
    "inp-former": ("inp-former", {}),
    "inp-former, no copies": ("inp-former", {"augment": False}),
    "blocks as they are": ("mixture", {"normalised": False, "top": 0.01}),
    "simplenet": ("simplenet", _COPIES | _SCALED),
    "cflow": ("cflow", _COPIES | _SCALED),
    "cfm": ("cfm", _COPIES | _SCALED),
    "ast": ("ast", _COPIES | _SCALED),
    "m3dm": ("m3dm", _COPIES | _SCALED),
    "m3dm, coreset": ("m3dm", _COPIES | _SCALED | {"share": 0.1}),
    "m3dm, SVM": ("m3dm", _COPIES | _SCALED | {"decision": "one_class_svm"}),
    "btf": ("btf", {}),
    "btf, coreset": ("btf", {"share": 0.1}),
    "btf, unscaled": ("btf", {"balance": False}),
    "shape-guided": ("shape-guided", _COPIES | _SCALED),
    "memory of FPFH": ("memory", {"features": "fpfh"}),
    "no pseudo-defects": ("mixture", {"pseudo_defects": "off"}),
    "pseudo-defects on all": ("mixture", {"pseudo_defects": "on"}),
    "own level left in": ("mixture", {"own_level": 0.0}),
    "no other light": ("mixture", {"photometric": 0, "prior": 20.0}),
    "10 prototypes": ("mixture", {"prototypes": 10}),
    "1 prototype": ("mixture", {"prototypes": 1}),
    "balanced": ("mixture", {"balanced": True}),
    "whole frame": ("mixture", {"view": "frame"}),
    "poses as given": ("mixture", {"rotations": 1}),
    "pirn, trained": ("pirn", {}),
    "392 px": ("mixture", {}),
    "448 px": ("mixture", {}),
    "560 px": ("mixture", {}),
    "2 x 2 tiles": ("mixture", {}),
    "3 x 3 tiles": ("mixture", {}),
    "whole frame, 2 x 2 tiles": ("mixture", {"view": "frame"}),
}
"""Each by its method and what differs from its recipe."""
SEEN: dict[str, dict[str, Any]] = {
    "392 px": {"image_size": 392},
    "448 px": {"image_size": 448},
    "560 px": {"image_size": 560},
    "2 x 2 tiles": {"tiles": 2},
    "3 x 3 tiles": {"tiles": 3},
    "whole frame, 2 x 2 tiles": {"tiles": 2},
}
"""What differs from `Options.size` in one piece, by system."""
FILES: dict[str, str | None] = {
    "pirn-tiny": None,
    "dinov2-small": "dinov2_small_fp16.safetensors",
    "vit-tiny-16": "vit_tiny_patch16_224.safetensors",
}
_RULES = {"dinov2-small": "hf"}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    shared: Path = Path("../shared")
    """The folder with real sets (data/) and weights (weights/)."""
    out: Path = Path("experiments/results/real_sets.json")
    """Figures and differences; the table beside it, as .md."""
    jobs: Path = Path("runs/real_sets")
    """One file for each unit."""
    encoders: tuple[str, ...] = ("pirn-tiny", "dinov2-small")
    """Of pirn-tiny, dinov2-small, vit-tiny-16."""
    systems: tuple[str, ...] = (
        "default",
        "memory",
        "memory, other light",
        "memory, published",
        "subspace",
    )
    """Which systems; the first is compared with the others."""
    sets: tuple[str, ...] = tuple(SETS)
    """Which sets."""
    shots: tuple[int, ...] = (5,)
    """How many shots."""
    draws: tuple[int, ...] = (0, 1, 2)
    """Seeds: each chooses the shots and starts what is random."""
    size: int = 224
    """Side of the pictures in pixels."""
    shifts: tuple[str, ...] = ()
    """Shifts of the test scans beside these as they are: gradient, colour, gamma, blur, tilt."""
    prepared: Path | None = None
    """Folder of normals that `python -m pirn_jax.prepare` made; they are the same without."""


def main(options: Options) -> None:
    """Measure what is missing, unit by unit, and print the table."""
    units, code = {}, function_hash(measure) + source_hash()
    for encoder, shots, chosen in product(options.encoders, options.shots, options.sets):
        about = (encoder, chosen.replace(", ", "_"), shots, options.size, *options.draws)
        name = "-".join(map(str, about))
        path = options.jobs / f"{name}.json"
        unit = read_object(path) if path.is_file() else {}
        if unit.get("code") != code:  # of other code: never on one page with this one's
            unit = {"code": code}
        views = shown_as(chosen, options)
        missing = [
            system
            for system in options.systems
            if not all(named(system, family) in unit for family in views)
        ]
        for found in measure(encoder, chosen, shots, missing, options) if missing else ():
            unit |= found
            write_json(path, unit)
            print(name, {k: shown(one["figures"]) for k, one in found.items()}, flush=True)
        units[encoder, shots, chosen] = unit
    page, record = report(units, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, record)
    options.out.with_suffix(".md").write_text(page)
    print(page)


def shown_as(chosen: str, options: Options) -> list[str | None]:
    """How the test scans of a set are shown: as they are, and under the shifts that it can show."""
    able = families_of(SETS[chosen].modalities)
    return [None, *(family for family in options.shifts if family in able)]


def named(system: str, family: str | None) -> str:
    """What a unit calls a system's figures under a shift."""
    return system if family is None else f"{system} | {family}"


def measure(
    encoder_name: str, chosen: str, shots: int, systems: Sequence[str], options: Options
) -> Iterator[dict[str, Any]]:
    """Of a unit: figures of each draw, and what the bootstrap makes of the images.

    Yields:
        Of one system, by its name and by its name and shift: `figures` (one dict a draw), `fit_s`,
        `encode_ms` (a scan's pictures, the fastest of five times), `judge_ms` (its tokens at hand;
        of the fastest draw, as is `fit_s`), `stored_mb`, and `replicates` by metric.
    """
    about = SETS[chosen]
    data = open_set(about, options.shared)
    families = shown_as(chosen, options)
    prepared = PreparedCache(options.prepared)
    seen: dict[object, tuple[Tokens, list[Truth]]] = {}
    encoders: dict[object, Encoder] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        for system in systems:
            method, change = SYSTEMS[system]
            figures: dict[str | None, list[dict[str, float]]] = {f: [] for f in families}
            evaluations: dict[str | None, list[Evaluation]] = {f: [] for f in families}
            seconds, judging, stored = [], [], 0
            sight: dict[str, Any] = {"image_size": options.size} | SEEN.get(system, {})
            for draw in options.draws:
                config = with_settings(
                    Config(
                        encoder=encoder_name,
                        method=method,
                        modalities=about.modalities,
                        seed=draw,
                        **sight,
                    ),
                    change,
                )
                sees = (config.image_size, config.tiles, features_of(config))
                if sees not in encoders:
                    encoders[sees] = encoder_of(config, options.shared)
                model = PIRN(config, encoder=encoders[sees], prepared=prepared)
                keys = choose_shots(data.train.keys, shots, draw, about.dataset, about.category)
                start = time.perf_counter()
                fit_models([model], [data.train.select(keys)], [system], cache=cache)
                seconds.append(time.perf_counter() - start)
                decided = (model.config.background, model.config.part_side)
                looks = (*decided, model.config.encoder_layers(), *sees)
                stored = sum(array.nbytes for array in jax.tree.leaves(model.parameters))
                for family in families:
                    if (looks, family) not in seen:
                        scans = shifted(data.test, family)
                        seen[looks, family] = tests_of(scans, model)
                    tokens, truths = seen[looks, family]
                    figure, evaluation, spent = judged(model, tokens, truths)
                    judging.append(1000 * spent / len(truths))
                    figures[family].append(figure)
                    evaluations[family].append(evaluation)
            bad = np.array([truth.label == 1 for truth in truths])
            seed = zlib.crc32(chosen.encode())  # another one for each set
            chosen_images = resample(bad, len(options.draws), REPLICATES, seed)
            found: dict[str, Any] = {}
            for family in families:
                draws = replicate(evaluations[family], bad, chosen_images)
                found[named(system, family)] = {
                    "figures": figures[family],
                    "fit_s": round(min(seconds), 1),
                    "encode_ms": round(encoding_ms(model), 1),
                    "judge_ms": round(min(judging), 2),
                    "stored_mb": round(stored / 1e6, 2),
                    "replicates": {name: np.round(draws[name], 5).tolist() for name in METRICS},
                }
            yield found


def open_network(name: str, shared: Path, size: int) -> Encoder:
    """The encoder of pictures, with its real weights."""
    file = FILES[name]
    weights = None if file is None else shared / "weights" / file
    return load_encoder(name, weights, size, position_rule=_RULES.get(name))


def open_set(about: Set, shared: Path) -> Dataset:
    """The set, or so many parts as are generated of it."""
    if about.dataset == "synthetic":
        counts = {"train": 15, "test": GENERATED_TESTS}
        return open_dataset(about.dataset, None, about.category, **counts)
    # mvtec3d wants point clouds unless told otherwise.
    flat = about.dataset == "mvtec3d" and about.modalities == ("rgb",)
    given: dict[str, Any] = {"modalities": ("rgb",)} if flat else {}
    return open_dataset(about.dataset, shared / "data" / about.folder, about.category, **given)


def encoder_of(config: Config, shared: Path) -> Encoder:
    """The encoder of a config, its weights in the shared folder."""
    network = open_network(config.encoder, shared, config.image_size)
    return with_points(in_tiles(network, config.tiles), config)


def encoding_ms(model: PIRN) -> float:
    """What the encoder takes for the pictures of one scan."""
    shape = (len(model.config.modalities), *model.encoder.image_size, 3)
    pictures, times = np.random.default_rng(0).random(shape, np.float32), []
    for _ in range(6):  # the first compiles
        start = time.perf_counter()
        model.encoder(pictures).block_until_ready()
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])


def tests_of(scans: Iterable[Scan], model: PIRN) -> tuple[Tokens, list[Truth]]:
    """Tokens and truth of the test scans, seen as this detector sees them."""
    truths: list[Truth] = []

    def look(scan: Scan) -> Views:
        return view_scan(scan, model.config, model.prepared)

    def views() -> Iterator[Views]:
        for scan, view in prefetch(scans, look, 2 * BATCH):
            truths.append(Truth.of(scan, view))
            yield view

    return extract(model.encoder, views(), model.config.modalities, batch=BATCH), truths


def judged(
    model: PIRN, tokens: Tokens, truths: Sequence[Truth]
) -> tuple[dict[str, float], Evaluation, float]:
    """Exact figures, what the bootstrap needs, and the seconds that judging took."""
    evaluator, maps = Evaluator(), []
    start = time.perf_counter()
    found = list(model.predict_tokens(tokens))
    spent = time.perf_counter() - start
    for truth, inferred in zip(truths, found, strict=True):
        evaluator.add(truth, inferred)
        maps.append(truth.frame.to_scan(inferred.fused))
    figures, _ = evaluator.figures()
    pixels = [pixels_of(truth.mask) for truth in truths if truth.mask is not None]
    evaluation = Evaluation(np.array(evaluator.scores), histograms(maps, pixels))
    kept = {name: round(figures[name], 4) for name in FIGURES}
    return kept, evaluation, spent


def report(
    units: dict[tuple[str, int, str], dict[str, Any]], options: Options
) -> tuple[str, dict[str, Any]]:
    """The page as Markdown, and the record without the replicates."""
    first, *others = options.systems
    measured = next(iter(units.values()))[first]["figures"][0]
    lines = [
        f"Written by `{command()}`. {' / '.join(FIGURES[name] for name in measured)}, means "
        f"of {len(options.draws)} draws of the shots, {options.size} px. Differences in points, "
        "with their 95 % interval; **bold** where it excludes 0.",
    ]
    record: dict[str, Any] = {"size": options.size, "draws": list(options.draws), "units": []}
    for encoder, shots in product(options.encoders, options.shots):
        names = [chosen for chosen in options.sets if (encoder, shots, chosen) in units]
        lines += ["", f"**{encoder}, {shots} shots**", ""]
        lines += ["| system | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
        for system in options.systems:
            cells = []
            for chosen in names:
                unit = units[encoder, shots, chosen][system]
                cells.append(shown(unit["figures"], SETS[chosen].exposure_differs))
                for family in shown_as(chosen, options):
                    unit = units[encoder, shots, chosen][named(system, family)]
                    record["units"].append(
                        {"encoder": encoder, "shots": shots, "set": chosen, "system": system}
                        | ({} if family is None else {"shift": family})
                        | {name: unit[name] for name in unit if name != "replicates"}
                    )
            lines.append(f"| {system} | {' | '.join(cells)} |")
        unit = units[encoder, shots, names[0]]
        spent = ", ".join(
            f"{system} {unit[system]['encode_ms']:.0f} + {unit[system]['judge_ms']:.0f} ms"
            for system in options.systems
        )
        lines += ["", f"Encoding and judging a scan of {names[0]}: {spent}."]
        lines += ["", f"| {first} ahead of | pool | I-AUROC | P-AUROC | AUPRO |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for other, (pool, members) in product(others, POOLS.items()):
            pairs = [(SETS[name], units[encoder, shots, name]) for name in members if name in names]
            if not pairs:
                continue
            cells = [in_points(difference(metric, pairs, first, other)) for metric in METRICS]
            lines.append(f"| {other} | {pool} | {' | '.join(cells)} |")
        if options.shifts:
            lines += shift_table(units, encoder, shots, names, options)
    lines.append(f"\n{os.cpu_count()} processors; seconds to fit are in the JSON file.")
    return "\n".join(lines) + "\n", record


def shift_table(
    units: dict[tuple[str, int, str], dict[str, Any]],
    encoder: str,
    shots: int,
    names: Sequence[str],
    options: Options,
) -> list[str]:
    """What shifts cost each system, and by how much more they cost the others than the first.

    A cell is the mean over the pool's sets of a set's mean over the shifts that it can show.
    """
    first, *others = options.systems
    lines = ["", "| points lost under shift | pool | I-AUROC | P-AUROC | AUPRO |"]
    lines += ["| --- | --- | --- | --- | --- |"]

    def lost(system: str, metric: str, members: Sequence[str]) -> Difference | None:
        kept = []
        for name in members:
            if metric == METRICS[0] and SETS[name].exposure_differs:
                continue
            unit = units[encoder, shots, name]
            moved = [
                taken(unit[system], metric) - taken(unit[named(system, family)], metric)
                for family in shown_as(name, options)
                if family is not None
            ]
            if moved:
                kept.append(np.mean(moved, axis=0))
        return pooled(kept)

    for pool, every in POOLS.items():
        members = [name for name in every if name in names]
        if not members:
            continue
        own = {metric: lost(first, metric, members) for metric in METRICS}
        cells = [in_points(own[metric]) for metric in METRICS]
        lines.append(f"| {first} | {pool} | {' | '.join(cells)} |")
        for other in others:
            cells = []
            for metric in METRICS:
                mine, theirs = own[metric], lost(other, metric, members)
                more = None
                if mine is not None and theirs is not None:
                    value = theirs.value - mine.value
                    more = Difference(value, theirs.replicates - mine.replicates)
                cells.append(in_points(more))
            lines.append(f"| {other}, more than {first} | {pool} | {' | '.join(cells)} |")
    return lines


class Difference(NamedTuple):
    """Of a figure, in points: what was measured, and the bootstrap's replicates of it."""

    value: float
    replicates: Float[np.ndarray, " R"]


def in_points(found: Difference | None) -> str:
    """A difference with its 95 % interval, bold where that excludes 0."""
    if found is None:
        return "–"
    value, low, high = interval(*found)
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def taken(unit: dict[str, Any], metric: str) -> Float[np.ndarray, " R"]:
    """One figure of a system in points: the mean over the draws, then the replicates."""
    measured = np.mean([figures[metric] for figures in unit["figures"]])
    return 100 * np.array([measured, *unit["replicates"][metric]])


def difference(
    metric: str, pairs: Sequence[tuple[Set, dict[str, Any]]], first: str, other: str
) -> Difference | None:
    """Mean over sets of one figure's difference."""
    image = metric == METRICS[0]
    return pooled(
        taken(unit[first], metric) - taken(unit[other], metric)
        for about, unit in pairs
        if not (image and about.exposure_differs)
    )


def pooled(each: Iterable[Float[np.ndarray, " R"]]) -> Difference | None:
    """The mean over sets; None of none."""
    arrays = list(each)
    if not arrays:
        return None
    mean = np.mean(arrays, axis=0)
    return Difference(float(mean[0]), mean[1:])


def shown(figures: Sequence[dict[str, float]], exposure_differs: bool = False) -> str:
    """Means over the draws."""
    means = [f"{np.mean([one[name] for one in figures]):.3f}" for name in figures[0]]
    return " / ".join(["–", *means[1:]] if exposure_differs else means)


if __name__ == "__main__":
    main(tyro.cli(Options))
