"""A judge: an exported model, with all that lies before and after its graph.

Dimension letters: H W scan pixels, h w model pixels, B scans.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pirn_jax.deploy.description import Description, parse_description, read_entry
from pirn_jax.detector.given import scan_of
from pirn_jax.detector.prediction import Prediction, postprocess
from pirn_jax.detector.predictor import Identity
from pirn_jax.detector.result import Inferred, ScanResult
from pirn_jax.errors import BadInputError, ConfigError, PirnError, check_name
from pirn_jax.geometry.plane_fits import numpy_normals
from pirn_jax.geometry.prepared import Settings, prepare_scan
from pirn_jax.geometry.showing import Looking, show_scan
from pirn_jax.geometry.views import Views
from pirn_jax.scans import Split
from pirn_jax.scans.scan import Scan
from pirn_jax.scoring.calibration import Calibration, fix_threshold
from pirn_jax.storage import read_regular
from pirn_runtime.engines import RUNTIMES, open_engine
from pirn_runtime.version import __version__

LARGEST_FILE = 2 << 30  # bytes of a model; Protocol Buffers allow no more


class Judge:
    """Judges scans with an exported model; for one thread at a time.

    Args:
        file: that `python -m pirn_jax.export` wrote.
        threshold: scores above it are called defective, instead of the file's own.
        runtime: "onnxruntime", or "openvino".
        threads: that the runtime may use; None: as many as there are processors to run on.

    Attributes:
        description: what the file says of itself.
        calibration: the threshold and its promise; None where there is none.
        graph: the exported graph: inputs by name → outputs by name, as docs/deploy.md has them.

    Raises:
        BadInputError: it is no such file, or damaged.
        ConfigError: an option that cannot be.
        MissingDependencyError: the runtime's package is not installed.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        threshold: float | None = None,
        runtime: str = "onnxruntime",
        threads: int | None = None,
    ):
        check_name("runtime", runtime, RUNTIMES)
        if threads is not None and threads < 1:
            raise ConfigError(f"threads: expected 1 or more, got {threads}")
        path = Path(file)
        content = read_regular(path, LARGEST_FILE)
        self.description: Description = parse_description(read_entry(content, path), path)
        self.calibration: Calibration | None = self.description.calibration
        if threshold is not None:
            self.calibration = fix_threshold(threshold, self.calibration)
        modalities = self.description.looking.modalities
        outputs = ("score", "map", *(f"map_{name}" for name in modalities))
        self.graph = open_engine(content, path, outputs, runtime, threads)

    def __call__(
        self,
        rgb: np.ndarray | None = None,
        xyz: np.ndarray | None = None,
        normals: np.ndarray | None = None,
    ) -> Prediction:
        """Score, label, map, mask and regions of one scan.

        Args:
            rgb: photograph, uint8 (H, W, 3).
            xyz: points, float (H, W, 3), metres, camera frame; zeros where nothing was measured.
            normals: unit normals, float (H, W, 3), camera frame, towards the sensor; computed from
                the points where they are not given.

        Raises:
            BadInputError: what the model needs is missing, or cannot be what it should.
            NotJudgedError: see `show`.
        """
        given = {"rgb": rgb, "xyz": xyz, "normals": normals}
        return self.predict({name: a for name, a in given.items() if a is not None})

    def predict(self, scan: object) -> Prediction:
        """The same of files or a `Scan`: a path, or {"rgb": "a.png", "xyz": "a.tiff"}."""
        (found,) = self.predict_scans([scan_of(scan, self.looking.modalities)])
        return self.postprocess(found)

    def predict_scans(
        self,
        scans: Iterable[Scan],
        *,
        batch: int = 1,
        failed: Callable[[str, PirnError], None] | None = None,
    ) -> Iterator[ScanResult]:
        """Scores of scans, one after the other.

        Args:
            scans: of any sizes.
            batch: scans a call; a file exported for so many a call has its own say.
            failed: called with the key and the error of a scan that cannot be used, which is then
                left out. None: the error is raised.
        """
        size = self.description.batch or batch
        waiting: list[tuple[Scan, Views]] = []
        for key, read in _each(scans):
            try:
                scan = read()
                waiting.append((scan, self.show(scan)))
            except Exception as error:
                if failed is None:
                    raise
                failed(key, _as_ours(error))
            if len(waiting) == size:
                yield from self.infer(waiting)
                waiting = []
        yield from self.infer(waiting)

    def postprocess(self, result: ScanResult) -> Prediction:
        """The prediction from what `predict_scans` yields."""
        return postprocess(result, self.looking.modalities, self.calibration)

    @property
    def looking(self) -> Looking:
        """What of a scan it looks at; the object is found on the grid, whatever training did."""
        looking = self.description.looking
        return looking._replace(settings=Settings("grid", looking.settings.background))

    @property
    def identity(self) -> Identity:
        """What it is, as records say it."""
        about = self.description
        return Identity(
            about.model,
            str(about.config.get("method")),
            about.encoder,
            about.random_weights,
            about.trained_on,
            {"pirn_runtime": __version__, "pirn_jax": about.version},
        )

    def show(self, scan: Scan) -> Views:
        """The scan as the encoder sees it.

        Raises:
            BadInputError: what the model needs is missing, or cannot be what it should.
            NotJudgedError: it is far from all shots, as a black photograph is.
        """
        looking = self.looking
        wanted = "normals" in looking.modalities
        fitted = self.description.looking.settings.method
        if fitted == "open3d" and wanted and scan.normals is None:
            raise BadInputError(
                "this model's normals are Open3D's, which the runtime does not compute",
                "give them, or train with --geometry grid",
            )
        known = prepare_scan(scan, looking.settings, normals=wanted, fit=_fit)
        views = show_scan(scan, looking, known)
        if self.description.sight is not None:
            self.description.sight.check(scan.key, views.sight)
        return views

    def infer(self, pairs: Sequence[tuple[Scan, Views]]) -> Iterator[ScanResult]:
        """Scans with what `show` made of them, in one call.

        Args:
            pairs: none is none to judge; of a file for so many scans a call, that many at most.
        """
        if not pairs:
            return
        size = self.description.batch or len(pairs)
        views = [view for _, view in pairs] + [pairs[-1][1]] * (size - len(pairs))
        modalities = self.looking.modalities
        inputs = {"valid": np.stack([view.valid for view in views])}
        for name in modalities:
            inputs[name] = np.stack([_picture(view, name) for view in views])
        found = self.graph(inputs)
        maps = np.stack([found[f"map_{name}"] for name in modalities])
        for place, (scan, view) in enumerate(pairs):
            score = float(found["score"][place])
            if not math.isfinite(score):
                raise PirnError(f"{scan.key}: the score is not finite", "export the model again")
            yield ScanResult(scan, view, Inferred(score, found["map"][place], maps[:, place], None))


def _each(scans: Iterable[Scan]) -> Iterator[tuple[str, Callable[[], Scan]]]:
    """Scans by key, read when they are asked for."""
    if isinstance(scans, Split):
        for place, key in enumerate(scans.keys):
            yield key, partial(scans.__getitem__, place)
    else:
        for scan in scans:
            yield scan.key, partial(_itself, scan)


def _itself(scan: Scan) -> Scan:
    return scan


def _as_ours(error: Exception) -> PirnError:
    if isinstance(error, PirnError):
        return error
    reason = str(error).partition("\n")[0][:200]
    return BadInputError(f"cannot be used: {type(error).__name__}: {reason}", "see to this file")


def _picture(view: Views, name: str) -> np.ndarray:
    """A picture as the graph takes it: photographs in bytes, which is what they were cut from."""
    picture = getattr(view, name)
    return np.rint(picture * 255).astype(np.uint8) if name == "rgb" else picture


def _fit(
    xyz: np.ndarray, use: np.ndarray, settings: Settings
) -> tuple[np.ndarray, tuple[str, ...]]:
    del settings
    return numpy_normals(xyz, use), ()
