"""What the figures share: trained detectors with their test scans, rows of maps, and the footer.

Every figure says on itself what made it, and that its data are generated or its encoder random.
Scans are not picked by eye: of each kind of defect the one with the median image score is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32

from experiments.bank import Truth, encoder_of
from experiments.estimate import Estimate, clock
from experiments.jobs import Job, describe, grid
from experiments.options import Options
from experiments.options import command as own_command
from experiments.runner import Desk, fit
from pirn_jax import command
from pirn_jax.config import Config
from pirn_jax.decoder import Tokens, merge
from pirn_jax.detector import PIRN
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import Views
from pirn_jax.judging import Outcome, some_of
from pirn_jax.recipes import Recipe
from pirn_jax.runs import start_caches
from pirn_jax.training import Features
from pirn_jax.training.step import skeleton

GREEN, RED = "#2e8b57", "#c0392b"


class Opened(NamedTuple):
    """A trained detector and its test scans.

    Attributes:
        job: what it was trained for.
        detector: trained.
        tokens: of the test scans.
        truths: of the test scans.
        outcomes: what the detector says of them.
        desk: where the pictures come from.
    """

    job: Job
    detector: PIRN
    tokens: Features
    truths: list[Truth]
    outcomes: list[Outcome]
    desk: Desk

    def views(self, places: Sequence[int]) -> list[Views]:
        """Pictures of some test scans."""
        return self.desk.views(self.job, [self.truths[place].key for place in places])


def figure_command(draw: Callable[[Options], None], arguments: Sequence[str] | None = None) -> None:
    """The command of a figure."""
    command.run(draw, Options, arguments)


def open_jobs(configs: Iterable[Config], shots: int, options: Options) -> list[list[Opened]] | None:
    """Train each config on every category, first draw; None after a dry run.

    Returns:
        For each config the categories' detectors. What is trained is not kept: a figure needs more
        of a model than its result.
    """
    jobs = [grid([c], options.categories, shots=[shots], **options.same) for c in configs]
    if options.dry_run:
        estimate = Estimate([])
        flat = [job for own in jobs for job in own]
        cost = [estimate.seconds(job, encoder_of(job.config)) for job in flat]
        print(f"{len(flat)} models, about {clock(sum(cost) + estimate.compilation * len(jobs))}")
        for job in flat:
            print(f"  {describe(job)}")
        return None
    desk = Desk(start_caches(options.cache))
    return [_open(own, desk) for own in jobs]


def _open(jobs: list[Job], desk: Desk) -> list[Opened]:
    opened = []
    for job, model in zip(jobs, fit(jobs, [desk.shots(job) for job in jobs]), strict=True):
        tokens, truths = desk.tests(job)
        opened.append(Opened(job, model, tokens, truths, list(model.judge_features(tokens)), desk))
    return opened


def rebuilt(opened: Opened, places: Sequence[int]) -> Any:
    """What the decoder makes of some test scans: a `pirn_jax.decoder.Reconstruction`."""
    recipe = opened.detector.config.resolved_recipe()
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{opened.detector.config.method} rebuilds no tokens", "use pirn")
    config = recipe.decoder
    parameters, statistics = jax.tree.map(jnp.asarray, opened.detector.parameters)
    graph, _, _ = skeleton(config, opened.detector.encoder.channels)
    some = some_of(opened.tokens, list(places))
    streams = {name: jnp.asarray(getattr(some, name)) for name in config.modalities}
    return merge(graph, parameters, statistics)(Tokens(**streams), jnp.asarray(some.valid))


def defective_tokens(opened: Opened, places: Sequence[int]) -> Bool[np.ndarray, "B N"]:
    """Tokens of which a fifth or more is defective."""
    rows, columns = opened.detector.encoder.grid
    found = []
    for view in opened.views(places):
        mask = np.zeros(view.valid.shape) if view.mask is None else view.mask.astype(float)
        share = mask.reshape(rows, len(mask) // rows, columns, -1).mean((1, 3))
        found.append(share.reshape(-1) >= 0.2)
    return np.stack(found)


def typical(opened: Opened, wanted: Callable[[Truth], bool] = lambda truth: True) -> list[int]:
    """Of each kind of defect among the wanted, the scan with the median score."""
    kinds: dict[str, list[int]] = {}
    for place, truth in enumerate(opened.truths):
        if truth.label == 1 and wanted(truth):
            kinds.setdefault(truth.defect, []).append(place)
    chosen = []
    for places in kinds.values():
        places.sort(key=lambda place: opened.outcomes[place].score)
        chosen.append(places[len(places) // 2])
    return chosen


# --- drawing --------------------------------------------------------------------------------------


class Panels(NamedTuple):
    """A row of pictures: what stands beside it, and the pictures by the head of their column."""

    label: str
    pictures: Mapping[str, np.ndarray]


def panels_of(opened: Opened, place: int, view: Views, scale: Mapping[str, float]) -> Panels:
    """RGB, normals, truth, each branch's map and the fused one, of a scan.

    Args:
        opened: the detector.
        place: of the scan.
        view: its pictures.
        scale: the value drawn brightest, of each map.
    """
    truth, outcome = opened.truths[place], opened.outcomes[place]
    pictures: dict[str, np.ndarray] = {}
    if view.rgb is not None:
        pictures["RGB"] = view.rgb
    if view.normals is not None:
        pictures["normals"] = view.normals
    mask = np.zeros(view.valid.shape, bool) if view.mask is None else view.mask
    pictures["truth"] = np.where(mask[..., None], [0.92, 0.35, 0.05], 0.25 * view.valid[..., None])
    if len(outcome.maps) > 1:
        pictures |= {f"{name} map": heat(one, scale[name]) for name, one in outcome.maps.items()}
    pictures["fused map"] = heat(outcome.fused, scale["fused"])
    return Panels(f"{opened.job.category}\n{truth.defect}", pictures)


def scales(opened: Opened) -> dict[str, float]:
    """The value of each map that one pixel in 500 exceeds, over all test scans."""
    found = {"fused": [outcome.fused for outcome in opened.outcomes]}
    for name in opened.outcomes[0].maps:
        found[name] = [outcome.maps[name] for outcome in opened.outcomes]
    return {name: float(np.quantile(np.stack(maps), 0.998)) for name, maps in found.items()}


def heat(values: Float32[np.ndarray, "h w"], high: float) -> np.ndarray:
    """A map in colours, black at 0."""
    from matplotlib import colormaps

    return colormaps["inferno"](np.clip(values / max(high, 1e-12), 0, 1))[..., :3]


def draw_rows(rows: Sequence[Panels], title: str, name: str, options: Options, demo: bool) -> None:
    """Rows of pictures as one PNG.

    Raises:
        BadInputError: no rows.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise BadInputError(
            f"{name}: no test scan of the kind it shows", "give other categories with --category"
        )
    heads = list(rows[0].pictures)
    size = (1.1 * len(heads) + 0.9, 1.12 * len(rows) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(rows), len(heads), squeeze=False))
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=7)
    for line, row in zip(axes, rows, strict=True):
        for axis, head in zip(line, heads, strict=True):
            axis.imshow(row.pictures[head], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(row.label, fontsize=6)
    save(figure, title, name, options, demo)


def rows_of_maps(opened: Sequence[Opened], chosen: Callable[[Opened], list[int]]) -> list[Panels]:
    """A row for each chosen scan of each category."""
    rows = []
    for one in opened:
        places = chosen(one)
        scale = scales(one)
        for place, view in zip(places, one.views(places) if places else [], strict=True):
            rows.append(panels_of(one, place, view, scale))
    return rows


def save(figure: Any, title: str, name: str, options: Options, demo: bool) -> Path:
    """Write the figure with its title, what is loud, and the command that made it."""
    marks = ["GENERATED DATA"] if options.dataset == "synthetic" else []
    marks += ["DEMO ENCODER: random weights"] if demo else []
    loud = f"\n{' · '.join(marks)}" if marks else ""
    figure.suptitle(title + loud, fontsize=8, color=RED if marks else "black")
    figure.supxlabel(own_command(), fontsize=5, color="grey", family="monospace")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    figure.savefig(path, dpi=110, metadata={"Description": own_command()})
    print(f"written to {path}")
    return path


def few(options: Options, shots: int) -> int:
    """The number of shots of a figure; five at most with --quick."""
    return min(shots, 5) if options.quick else shots


def default(options: Options, change: Sequence[str] = (), **fields: Any) -> Config:
    """The detector that figures show: of the last recipe asked for."""
    return options.under(options.recipes[-1], change, **fields)


def baseline(options: Options, method: str) -> Config:
    """A measured baseline on the same tokens."""
    return replace(options.config, method=method, change=())
