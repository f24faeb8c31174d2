"""Datasets: folders → lists of scans that are read when they are looked at."""

from pirn_jax.scans.datasets.checks import check_dataset
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Note, Split
from pirn_jax.scans.datasets.reading import read_scan
from pirn_jax.scans.datasets.registry import (
    DATASETS,
    DatasetLayout,
    find_layout,
    list_categories,
    open_dataset,
)
from pirn_jax.scans.datasets.shots import choose_shots, write_split

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetLayout",
    "Entry",
    "Note",
    "Split",
    "check_dataset",
    "choose_shots",
    "find_layout",
    "list_categories",
    "open_dataset",
    "read_scan",
    "write_split",
]
