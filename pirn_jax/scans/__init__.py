"""Scans: files → Scan.

Three wings, each importing only those before it: `formats` (untrusted bytes → arrays), `datasets`
(folders → lists of scans), `synthetic` (rendered parts). The registry names a dataset's module and
imports it when it is opened, so it knows of the generator without importing it.
"""

from pirn_jax.scans.datasets import (
    DATASETS,
    Dataset,
    DatasetLayout,
    Entry,
    Note,
    Split,
    check_dataset,
    choose_shots,
    find_layout,
    list_categories,
    open_dataset,
    read_scan,
    write_split,
)
from pirn_jax.scans.datasets.folder import open_files
from pirn_jax.scans.formats import (
    CameraCalibration,
    File,
    Intrinsics,
    Limits,
    Options,
    read_camera_calibration,
    read_intrinsics,
)
from pirn_jax.scans.scan import Scan

__all__ = [
    "DATASETS",
    "CameraCalibration",
    "Dataset",
    "DatasetLayout",
    "Entry",
    "File",
    "Intrinsics",
    "Limits",
    "Note",
    "Options",
    "Scan",
    "Split",
    "check_dataset",
    "choose_shots",
    "find_layout",
    "list_categories",
    "open_dataset",
    "open_files",
    "read_camera_calibration",
    "read_intrinsics",
    "read_scan",
    "write_split",
]
