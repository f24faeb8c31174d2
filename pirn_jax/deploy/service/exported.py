"""An exported file as what judges: by `pirn_runtime`, with no JAX in the process.

The runtime may be installed by itself, and then has classes of its own under the names of ours:
what it raises is turned into ours here, and all else passes by its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pirn_jax import errors
from pirn_jax.deploy.description import Description
from pirn_jax.detector.prediction import Prediction
from pirn_jax.detector.predictor import Identity
from pirn_jax.detector.result import ScanResult
from pirn_jax.errors import BadInputError, MissingDependencyError, PirnError
from pirn_jax.geometry.showing import Looking
from pirn_jax.geometry.views import Views
from pirn_jax.scans import Scan, Split
from pirn_jax.scoring import Calibration


class Exported:
    """An exported file as a `Predictor`.

    Args:
        file: that `python -m pirn_jax.export` wrote.
        runtime: onnxruntime or openvino.

    Raises:
        BadInputError: it is no such file, or damaged.
        MissingDependencyError: the runtime, or its package, is not installed.
    """

    def __init__(self, file: Path, runtime: str):
        try:
            from pirn_runtime import Judge
        except ImportError as error:
            raise MissingDependencyError(
                f"an exported file is judged by pirn_runtime, which cannot be imported ({error})",
                "pip install ./runtime, in a checkout of pirn_jax",
            ) from error
        with _our_errors():
            self._judge = Judge(file, runtime=runtime)
        self.calibration: Calibration | None = self._judge.calibration

    @property
    def description(self) -> Description:
        """What the file says of itself."""
        return self._judge.description

    @property
    def identity(self) -> Identity:
        """See `Predictor`."""
        return self._judge.identity

    @property
    def looking(self) -> Looking:
        """See `Predictor`."""
        return self._judge.looking

    def predict_scans(
        self, scans: Split, *, batch: int, failed: Callable[[str, PirnError], None]
    ) -> Iterator[ScanResult]:
        """See `Predictor`."""
        most = self.description.batch or batch
        waiting: list[tuple[Scan, Views]] = []
        for place, key in enumerate(scans.keys):
            try:
                with _our_errors():
                    scan = scans[place]
                    waiting.append((scan, self._judge.show(scan)))
            except Exception as error:
                failed(key, _ours(error))
            if len(waiting) == most:
                yield from self._judge.infer(waiting)
                waiting = []
        yield from self._judge.infer(waiting)

    def postprocess(self, result: ScanResult) -> Prediction:
        """See `Predictor`."""
        return self._judge.postprocess(result)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except PirnError:
        raise
    except Exception as error:
        if not hasattr(error, "problem"):
            raise
        raise _ours(error) from error


def _ours(error: Exception) -> PirnError:
    if isinstance(error, PirnError):
        return error
    if hasattr(error, "problem"):
        kind = getattr(errors, type(error).__name__, BadInputError)
        return kind(error.problem, error.remedy, error.path)  # type: ignore[attr-defined]
    reason = str(error).partition("\n")[0][:200]
    return BadInputError(f"cannot be used: {type(error).__name__}: {reason}", "see to this file")
