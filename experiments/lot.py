"""From how many scans on does judging a lot together help, with five shots and with none?

    python experiments/lot.py --shared ../shared

Three detectors: what runs by default, from 5 shots; a lot of n scans against itself, without
shots; and both added up (`pirn_jax.detector.Lot`). Test scans are dealt into lots of n at random,
three times for each draw of the shots; a lot that is not full is filled up with others, which are
judged elsewhere. Scores of all lots are ranked together. Test sets hold more defective scans than a
lot should: beside lots as the set is, there are lots of which a tenth is defective.

A unit (an encoder on a set) is measured whole, written to --jobs, and not measured again unless the
code has changed. Background, square and poses are those that the shots decide, also of the lot
without shots; `predict --lot` without a run decides them by the lot's own scans. Figures are
those of the bootstrap (`harness.bootstrap`), within 0.001 of the exact ones; differences have its
95 % interval, over images and draws.

Dimension letters: M modalities, S test scans, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Bool, Float32, Int

from harness.bootstrap import (
    METRICS,
    Evaluation,
    histograms,
    interval,
    mean_figures,
    pixels_of,
    replicate,
    resample,
)
from harness.options import command
from harness.provenance import function_hash, source_hash
from pirn_jax import PIRN, Config
from pirn_jax.config import with_settings
from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector import BATCH, Lot, Truth, prefetch, view_scan
from pirn_jax.detector.lot import Distances
from pirn_jax.geometry import Views
from pirn_jax.geometry.augmentation import augment
from pirn_jax.scans import Dataset, choose_shots
from pirn_jax.scoring import score_distances
from pirn_jax.storage import read_object, write_json
from pirn_jax.training import extract
from real_sets import REPLICATES, SETS, open_network, open_set

SHOTS, SIZE = 5, 224
DEALS = 3
"""How often the test scans are dealt into lots, for each draw of the shots."""
SIZES = (4, 8, 16, 32)
SHARE = 0.1
"""Of a lot that is defective, beside lots as the test set is."""
DEFAULT, TENTH, AS_THEY_LIE = "5 shots", ", a tenth defective", ", not turned"

Map = Float32[np.ndarray, "M S N"]
Rule = Callable[[Distances], Map]
"""From a lot's distances to one of each token."""


def _shots(parts: Distances) -> Map:
    assert parts.shots is not None
    return parts.shots


def _in_medians(distance: Map, valid: Bool[np.ndarray, "S N"]) -> Map:
    return distance / np.median(distance[:, valid], 1)[:, None, None]


def _medians(parts: Distances) -> Map:
    """Each in its own median over the lot, by modality."""
    return _in_medians(parts.lot, parts.valid) + _in_medians(_shots(parts), parts.valid)


RULES: dict[str, Rule] = {
    "lot, no shots": lambda parts: parts.lot,
    "5 shots + lot": lambda parts: _shots(parts) + parts.lot,
}
OTHERS: dict[str, Rule] = {
    "in medians": _medians,
    "multiplied": lambda parts: _shots(parts) * parts.lot,
    "lot, not squared": lambda parts: np.sqrt(parts.lot),
}
"""Other rules, tried on the whole set as one lot."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    shared: Path = Path("../shared")
    """The folder with real sets (data/) and weights (weights/)."""
    out: Path = Path("experiments/results/lot.json")
    """Figures and differences; the table beside it, as .md."""
    jobs: Path = Path("runs/lot")
    """One file for each unit."""
    encoders: tuple[str, ...] = ("pirn-tiny", "dinov2-small")
    """Of pirn-tiny, dinov2-small."""
    sets: tuple[str, ...] = ("cable_gland", "road", "flange", "tire")
    """Which sets."""
    draws: tuple[int, ...] = (0, 1, 2)
    """Seeds: each chooses the shots and starts what is random."""


def main(options: Options) -> None:
    """Measure what is missing, unit by unit, and print the table."""
    units: dict[tuple[str, str], dict[str, Any]] = {}
    code = function_hash(measure) + source_hash()
    for encoder in options.encoders:
        for chosen in options.sets:
            about = (encoder, chosen.replace(", ", "_"), *options.draws)
            path = options.jobs / f"{'-'.join(map(str, about))}.json"
            unit = read_object(path) if path.is_file() else {}
            if unit.get("code") != code:
                unit = measure(encoder, chosen, options) | {"code": code}
                write_json(path, unit)
                print(path.stem, flush=True)
            units[encoder, chosen] = unit
    page, record = report(units, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, record)
    options.out.with_suffix(".md").write_text(page)
    print(page)


def measure(encoder_name: str, chosen: str, options: Options) -> dict[str, Any]:
    """A unit: `scans`, `defective`, and by row mean `figures` and the bootstrap's `replicates`."""
    about, encoder = SETS[chosen], open_network(encoder_name, options.shared, SIZE)
    data = open_set(about, options.shared)
    rows: dict[str, list[Evaluation]] = {}
    for draw in options.draws:
        config = Config(encoder=encoder_name, modalities=about.modalities, seed=draw)
        keys = choose_shots(data.train.keys, SHOTS, draw, about.dataset, about.category)
        lot = Lot(PIRN(config, encoder=encoder).fit(data.train.select(keys)))
        tokens, truths = tests_of(data, lot)
        bad = np.array([truth.label == 1 for truth in truths])
        for name, found in evaluations(lot, tokens, truths, draw):
            rows.setdefault(name, []).extend(found)
    return summary(rows, bad)


