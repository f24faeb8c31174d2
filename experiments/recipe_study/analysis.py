"""From the results of the recipe study to its record: options chosen, figures, differences.

Dimension letters: n images.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from harness.bootstrap import METRICS, mean_figures
from harness.changes import labels_of
from harness.evaluation import evaluation_of
from harness.jobs import describe
from harness.shifts import SHIFTS_VERSION
from pirn_jax.detector import open_encoder
from pirn_jax.storage import cache_folder
from recipe_study.cells import Analysis, Cell, mean_of
from recipe_study.rows import DEFAULT, POOLS, TestSet, Variant
from recipe_study.shortcuts import border_figures
from recipe_study.study import SLOW, SYSTEMS, Study, main_variants

LARGE = 0.2
"""Of the picture: defects that cover more are listed apart."""


# --- selection ------------------------------------------------------------------------------------


def quality(value: Mapping[str, float]) -> float:
    """Of a set: the mean of the metrics that count."""
    return float(np.mean([value[m] for m in METRICS if np.isfinite(value[m])]))


def choose(study: Study) -> tuple[dict[str, dict[str, Variant]], dict[str, Any]]:
    """For every system with options and every set, the option that is best on the other sets.

    Returns:
        The variant, by system and set; and the qualities it was chosen by, by system, variant and
        set.
    """
    analysis = Analysis(study)
    chosen: dict[str, dict[str, Variant]] = {}
    qualities: dict[str, Any] = {}
    for system, variants in study.systems.items():
        draws, table = study.selection_draws(system), {}
        for variant in variants:
            cells = {s.name: analysis.cell(variant, s, draws) for s in study.selection_sets()}
            table[variant.name] = {
                name: round(quality(cell.value), 4) for name, cell in cells.items() if cell
            }
        qualities[system] = table
        chosen[system] = {
            one.name: max(
                variants, key=lambda variant, t=table, o=one: _score(study, t[variant.name], o)
            )
            for one in study.sets.values()
        }
    return chosen, qualities


def _score(study: Study, found: Mapping[str, float], left_out: TestSet) -> float:
    """Mean over the other sets, generated ones counting as one."""
    others = [s for s in study.selection_sets() if s.place != left_out.place]
    generated = [found[s.name] for s in others if s.generated and s.name in found]
    units = [found[s.name] for s in others if not s.generated and s.name in found]
    units += [float(np.mean(generated))] if generated else []
    return float(np.mean(units)) if units else 0.0


# --- the record -----------------------------------------------------------------------------------


def record(
    study: Study, chosen: dict[str, dict[str, Variant]], qualities: dict[str, Any]
) -> dict[str, Any]:
    """Everything the report says, as JSON."""
    analysis = Analysis(study)
    sizes, cache = study.options.image_size, cache_folder(study.options.cache)
    beside = {"5 shots": {}, "10 shots": {"shots": 10}, "1 shot": {"shots": 1}}
    main = {
        f"{sizes[0]} px, {shots}": _comparison(analysis, chosen, **which)
        for shots, which in beside.items()
    }
    for size in sizes[1:]:
        main[f"{size} px, 5 shots"] = _comparison(analysis, chosen, size=size)
    return {
        "about": _about(study),
        "sets": {one.name: _about_set(study, one) for one in study.sets.values()},
        "qualities": qualities,
        "chosen": {
            s: {name: variant.name for name, variant in variants.items()}
            for s, variants in chosen.items()
        },
        "main": main,
        "questions": _questions(analysis),
        "apart": _apart(analysis, chosen),
        "spread": _spread(analysis),
        "shortcuts": {
            one.name: border_figures(one, study.jobs(DEFAULT, one)[0], cache)
            | _cut(analysis, chosen, one)
            for one in study.sets.values()
        },
    }


def _comparison(analysis: Analysis, chosen: dict, **which: Any) -> dict[str, Any]:
    """Figures of every system and differences from default, by set and by pool."""
    study, figures, ahead = analysis.study, {}, {}
    cells: dict[str, dict[str, dict[str, tuple[Cell, Cell]]]] = {}
    for one in study.sets.values():
        variants = main_variants(chosen, one)
        for system in SYSTEMS:
            variant, draws = variants[system], analysis.most_draws(variants[system], one, **which)
            for kind, pair in _kinds(analysis, variant, one, draws, which).items():
                cells.setdefault(kind, {}).setdefault(system, {})[one.name] = pair
    for kind, systems in cells.items():
        for system, found in systems.items():
            pooled = {
                **found,
                **{pool: pair for pool in POOLS if (pair := _pool(study, found, pool))},
            }
            for name, (own, default) in pooled.items():
                place = figures.setdefault(name, {}).setdefault(system, {"draws": own.draws})
                place[kind] = own.intervals()
                if system != "default":
                    place = ahead.setdefault(name, {}).setdefault(system, {})
                    place[kind] = (default - own).intervals()
    return {"figures": figures, "default ahead by": ahead}


def _kinds(
    analysis: Analysis, variant: Variant, one: TestSet, draws: int, which: dict[str, Any]
) -> dict[str, tuple[Cell, Cell]]:
    """Clean, shifted and drop of a variant, each beside default's on the same draws."""
    if not draws:
        return {}
    pair = (variant, DEFAULT)
    some = min(draws, analysis.study.grid.draws_shifted)
    clean = [analysis.cell(r, one, draws, **which) for r in pair]
    shifted = [analysis.shifted(r, one, some, **which) for r in pair]
    before = [analysis.cell(r, one, some, **which) for r in pair]
    drop = [a - b if a and b else None for a, b in zip(before, shifted, strict=True)]
    return {
        kind: (own, default)
        for kind, (own, default) in (("clean", clean), ("shifted", shifted), ("drop", drop))
        if own and default
    }


