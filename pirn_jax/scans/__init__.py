"""Scans: files → Scan."""

from pirn_jax.scans.dataset import Dataset, Entry, Split
from pirn_jax.scans.files import File, Limits
from pirn_jax.scans.folder import open_files
from pirn_jax.scans.opening import list_categories, open_dataset
from pirn_jax.scans.options import Options
from pirn_jax.scans.reading import read_scan
from pirn_jax.scans.registration import (
    Calibration,
    Intrinsics,
    read_calibration,
    read_intrinsics,
)
from pirn_jax.scans.scan import Scan
from pirn_jax.scans.shots import choose_shots, read_split, write_split

__all__ = [
    "Calibration",
    "Dataset",
    "Entry",
    "File",
    "Intrinsics",
    "Limits",
    "Options",
    "Scan",
    "Split",
    "choose_shots",
    "list_categories",
    "open_dataset",
    "open_files",
    "read_calibration",
    "read_intrinsics",
    "read_scan",
    "read_split",
    "write_split",
]
