"""Formats: untrusted bytes → arrays, with caps on what a file may cost and errors that name it."""

from pirn_jax.scans.formats.arrays import read_array
from pirn_jax.scans.formats.clouds import read_cloud
from pirn_jax.scans.formats.files import File, Limits, open_archive, read_bytes, read_json
from pirn_jax.scans.formats.masks import read_mask
from pirn_jax.scans.formats.measurements import read_depth, read_normals, read_points
from pirn_jax.scans.formats.options import Options, Unit
from pirn_jax.scans.formats.pictures import read_rgb
from pirn_jax.scans.formats.registration import (
    CameraCalibration,
    Intrinsics,
    read_camera_calibration,
    read_intrinsics,
)

__all__ = [
    "CameraCalibration",
    "File",
    "Intrinsics",
    "Limits",
    "Options",
    "Unit",
    "open_archive",
    "read_array",
    "read_bytes",
    "read_camera_calibration",
    "read_cloud",
    "read_depth",
    "read_intrinsics",
    "read_json",
    "read_mask",
    "read_normals",
    "read_points",
    "read_rgb",
]
