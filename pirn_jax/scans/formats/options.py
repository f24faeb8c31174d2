"""How files are to be understood: units, axes, cameras and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pirn_jax.errors import ConfigError, check_choices
from pirn_jax.scans.formats.files import Limits
from pirn_jax.scans.formats.registration import CameraCalibration, Intrinsics

Unit = Literal["m", "mm", "auto"]
NormalFrame = Literal["opengl", "directx", "camera"]

# Signs from a stored normal map to the camera frame (x right, y down, z away from the sensor).
TO_CAMERA = {"opengl": (1, -1, -1), "directx": (1, 1, -1), "camera": (1, 1, 1)}


@dataclass(frozen=True)
class Options:
    """How files are to be understood; the defaults are those of the released datasets.

    Attributes:
        unit: unit of point and depth files.
        assume_aligned: geometry of another size shows the photograph's field of view.
        scale: photograph pixels per geometry pixel.
        calibration: the photograph's camera relative to the geometry's.
        intrinsics: the depth camera, for depth maps.
        white: the value of white in photographs of more than 8 bits; None refuses them.
        normal_frame: axes of ready normal maps: "opengl" y up and z towards the viewer (bluish
            pictures), "directx" y down and z towards the viewer, "camera" as in `Scan`.
        limits: what one file may cost.
    """

    unit: Unit = "m"
    assume_aligned: bool = False
    scale: float | None = None
    calibration: CameraCalibration | None = None
    intrinsics: Intrinsics | None = None
    white: int | None = None
    normal_frame: NormalFrame = "opengl"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.scale is not None and not 0.01 <= self.scale <= 100:
            raise ConfigError(f"scale must be between 0.01 and 100, got {self.scale!r}")
        if self.white is not None and not 255 < self.white <= 65535:
            raise ConfigError(f"white must be between 256 and 65535, got {self.white!r}")
