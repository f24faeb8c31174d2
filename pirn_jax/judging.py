"""Scans → views → maps and scores → metrics: what happens to a scan on its way through a detector.

Reading runs ahead in threads; the device computes pictures to score in one compiled program; the
metrics look at maps in each scan's own pixels.

Dimension letters: M modalities, B batch, H W scan pixels, h w model pixels, N tokens, C channels,
K prototypes.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32

from pirn_jax.config import Config, DecoderConfig
from pirn_jax.decoder import Tokens, merge
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.geometry import Views, choose_object, make_views, surface_normals
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.scans import Scan, Split
from pirn_jax.scoring import score_tokens
from pirn_jax.training.step import skeleton

_log = logging.getLogger("pirn_jax")
BATCH = 8
"""Scans a call, where there are many; the last batch is padded, never compiled anew."""


class Outcome(NamedTuple):
    """What the device made of a scan.

    Attributes:
        score: image score.
        fused: anomaly map at the model's size.
        maps: of each modality, the same.
        usage: share of the tokens that each prototype of the last layer answers for.
    """

    score: float
    fused: Float32[np.ndarray, "h w"]
    maps: dict[str, Float32[np.ndarray, "h w"]]
    usage: Float32[np.ndarray, "M K"]


class Judged(NamedTuple):
    """A scan with its views and its outcome."""

    scan: Scan
    views: Views
    outcome: Outcome


def view_scan(scan: Scan, config: Config) -> Views:
    """The scan as the encoder sees it: background and normals as the config says.

    Raises:
        BadInputError: a modality of the model is missing, or nothing of the part was measured.
    """
    background = "plane" if config.background == "auto" else config.background
    found = choose_object(scan.xyz, scan.valid, background, method=config.geometry)
    if found.reason and scan.xyz is not None:
        _log.warning("%s: %s", scan.key, found.reason)
    if "normals" in config.modalities and scan.normals is None and scan.xyz is not None:
        normals = surface_normals(scan.xyz, found.object & scan.valid, method=config.geometry)
        scan = scan._replace(normals=np.asarray(normals))
    if "normals" not in config.modalities:
        scan = scan._replace(normals=None, xyz=None)
    views = make_views(scan, config.image_size, found.object)
    if views.ignore is not None:
        views = views._replace(valid=views.valid & ~views.ignore)
    for name in config.modalities:
        if getattr(views, name) is None:
            needed = "photograph" if name == "rgb" else "points or normals"
            raise BadInputError(
                f"{scan.key or 'the scan'} has no {needed}, which this model needs",
                "give it, or use a model trained without that modality",
            )
    if not views.valid.any():
        raise BadInputError(
            f"{scan.key or 'the scan'} shows no measured pixel of a part",
            "check its points and the ignore mask",
        )
    return views


class Measurement:
    """Truth and maps of many scans, gathered one by one; then the metrics.

    Maps are kept at the model's size and brought to each scan's own when they are compared.

    Args:
        threshold: of the image score; None: without.
    """

    def __init__(self, threshold: float | None = None):
        self.threshold = threshold
        self.scores: list[float] = []
        self.labels: list[int | None] = []
        self._maps = _AtScanSize()
        self._masks: list[Bool[np.ndarray, "H W"] | None] = []
        self._ignore: list[Bool[np.ndarray, "H W"] | None] = []

    def add(self, judged: Judged) -> None:
        """Take in one scan."""
        scan, views, outcome = judged
        self.scores.append(outcome.score)
        self.labels.append(scan.label)
        self._maps.add(scan.key, outcome.fused, views)
        mask = None if scan.mask is None else scan.mask > 0
        if mask is None and scan.label == 0:
            mask = np.zeros(scan.valid.shape, bool)
        self._masks.append(mask)
        self._ignore.append(scan.ignore)

    def figures(self, curves: int = 0) -> tuple[dict[str, float], dict[str, Any]]:
        """The metrics that are defined, and, with `curves`, points of the ROC and PRO curves."""
        figures: dict[str, float] = {"scans": float(len(self.scores))}
        known = [(s, lab) for s, lab in zip(self.scores, self.labels, strict=True) if lab in (0, 1)]
        figures["defective"] = float(sum(label == 1 for _, label in known))
        if 0 < figures["defective"] < len(known):
            scores, labels = zip(*known, strict=True)
            figures |= image_metrics(
                np.asarray(scores), np.asarray(labels), threshold=self.threshold
            )
        drawn: dict[str, Any] = {}
        masks = [mask for mask in self._masks if mask is not None]
        if masks and len(masks) == len(self._masks) and any(mask.any() for mask in masks):
            pixels = evaluate_maps(self._maps, masks, ignore=self._ignore, curves=curves)
            drawn = {name: pixels.pop(name) for name in ("roc", "pro") if name in pixels}
            figures |= pixels
        return {name: float(value) for name, value in figures.items()}, drawn


class _AtScanSize:
    """Maps at the model's size, seen at their scans' size; can be walked through again."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._maps: list[tuple[Float32[np.ndarray, "h w"], Any]] = []

    def add(self, name: str, fused: Float32[np.ndarray, "h w"], views: Views) -> None:
        self.names.append(name)
        self._maps.append((fused, views.frame))

    def __iter__(self) -> Iterator[Float32[np.ndarray, "H W"]]:
        return (frame.to_scan(fused) for fused, frame in self._maps)


