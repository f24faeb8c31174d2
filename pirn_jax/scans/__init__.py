"""Scans: files → Scan.

Three wings: `formats` (untrusted bytes → arrays), `datasets` (folders → lists of scans), `synthetic`
(rendered parts).
"""

from pirn_jax.scans.datasets import (
    DATASETS,
    Dataset,
    Entry,
    Layout,
    Split,
    choose_shots,
    find_layout,
    list_categories,
    open_dataset,
    read_scan,
    read_split,
    write_split,
)
from pirn_jax.scans.datasets.folder import open_files
from pirn_jax.scans.formats import (
    Calibration,
    File,
    Intrinsics,
    Limits,
    Options,
    read_calibration,
    read_intrinsics,
)
from pirn_jax.scans.scan import Scan

__all__ = [
    "DATASETS",
    "Calibration",
    "Dataset",
    "Entry",
    "File",
    "Intrinsics",
    "Layout",
    "Limits",
    "Options",
    "Scan",
    "Split",
    "choose_shots",
    "find_layout",
    "list_categories",
    "open_dataset",
    "open_files",
    "read_calibration",
    "read_intrinsics",
    "read_scan",
    "read_split",
    "write_split",
]
