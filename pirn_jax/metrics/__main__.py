"""Evaluate any detector's anomaly maps: python -m pirn_jax.metrics MAPS MASKS.

Folders of maps (.npy, .tiff, .png) and masks (.png, ...) are paired by their path below the folder;
an .npz or an .npy of shape (n, H, W) will do as well. Image metrics take each map's largest value
as the image's score, or --scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pirn_jax import __version__
from pirn_jax.command import Console, run
from pirn_jax.metrics import evaluate_maps, image_intervals, image_metrics
from pirn_jax.metrics.files import FileSet, open_pair, read_scores
from pirn_jax.places import check_apart
from pirn_jax.storage import write_json


@dataclass(frozen=True)
class Arguments:
    """Exact pixel and image metrics of anomaly maps."""

    maps: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MAPS")]
    """Folder of maps (.npy, .tiff, .png), an .npz or an .npy (n, H, W); larger is worse."""
    masks: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASKS")]
    """The same for masks: 0 good, > 0 defective."""
    limits: tuple[float, ...] = (0.3, 0.1, 0.05, 0.01)
    """False-positive rates up to which AUPRO is integrated."""
    protocol: Literal["exact", "cfm99"] = "exact"
    """exact, or cfm99 to compare with published tables (224 x 224, 99 thresholds)."""
    scores: Path | None = None
    """CSV with the columns key and score, in place of each map's largest value."""
    good_without_mask: bool = False
    """Maps without a mask are of good images (MVTec AD keeps no masks for them)."""
    json: Path | None = None
    """Also write the metrics to this file."""


class Watched:
    """A source that tells a progress bar of every item, and passes on its names."""

    def __init__(self, source: FileSet, advance: Callable[[], None]):
        self.names = source.names
        self._source, self._advance = source, advance

    def __iter__(self) -> Iterator[np.ndarray]:
        for item in self._source:
            yield item
            self._advance()


def main(arguments: Arguments) -> dict[str, Any]:
    """Evaluate, print and write; returns what is written."""
    console = Console()
    if arguments.json is not None:
        check_apart(arguments.json, arguments.maps, arguments.masks, arguments.scores)
    maps, masks = open_pair(arguments.maps, arguments.masks, arguments.good_without_mask)
    walks = 3 if arguments.protocol == "exact" else 4
    columns = (
        TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=walks * len(maps))
        watched = Watched(maps, lambda: progress.advance(bar))
        metrics = evaluate_maps(watched, masks, arguments.limits, protocol=arguments.protocol)
        labels, scores = _images(watched, masks)
    if arguments.scores is not None:
        scores = read_scores(arguments.scores, maps.names)
    result: dict[str, Any] = dict(metrics)
    if 0 < labels.sum() < len(labels):
        result |= image_metrics(scores, labels)
        result["intervals_95"] = image_intervals(scores, labels)
    else:
        console.print("no good image among the maps: image metrics are undefined and left out")
    result |= {
        "images": len(labels),
        "defective_images": int(labels.sum()),
        "protocol": arguments.protocol,
        "conventions": "masks > 0; 8-connected regions; all images pooled; "
        + ("maps at their own size" if arguments.protocol == "exact" else "224 x 224")
        + "; image score: "
        + ("largest value of the map" if arguments.scores is None else "given"),
        "pirn_jax": __version__,
    }
    console.print(_table(result))
    if arguments.json is not None:
        write_json(arguments.json, result)
        console.print(f"written to {arguments.json}")
    return result


def _images(maps: Watched, masks: FileSet) -> tuple[np.ndarray, np.ndarray]:
    """Label and largest score of each image."""
    pairs = [(bool((m > 0).any()), float(s.max())) for s, m in zip(maps, masks, strict=True)]
    return np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['images']} images, {result['defective_images']} defective")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    intervals = result.get("intervals_95", {})
    for name, value in result.items():
        if name[:2] in ("i_", "p_") or name.startswith("aupro_"):
            spread = "{:.4f} … {:.4f}".format(*intervals[name]) if name in intervals else ""
            table.add_row(name, f"{value:.4f}", spread)
    table.caption = result["conventions"]
    return table


if __name__ == "__main__":
    run(main, Arguments)
