"""What judges scans, whatever it is: what rules, records and the service need of it.

Shared with the runtime: numpy, and no JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from pirn_jax.detector.prediction import Prediction
from pirn_jax.detector.result import ScanResult
from pirn_jax.errors import PirnError
from pirn_jax.geometry.showing import Looking
from pirn_jax.scans import Split
from pirn_jax.scoring import Calibration


class Identity(NamedTuple):
    """What judges.

    Attributes:
        model: sixteen hex digits that name what was trained.
        method: of the detector.
        encoder: its name.
        random_weights: its weights are random numbers.
        trained_on: generated or real scans.
        versions: of what runs.
        lot: scans that were judged together; 0: each is judged by itself.
    """

    model: str
    method: str
    encoder: str
    random_weights: bool
    trained_on: object
    versions: Mapping[str, str]
    lot: int = 0


@runtime_checkable
class Predictor(Protocol):
    """What judges scans: a trained detector (`PIRN`), or an exported one (`pirn_runtime.Judge`).

    Attributes:
        calibration: the threshold; None without one.
    """

    calibration: Calibration | None

    @property
    def identity(self) -> Identity:
        """What it is."""
        ...

    @property
    def looking(self) -> Looking:
        """What of a scan it looks at."""
        ...

    def predict_scans(
        self, scans: Split, *, batch: int, failed: Callable[[str, PirnError], None]
    ) -> Iterator[ScanResult]:
        """Scores of scans; `failed` is told of those that cannot be judged."""
        ...

    def postprocess(self, result: ScanResult) -> Prediction:
        """The prediction from what `predict_scans` yields."""
        ...