def _pool(
    study: Study, found: Mapping[str, tuple[Cell, Cell]], pool: str
) -> tuple[Cell, Cell] | None:
    """Means as `POOLS` says; None unless every one of its groups that is at hand has a figure."""
    parts: list[list[Cell]] = [[], []]
    for group in POOLS[pool]:
        there = [name for name in group if name in study.sets]
        cells = [found[name] for name in there if name in found]
        if there and not cells:
            return None
        for side, part in enumerate(parts):
            mean = mean_of([cell[side] for cell in cells])
            part += [mean] if mean else []
    own, default = (mean_of(part) for part in parts)
    return (own, default) if own and default else None


def _questions(analysis: Analysis) -> list[dict[str, Any]]:
    """Every variant ahead of default by how much, on the sets that choose."""
    study, found = analysis.study, []
    for question, variants in study.questions.items():
        for variant in variants:
            pairs, sets = {}, {}
            for one in study.selection_sets():
                draws = study.grid.draws_selection
                own = analysis.cell(variant, one, draws)
                default = analysis.cell(DEFAULT, one, draws)
                if own and default:
                    pairs[one.name] = (own, default)
                    sets[one.name] = (own - default).intervals()
            pools = {}
            for pool in ("generated", "real RGB", "all"):
                if pair := _pool(study, pairs, pool):
                    pools[pool] = (pair[0] - pair[1]).intervals()
            both = [m for m in pairs if set(study.sets[m].modalities) == {"rgb", "normals"}]
            if both and (mean := mean_of([pairs[m][0] - pairs[m][1] for m in both])):
                pools["both streams"] = mean.intervals()
            same = all(
                study.jobs(variant, one) == study.jobs(DEFAULT, one)
                for one in study.selection_sets()
            )
            found.append(
                {"question": question, "row": variant.name, "change": labels_of(variant.change),
                 "is default": same, "ahead of default by": pools, "sets": sets}
            )  # fmt: skip
    return found


def _texture(kind: str, category: str, document: dict[str, Any]) -> Bool[np.ndarray, " n"]:
    from pirn_jax.scans.synthetic.generator import describe

    keys = document["images"]["key"]
    return np.array([describe(category, key).modality == kind for key in keys])


def _large(large: bool, document: dict[str, Any]) -> Bool[np.ndarray, " n"]:
    return (np.array(document["images"]["share"]) > LARGE) == large


