"""How files are to be understood: units, axes, cameras and limits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pirn_jax.errors import ConfigError, check_choices
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.registration import (
    CameraCalibration,
    Intrinsics,
    read_camera_calibration,
    read_intrinsics,
)

Unit = Literal["m", "mm", "auto"]
NormalFrame = Literal["opengl", "directx", "camera"]

# Signs from a stored normal map to the camera frame (x right, y down, z away from the sensor).
TO_CAMERA = {"opengl": (1, -1, -1), "directx": (1, 1, -1), "camera": (1, 1, 1)}


def _check_numbers(scale: float | None, white: int | None) -> None:
    if scale is not None and not 0.01 <= scale <= 100:
        raise ConfigError(f"scale must be between 0.01 and 100, got {scale!r}")
    if white is not None and not 255 < white <= 65535:
        raise ConfigError(f"white must be between 256 and 65535, got {white!r}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are to be understood: the same flags on every command that reads any."""

    unit: Unit = "auto"
    """Of point files: m, mm, or auto (metres as released; your own files must be unmistakable)."""
    assume_aligned: bool = False
    """Geometry and masks of another size show exactly what the photograph shows."""
    scale: float | None = None
    """Photograph pixels per pixel of the geometry, from the same corner."""
    calibration: str | None = None
    """JSON file of the photograph's camera and its pose: {"rgb": camera, "rotation",
    "translation"}; own files may have calibration.json beside them."""
    intrinsics: str | None = None
    """JSON file of the depth camera: {"fx", "fy", "cx", "cy", "depth_scale"}, or as RealSense or
    Open3D write it; own files may have intrinsics.json beside them."""
    white: int | None = None
    """The value of white in photographs of more than 8 bits: 4095 of 12 bits, 65535 of 16."""
    limits: Limits = field(default_factory=Limits)
    """What one file may cost."""

    def __post_init__(self) -> None:
        check_choices(self)
        _check_numbers(self.scale, self.white)

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as they are."""
        usual = Reading()
        values = {f.name: getattr(self, f.name) for f in fields(Reading)}
        return {name: v for name, v in values.items() if v != getattr(usual, name)}

    def given(self) -> dict[str, Any]:
        """The same as options of a dataset: cameras are read.

        Raises:
            BadInputError: a camera's file cannot be read.
        """
        read = {"calibration": read_camera_calibration, "intrinsics": read_intrinsics}
        return {
            name: read[name](File(Path(value)), self.limits) if name in read else value
            for name, value in self.changed().items()
        }


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
        _check_numbers(self.scale, self.white)
