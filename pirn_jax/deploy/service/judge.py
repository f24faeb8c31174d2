"""What judges: one method, behind which stands a run, an exported file, or a test's stand-in.

No JAX is imported here: an exported file needs none.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.predictor import Predictor
from pirn_jax.detector.records import calibration_id, record_of
from pirn_jax.detector.result import ScanResult
from pirn_jax.errors import PirnError
from pirn_jax.geometry.prepared import PreparedCache
from pirn_jax.report.schema import Document
from pirn_jax.scans import Entry, File, Scan, Split
from pirn_jax.scans.datasets.judged import options_of, read_given
from pirn_jax.scans.formats.options import Reading
from pirn_jax.scoring import normalise


class Part(NamedTuple):
    """A part that has been accepted.

    Attributes:
        id: of the request.
        key: what whoever sent it calls it.
        model: the name of the model that is to judge it.
        files: by role: rgb, xyz, depth, normals.
    """

    id: str
    key: str
    model: str
    files: Mapping[str, Path]


class Shown(NamedTuple):
    """What a page shows of a judged part, on the scan's grid.

    Attributes:
        photograph: None for geometry alone.
        normals: from [-1, 1] to [0, 255], black where there is none; None without geometry.
        heat: the map, normalised: 0.5 is the threshold.
        mask: pixels called defective.
        xyz: points in metres, zeros where nothing was measured; or None.
    """

    photograph: UInt8[np.ndarray, "H W 3"] | None
    normals: UInt8[np.ndarray, "H W 3"] | None
    heat: Float32[np.ndarray, "H W"]
    mask: Bool[np.ndarray, "H W"]
    xyz: Float32[np.ndarray, "H W 3"] | None


class Judged(NamedTuple):
    """A record, as `pirn_jax.detector.records` has it, and what may be shown beside it."""

    record: Document
    shown: Shown


@runtime_checkable
class Judge(Protocol):
    """What judges parts."""

    def judge(self, parts: Sequence[Part]) -> list[Judged | PirnError]:
        """The verdict on each, or why there is none; in their order."""
        ...


class Served(NamedTuple):
    """A model that is served.

    Attributes:
        name: by which it is asked for.
        judge: what judges.
        modalities: that it looks at.
        about: what is said of it: plain JSON values.
    """

    name: str
    judge: Judge
    modalities: tuple[str, ...]
    about: Document


class ScanJudge:
    """A model as a judge.

    Args:
        model: a trained detector, or an exported one; calibrated or not.
        judging: rules and zones.
        origin: how scans were read in training, as `options_of` takes it.
        reading: flags of how files are to be understood; as in training but for what is given.
        batch: most scans a call of the device. One alone goes in a call of its own.
        prepared: object masks at hand.
    """

    def __init__(
        self,
        model: Predictor,
        judging: Judging,
        origin: Mapping[str, object],
        reading: Reading,
        batch: int,
        prepared: PreparedCache | None = None,
    ):
        judging.check(model.looking, model.calibration is not None)
        options, camera = options_of(origin, reading)
        self._model, self._judging, self._batch = model, judging, batch
        self._find_part = part_finder(model.looking, prepared)
        self._read = functools.partial(read_given, options=options, camera=camera)

    def judge(self, parts: Sequence[Part]) -> list[Judged | PirnError]:
        """See `Judge`."""
        model, found = self._model, {}
        entries = [Entry(p.id, {role: File(path) for role, path in p.files.items()}) for p in parts]

        def prepared(entry: Entry) -> Scan:
            scan = self._read(entry)
            return self._judging.lay_on(scan, self._find_part)

        size = 1 if len(parts) == 1 else self._batch
        keys = {part.id: part.key for part in parts}
        for result in model.predict_scans(
            Split(entries, prepared), batch=size, failed=found.__setitem__
        ):
            found[result.scan.key] = self._judged(result, keys[result.scan.key])
        return [found[part.id] for part in parts]

    def _judged(self, result: ScanResult, key: str) -> Judged:
        model, prediction = self._model, self._model.postprocess(result)
        verdict = self._judging.verdict(result.scan, prediction, model.calibration, self._find_part)
        heat = prediction.anomaly_map
        if model.calibration is not None:
            heat = normalise(heat, model.calibration).astype(np.float32)
        else:
            heat = heat / max(float(heat.max()), 1e-12)
        mask = np.zeros(heat.shape, bool) if verdict.mask is None else verdict.mask
        record = record_of(model, key, prediction, verdict)
        scan = result.scan
        return Judged(record, Shown(scan.rgb, _normals(result), heat, mask, scan.xyz))


def _normals(result: ScanResult) -> UInt8[np.ndarray, "H W 3"] | None:
    if result.views.normals is None:
        return None
    channels = (np.ascontiguousarray(c) for c in np.moveaxis(result.views.normals, -1, 0))
    shown = np.stack([result.views.to_scan(channel) for channel in channels], axis=-1)
    return np.rint(255 * shown).astype(np.uint8)


def describe(name: str, model: Predictor, judging: Judging) -> Document:
    """What is said of a model."""
    calibration, rules, about = model.calibration, judging.rules, model.identity
    scale = None
    if calibration is not None:
        scale = {
            "threshold": calibration.threshold,
            "spread": calibration.spread,
            "scores": calibration.scores,
            "promise": calibration.statement() if calibration.scans else "",
        }
    return {
        "name": name,
        "model": about.model,
        "calibration": calibration_id(calibration),
        "scale": scale,
        "rules": [] if rules is None else [rule.name for rule in rules.not_ok],
        "zones": [] if judging.zones is None else list(judging.zones.named),
        "modalities": model.looking.modalities,
        "method": about.method,
        "encoder": about.encoder,
        "image_size": model.looking.image_size,
        "trained_on": about.trained_on,
        "random_weights": about.random_weights,
        "versions": dict(about.versions),
    }