def _apart(analysis: Analysis, chosen: dict) -> dict[str, Any]:
    """Figures by kind of defect: means over the sets that have such."""
    found: dict[str, Any] = {}
    groups: list[tuple[str, bool, Callable[[TestSet], Any]]] = [
        (f"{kind} (generated)", True, lambda s, k=kind: functools.partial(_texture, k, s.place))
        for kind in ("texture", "geometry", "both")
    ]
    groups += [
        (f"{'over' if large else 'up to'} 20 % of the picture (real)", False,
         lambda s, b=large: functools.partial(_large, b))
        for large in (False, True)
    ]  # fmt: skip
    for name, generated, among_of in groups:
        amongs = {s.name: among_of(s) for s in analysis.study.sets.values()}
        for system in SYSTEMS:
            pairs = []
            for one in analysis.study.sets.values():
                variant = main_variants(chosen, one)[system]
                draws = analysis.most_draws(variant, one)
                if one.generated != generated or not draws:
                    continue
                cells = [analysis.cell(r, one, draws, amongs[one.name]) for r in (variant, DEFAULT)]
                if cells[0] and cells[1]:
                    pairs.append((cells[0], cells[1]))
            own, default = (mean_of([pair[k] for pair in pairs]) for k in (0, 1))
            if own and default:
                place = found.setdefault(name, {"sets": len(pairs)})
                place[system] = {"figures": own.intervals()}
                if system != "default":
                    place[system]["default ahead by"] = (default - own).intervals()
    return found


def _spread(analysis: Analysis) -> dict[str, Any]:
    """Standard deviation of default's figures over draws of the shots, and over seeds."""
    found = {}
    for one in analysis.study.sets.values():
        study = analysis.study
        draws = study.results(DEFAULT, one, draws=study.grid.draws)
        seeds = study.results(DEFAULT, one)
        for seed in range(1, study.grid.seeds):
            seeds += study.results(DEFAULT, one, seed=seed)
        found[one.name] = {
            name: {
                m: round(float(np.std([d["figures"][m] for d in documents], ddof=1)), 4)
                for m in METRICS
                if m in documents[0]["figures"] and (one.image_metrics or m != "i_auroc")
            }
            for name, documents in (("draws", draws), ("seeds", seeds))
            if len(documents) > 1
        }
    return found


def _cut(analysis: Analysis, chosen: dict, one: TestSet) -> dict[str, Any]:
    """I-AUROC of each system with the defect cut out of its map, mean over draws."""
    found = {}
    for system, variant in main_variants(chosen, one).items():
        documents = analysis.study.results(variant, one, draws=analysis.study.grid.draws)
        pairs = [evaluation_of(document, "score_cut") for document in documents]
        if pairs:
            figures = mean_figures([evaluation for evaluation, _ in pairs], pairs[0][1])
            found[system] = round(figures["i_auroc"], 4)
    return {"defect cut out": found}


def _about(study: Study) -> dict[str, Any]:
    from pirn_jax.scans.synthetic.generator import GENERATOR_VERSION, generator_hash

    some = next(iter(study.sets.values()))
    config = study.jobs(DEFAULT, some)[0].config
    source = open_encoder(config).source
    variants = {variant.name for variants in study.systems.values() for variant in variants}
    variants |= {variant.name for variants in study.questions.values() for variant in variants} | {
        "default",
        "paper",
    }
    return {
        "grid": study.options.grid,
        "grid says": asdict(study.grid),
        "sizes": list(study.options.image_size),
        "encoder": {"name": config.encoder, "sha256": source.sha256, "random": not source.path},
        "default": describe(study.jobs(DEFAULT, some)[0]).split("[")[1].split("]")[0],
        "default recipe": json.loads(json.dumps(asdict(config.settings))),
        "configurations": len(variants),
        "slow": SLOW,
        "generator": {"version": GENERATOR_VERSION, "hash": generator_hash()},
        "shifts": SHIFTS_VERSION,
        "versions": {"python": platform.python_version(), "jax": jax.__version__,
                     "numpy": np.__version__},
    }  # fmt: skip


def _about_set(study: Study, one: TestSet) -> dict[str, Any]:
    documents = study.results(DEFAULT, one)
    bad = evaluation_of(documents[0])[1]
    return {
        "images": len(bad),
        "defective": int(bad.sum()),
        "modalities": list(one.modalities),
        "generated": one.generated,
        "chooses": one.selects,
        "image metrics": one.image_metrics,
    }