def summary(rows: dict[str, list[Evaluation]], bad: Bool[np.ndarray, " S"]) -> dict[str, Any]:
    """What is kept of a unit."""
    resamples = resample(bad, len(rows[DEFAULT]), REPLICATES)
    return {
        "scans": len(bad),
        "defective": int(bad.sum()),
        "rows": {
            name: {
                "figures": mean_figures(found, bad),
                "replicates": {
                    metric: np.round(values, 5).tolist()
                    for metric, values in replicate(found, bad, resamples).items()
                },
            }
            for name, found in rows.items()
        },
    }


def tests_of(data: Dataset, lot: Lot) -> tuple[Tokens, list[Truth]]:
    """Tokens of the test scans and of their turned copies, seen as this detector sees them."""
    truths: list[Truth] = []

    def views() -> Iterator[Views]:
        for scan, view in prefetch(data.test, lambda s: view_scan(s, lot.config), 2 * BATCH):
            truths.append(Truth.of(scan, view))
            yield from augment(view, lot.turns, lot.config.seed)

    return extract(lot.encoder, views(), lot.config.modalities, batch=BATCH), truths


def evaluations(
    lot: Lot, tokens: Tokens, truths: Sequence[Truth], seed: int
) -> Iterator[tuple[str, list[Evaluation]]]:
    """Every row's name, and what came of each deal."""
    bad = np.array([truth.label == 1 for truth in truths])
    count, each = len(bad), 1 + len(lot.turns)
    whole = lot.distances(tokens)
    rows = {DEFAULT: [_shots(whole)] * DEALS}
    for name, rule in {**RULES, **OTHERS}.items():
        rows[f"{name}, all"] = [rule(whole)] * DEALS
    ways = [("", Lot(PIRN(lot.config, encoder=lot.encoder)), tokens)]
    if lot.turns:
        plain = Lot(PIRN(with_settings(lot.config, {"rotations": 1}), encoder=lot.encoder))
        ways.append((AS_THEY_LIE, plain, select_scans(tokens, np.arange(count) * each)))
    random = np.random.default_rng(seed)
    for size, _ in product(SIZES, range(DEALS)):
        for kind, lots in (("", dealt(count, size, random)), (TENTH, tenth(bad, size, random))):
            for way, judge, given in ways if lots else ():
                found = {name: np.zeros_like(whole.lot) for name in RULES}
                for scans, judged in lots:
                    parts = judge.distances(of_scans(given, scans, 1 + len(judge.turns)))
                    parts = parts._replace(shots=_shots(whole)[:, scans])
                    for name, rule in RULES.items():
                        found[name][:, judged] = rule(parts)[:, : len(judged)]
                for name, distance in found.items():
                    rows.setdefault(f"{name} of {size}{kind}{way}", []).append(distance)
    for name, distances in rows.items():
        once = {id(one): evaluate(lot, one, whole.valid, truths) for one in distances}
        yield name, [once[id(one)] for one in distances]


def of_scans(tokens: Tokens, scans: Int[np.ndarray, " P"], each: int) -> Tokens:
    """The tokens of these scans, with their copies'."""
    return select_scans(tokens, (scans[:, None] * each + np.arange(each)).reshape(-1))


Lots = list[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " Q"]]]
"""The scans of each, and those of them, the first, whose scores are taken from it."""


def dealt(count: int, size: int, random: np.random.Generator) -> Lots:
    """All scans in lots of that size; none where there are not more."""
    order, lots = random.permutation(count), Lots()
    if count <= size:
        return lots
    for start in range(0, count, size):
        judged = order[start : start + size]
        fill = random.permutation(np.setdiff1d(order, judged))[: size - len(judged)]
        lots.append((np.concatenate([judged, fill]), judged))
    return lots


