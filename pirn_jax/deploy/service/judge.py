"""What judges: one method, behind which stands a run, an exported file, or a test's stand-in."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pirn_jax.detector import PIRN
from pirn_jax.detector.judging import Judging, part_finder
from pirn_jax.detector.result import ScanResult
from pirn_jax.errors import PirnError
from pirn_jax.report.schema import Document
from pirn_jax.runs.records import calibration_id, record_of, versions
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
    """A record, as `pirn_jax.runs.records` has it, and what may be shown beside it."""

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


class RunJudge:
    """A trained model of a run as a judge.

    Args:
        model: calibrated or not.
        judging: rules and zones.
        reading: flags of how files are to be understood; as in training but for what is given.
        batch: most scans a call of the device. One alone goes in a call of its own, so that two
            programs are compiled.
    """

    def __init__(self, model: PIRN, judging: Judging, reading: Reading, batch: int):
        judging.check(model.config, model.calibration is not None)
        options, camera = options_of(model.origin, reading)
        self._model, self._judging, self._batch = model, judging, batch
        self._find_part = part_finder(model.config, model.prepared)
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

    def compile(self) -> None:
        """Compile both programs, so that the first part need not wait."""
        model = self._model
        for size in sorted({1, self._batch}):
            side, modalities = model.config.view_size, len(model.config.modalities)
            pictures = np.zeros((modalities, size, side, side, 3), np.float32)
            valid = np.ones((size, model.encoder.grid[0] * model.encoder.grid[1]), bool)
            model.inference.from_pictures(
                model.encoder.packed, *model.placed, pictures, valid
            ).score.block_until_ready()

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


def describe(name: str, model: PIRN, judging: Judging) -> Document:
    """What is said of a model of a run."""
    calibration, rules = model.calibration, judging.rules
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
        "model": model.model_id,
        "calibration": calibration_id(calibration),
        "scale": scale,
        "rules": [] if rules is None else [rule.name for rule in rules.not_ok],
        "zones": [] if judging.zones is None else list(judging.zones.named),
        "modalities": model.config.modalities,
        "method": model.config.method,
        "encoder": model.encoder.config.name,
        "image_size": model.config.view_size,
        "trained_on": model.origin.get("data"),
        "random_weights": model.random_weights,
        "versions": versions(),
    }
