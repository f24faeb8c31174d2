"""What the figures share: trained detectors with their test scans, rows of maps, and the footer.

Every figure says on itself what made it, and that its data are generated or its encoder random.
Scans are not picked by eye: of each kind of defect the one with the median image score is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from harness.changes import Change
from harness.encoders import encoder_of
from harness.estimate import Estimate, clock
from harness.jobs import Job, describe, grid
from harness.options import Options
from harness.options import command as own_command
from harness.runner import fit
from harness.scan_library import ScanLibrary
from pirn_jax import command
from pirn_jax.config import Config
from pirn_jax.decoder import Reconstruction, Tokens, abstract_params, merge, select_scans
from pirn_jax.detector import PIRN, Inferred, Truth
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry import Views
from pirn_jax.methods.pirn import Recipe
from pirn_jax.report.heatmap import colour_map

GREEN, RED = "#2e8b57", "#c0392b"


class TrainedModel(NamedTuple):
    """A trained detector and its test scans.

    Attributes:
        job: what it was trained for.
        detector: trained.
        tokens: of the test scans.
        truths: of the test scans.
        inferences: what the detector makes of them.
        pictures: where these come from.
    """

    job: Job
    detector: PIRN
    tokens: Tokens
    truths: list[Truth]
    inferences: list[Inferred]
    pictures: ScanLibrary

    def views(self, places: Sequence[int]) -> list[Views]:
        """Pictures of some test scans."""
        return self.pictures.views(self.job, [self.truths[place].key for place in places])


def figure_command(draw: Callable[[Options], None], arguments: Sequence[str] | None = None) -> None:
    """The command of a figure."""
    command.run(draw, Options, arguments)


def train_models(
    configs: Iterable[Config], shots: int, options: Options
) -> list[list[TrainedModel]] | None:
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
    library = ScanLibrary(options.cache)
    return [_train(own, library) for own in jobs]


def _train(jobs: list[Job], library: ScanLibrary) -> list[TrainedModel]:
    trained = []
    shots = [library.shots(job) for job in jobs]
    for job, detector in zip(jobs, fit(jobs, shots), strict=True):
        tokens, truths = library.tests(job)
        inferences = list(detector.predict_tokens(tokens))
        trained.append(TrainedModel(job, detector, tokens, truths, inferences, library))
    return trained


def rebuilt(trained: TrainedModel, places: Sequence[int]) -> Reconstruction:
    """What the decoder makes of some test scans."""
    recipe = trained.detector.config.settings
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{trained.detector.config.method} rebuilds no tokens", "use pirn")
    parameters, statistics = jax.tree.map(jnp.asarray, trained.detector.parameters)
    graph, _, _ = abstract_params(recipe.decoder, trained.detector.encoder.channels)
    some = jax.tree.map(jnp.asarray, select_scans(trained.tokens, np.asarray(places)))
    return merge(graph, parameters, statistics)(some)


def valid_tokens(trained: TrainedModel, places: Sequence[int]) -> Bool[np.ndarray, "B N"]:
    """Tokens of some test scans that count."""
    some = select_scans(trained.tokens, np.asarray(places))
    if some.valid is None:
        return np.ones(some.values.shape[1:3], bool)
    return np.asarray(some.valid)


def defective_tokens(trained: TrainedModel, places: Sequence[int]) -> Bool[np.ndarray, "B N"]:
    """Tokens of which a fifth or more is defective."""
    rows, columns = trained.detector.encoder.grid
    found = []
    for view in trained.views(places):
        mask = np.zeros(view.valid.shape) if view.mask is None else view.mask.astype(float)
        share = mask.reshape(rows, len(mask) // rows, columns, -1).mean((1, 3))
        found.append(share.reshape(-1) >= 0.2)
    return np.stack(found)


def typical(
    trained: TrainedModel, wanted: Callable[[Truth], bool] = lambda truth: True
) -> list[int]:
    """Of each kind of defect among the wanted, the scan with the median score."""
    kinds: dict[str, list[int]] = {}
    for place, truth in enumerate(trained.truths):
        if truth.label == 1 and wanted(truth):
            kinds.setdefault(truth.defect, []).append(place)
    chosen = []
    for places in kinds.values():
        places.sort(key=lambda place: trained.inferences[place].score)
        chosen.append(places[len(places) // 2])
    return chosen


# --- drawing --------------------------------------------------------------------------------------


class Panels(NamedTuple):
    """A row of pictures: what stands beside it, and the pictures by the head of their column."""

    label: str
    pictures: Mapping[str, np.ndarray]


def panels_of(trained: TrainedModel, place: int, view: Views, scale: Mapping[str, float]) -> Panels:
    """RGB, normals, truth, each branch's map and the fused one, of a scan.

    Args:
        trained: the detector.
        place: of the scan.
        view: its pictures.
        scale: the value drawn brightest, of each map.
    """
    truth, inference = trained.truths[place], trained.inferences[place]
    modalities = trained.detector.config.modalities
    pictures: dict[str, np.ndarray] = {}
    if view.rgb is not None:
        pictures["RGB"] = view.rgb
    if view.normals is not None:
        pictures["normals"] = view.normals
    mask = np.zeros(view.valid.shape, bool) if view.mask is None else view.mask
    pictures["truth"] = np.where(mask[..., None], [0.92, 0.35, 0.05], 0.25 * view.valid[..., None])
    if len(modalities) > 1:
        for name, own in zip(modalities, inference.maps, strict=True):
            pictures[f"{name} map"] = colour_map(own, 0.0, scale[name])
    pictures["fused map"] = colour_map(inference.fused, 0.0, scale["fused"])
    return Panels(f"{trained.job.category}\n{truth.defect}", pictures)


def scales(trained: TrainedModel) -> dict[str, float]:
    """The value of each map that one pixel in 500 exceeds, over all test scans."""
    found = {"fused": [inference.fused for inference in trained.inferences]}
    for place, name in enumerate(trained.detector.config.modalities):
        found[name] = [inference.maps[place] for inference in trained.inferences]
    return {name: float(np.quantile(np.stack(maps), 0.998)) for name, maps in found.items()}


def draw_rows(
    rows: Sequence[Panels], title: str, name: str, options: Options, random: bool
) -> None:
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
    save(figure, title, name, options, random)


def rows_of_maps(
    trained: Sequence[TrainedModel], chosen: Callable[[TrainedModel], list[int]]
) -> list[Panels]:
    """A row for each chosen scan of each category."""
    rows = []
    for one in trained:
        places = chosen(one)
        scale = scales(one)
        for place, view in zip(places, one.views(places) if places else [], strict=True):
            rows.append(panels_of(one, place, view, scale))
    return rows


def save(figure: Any, title: str, name: str, options: Options, random: bool) -> Path:
    """Write the figure with its title, what is loud, and the command that made it."""
    provenance = ["GENERATED DATA"] if options.generated else []
    provenance += ["RANDOM ENCODER WEIGHTS"] if random else []
    loud = f"\n{' · '.join(provenance)}" if provenance else ""
    figure.suptitle(title + loud, fontsize=8, color=RED if provenance else "black")
    figure.supxlabel(own_command(), fontsize=5, color="grey", family="monospace")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    figure.savefig(path, dpi=110, metadata={"Description": own_command()})
    print(f"written to {path}")
    return path


def few(options: Options, shots: int) -> int:
    """The number of shots of a figure; five at most with --quick."""
    return min(shots, 5) if options.quick else shots


def default(options: Options, shots: int, change: Change = ()) -> Config:
    """The detector that figures show: of the last recipe asked for."""
    return options.config(options.recipes[-1], shots, change)