def tenth(bad: Bool[np.ndarray, " S"], size: int, random: np.random.Generator) -> Lots:
    """Lots of that size of which a tenth is defective: each defective scan in one, good ones again.

    A good scan's score is taken from the first lot it is in. None where there are too few good ones
    to fill a lot, or to be a tenth.
    """
    share = round(SHARE * size)
    good, defective = np.flatnonzero(~bad), random.permutation(np.flatnonzero(bad))
    if share == 0 or len(good) < size - share:
        return []
    lots, waiting = Lots(), random.permutation(good)
    for start in range(0, len(defective), share):
        judged = defective[start : start + share]
        fill = random.permutation(np.setdiff1d(defective, judged))[: share - len(judged)]
        new, waiting = np.split(waiting, [min(len(waiting), size - share)])
        again = random.permutation(np.setdiff1d(good, new))[: size - share - len(new)]
        judged = np.concatenate([judged, new])
        lots.append((np.concatenate([judged, fill, again]), judged))
    if len(waiting):
        raise ValueError(f"lots of {size}: {len(waiting)} good scans are in none of them")
    return lots


def evaluate(
    lot: Lot, distance: Map, valid: Bool[np.ndarray, "S N"], truths: Sequence[Truth]
) -> Evaluation:
    """What the bootstrap needs of a row."""
    scores, maps = [], []
    encoder, share = lot.encoder, lot.config.chosen_recipe.own_level
    for start in range(0, len(truths), BATCH):
        some = slice(start, start + BATCH)
        found = score_distances(
            jnp.asarray(distance[:, some]),
            encoder.image_size,
            valid=jnp.asarray(valid[some]),
            grid=encoder.grid,
            own_level=share,
        )
        scores += np.asarray(found.score).tolist()
        fused = zip(np.asarray(found.fused), truths[some], strict=True)
        maps += [truth.frame.to_scan(one) for one, truth in fused]
    pixels = [pixels_of(truth.mask) for truth in truths if truth.mask is not None]
    return Evaluation(np.array(scores), histograms(maps, pixels))


def report(
    units: dict[tuple[str, str], dict[str, Any]], options: Options
) -> tuple[str, dict[str, Any]]:
    """The page as Markdown, and the record without the replicates."""
    lines = [
        f"Written by `{command()}`. I-AUROC / P-AUROC / AUPRO@30 %, {SIZE} px. Draws of the shots: "
        f"{', '.join(map(str, options.draws))}; {DEALS} deals of lots each. `all`: the test set is "
        "one lot. Behind a set's name: how many of its scans are defective.",
    ]
    record: dict[str, Any] = {"size": SIZE, "draws": list(options.draws), "units": []}
    for (encoder, chosen), unit in units.items():
        figures = {name: row["figures"] for name, row in unit["rows"].items()}
        about = {"encoder": encoder, "set": chosen}
        about |= {name: unit[name] for name in ("scans", "defective")}
        record["units"].append(about | {"figures": figures})
    for encoder in options.encoders:
        own = {chosen: units[encoder, chosen] for chosen in options.sets}
        heads = [f"{name} ({u['defective']} of {u['scans']})" for name, u in own.items()]
        names = [n for n in row_names() if any(n in unit["rows"] for unit in own.values())]
        for title, shown in (
            ("", figures_of),
            (f"Ahead of {DEFAULT}: I-AUROC / AUPRO, in points", ahead),
        ):
            lines += ["", f"**{encoder}**" + (f". {title}" if title else ""), ""]
            lines += [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(own)]
            for name in names:
                if not (title and name == DEFAULT):
                    cells = [shown(unit["rows"], name) for unit in own.values()]
                    lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", record


def figures_of(rows: dict[str, Any], name: str) -> str:
    """A cell: three figures."""
    if name not in rows:
        return "–"
    return " / ".join(f"{rows[name]['figures'][metric]:.3f}" for metric in METRICS)


def ahead(rows: dict[str, Any], name: str) -> str:
    """A cell: image AUROC and AUPRO ahead of the shots alone, with their intervals."""
    if name not in rows:
        return "–"
    cells = []
    for metric in (METRICS[0], METRICS[2]):
        one, other = rows[name], rows[DEFAULT]
        value = 100 * (one["figures"][metric] - other["figures"][metric])
        both = [np.array(row["replicates"][metric]) for row in (one, other)]
        found = interval(value, 100 * (both[0] - both[1]))
        text = f"{value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        cells.append(f"**{text}**" if found.low > 0 or found.high < 0 else text)
    return " / ".join(cells)


def row_names() -> list[str]:
    """All rows, in their order."""
    names = [DEFAULT]
    for rule in RULES:
        names += [*(f"{rule} of {size}" for size in SIZES), f"{rule}, all"]
    for kind in (TENTH, AS_THEY_LIE, TENTH + AS_THEY_LIE):
        names += [f"{rule} of {size}{kind}" for rule in RULES for size in SIZES]
    return names + [f"{rule}, all" for rule in OTHERS]


if __name__ == "__main__":
    main(tyro.cli(Options))