def read_ahead(
    scans: Iterable[Scan],
    config: Config,
    ahead: int,
    failed: Callable[[str, PirnError], None] | None,
) -> Iterator[tuple[Scan, Views]]:
    """Scans with their views, in order, some of them read before they are asked for."""

    def read(scan: Scan | Callable[[], Scan]) -> tuple[Scan, Views]:
        found = scan if isinstance(scan, Scan) else scan()
        return found, view_scan(found, config)

    def tasks() -> Iterator[tuple[str, Scan | Callable[[], Scan]]]:
        if isinstance(scans, Split):  # read in the threads
            for place, key in enumerate(scans.keys):
                yield key, functools.partial(scans.__getitem__, place)
        else:
            for scan in scans:
                yield scan.key, scan

    def result(key: str, future: Future[tuple[Scan, Views]]) -> tuple[Scan, Views] | None:
        try:
            return future.result()
        except PirnError as error:
            if failed is None:
                raise
            failed(key, error)
            return None

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "read scans") as pool:
        waiting: deque[tuple[str, Future[tuple[Scan, Views]]]] = deque()
        try:
            for key, task in tasks():
                waiting.append((key, pool.submit(read, task)))
                if len(waiting) > ahead and (pair := result(*waiting.popleft())):
                    yield pair
            while waiting:
                if pair := result(*waiting.popleft()):
                    yield pair
        finally:
            for _, future in waiting:
                future.cancel()


@functools.lru_cache(maxsize=4)
def programs(encoder: Encoder, config: DecoderConfig, top: float) -> tuple[Any, Any]:
    """Compiled once for all models of a config: from pictures, and from tokens, to maps."""
    graph, _, _ = skeleton(config, encoder.config.width)
    names = config.modalities

    def from_tokens(
        parameters: Any, statistics: Any, tokens: Float[Array, "M B N C"], valid: Bool[Array, "B N"]
    ) -> tuple[Array, dict[str, Array], Array, Array]:
        given = Tokens(**{name: tokens[place] for place, name in enumerate(names)})
        rebuilt = merge(graph, parameters, statistics)(given, valid)
        target = {name: getattr(rebuilt.target, name) for name in names}
        # What is no part of the object counts as perfectly rebuilt.
        output = {
            name: jnp.where(valid[..., None], getattr(rebuilt, name), target[name])
            for name in names
        }
        maps = score_tokens(target, output, encoder.image_size, grid=encoder.grid, top=top)
        return maps.fused, maps.modalities, maps.score, rebuilt.diagnostics.usage[-1]

    def from_pictures(
        weights: Any,
        parameters: Any,
        statistics: Any,
        pictures: Float[Array, "M B h w 3"],
        valid: Bool[Array, "B N"],
    ) -> tuple[Array, dict[str, Array], Array, Array]:
        stacked = pictures.reshape(-1, *pictures.shape[2:])
        tokens = encoder.tokens(weights, stacked)
        tokens = tokens.reshape(*pictures.shape[:2], *tokens.shape[1:])
        return from_tokens(parameters, statistics, tokens, valid)

    return jax.jit(from_pictures), jax.jit(from_tokens)
