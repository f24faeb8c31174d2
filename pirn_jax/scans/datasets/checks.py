"""What a look at a dataset's files tells before any work: files that cannot be read, odd masks.

Every header is looked at, and every mask is read. A mask that marks nothing on a defective part
says nothing (`Scan.mask` is then None); one over half of the picture is believed, and named; but
where all of them mark more than half, and the picture's edge, they are upside down, and refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pirn_jax.errors import BadInputError
from pirn_jax.scans.datasets.dataset import Dataset, Entry, Note
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.glance import check_file
from pirn_jax.scans.formats.masks import read_mask

_HALF, _EDGE = 0.5, 0.9
_NAMED = 4


class _Mask(NamedTuple):
    share: float
    edge: float


def check_dataset(data: Dataset, limits: Limits | None = None) -> tuple[Note, ...]:
    """Look at every file of a category, and say what is odd about masks and labels.

    Args:
        data: the category.
        limits: what one file may cost.

    Returns:
        Notes, beside those the dataset has already.

    Raises:
        BadInputError: files that cannot be read (all are named), or masks that are upside down.
    """
    caps = limits or Limits()
    entries = [e for split in (data.train, data.validation, data.test) for e in split.entries]
    refuse_unreadable(entries, caps)
    test = data.test.entries
    defective = [entry for entry in test if entry.label == 1]
    masked = [entry for entry in defective if "mask" in entry.files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda entry: _look(entry.files["mask"], caps), masked))
    masks = dict(zip((entry.key for entry in masked), found, strict=True))
    large = [key for key, mask in masks.items() if mask.share > _HALF]
    edge = float(np.median([mask.edge for mask in found] or [0]))
    if large and len(large) == len(masks) and edge > _EDGE:
        raise BadInputError(
            f"the masks look upside down: {'all of them mark' if len(large) > 1 else 'it marks'} "
            f"more than half of the picture and most of its edge ({_some(large)})",
            "good parts must be 0 or black: invert the masks",
            path=str(masked[0].files["mask"]),
        )
    return tuple(_notes(test, defective, masks, large))


def _notes(
    test: Iterable[Entry], defective: list[Entry], masks: dict[str, _Mask], large: list[str]
) -> Iterator[Note]:
    labels = [entry.label for entry in test]
    if 1 in labels and 0 not in labels:
        words = "no good test scans: figures of whole scans and of false alarms are not defined"
        yield Note(words, "scans")
    if 0 in labels and 1 not in labels:
        yield Note("no defective test scans: what is found of defects is not known", "all")
    without = [entry.key for entry in defective if entry.key not in masks]
    if without and masks:
        words = (
            f"{len(without)} of {len(defective)} defective scans have no mask: {_some(without)}; "
            "figures of pixels are without them"
        )
        yield Note(words, "pixels")
    if empty := [key for key, mask in masks.items() if not mask.share]:
        words = (
            f"defective scans whose mask marks nothing: {_some(empty)}; figures of pixels are "
            "without them"
        )
        yield Note(words, "pixels")
    if large:
        yield Note(f"masks over more than half of the picture: {_some(large)}", "pixels")


def refuse_unreadable(entries: Iterable[Entry], limits: Limits) -> None:
    """Look at the header of every file.

    Raises:
        BadInputError: some cannot be read; each is named with its reason.
    """
    files = {str(file): file for entry in entries for file in entry.files.values()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bad = [error for error in pool.map(lambda f: _problem(f, limits), files.values()) if error]
    if len(bad) == 1:
        raise bad[0]
    if bad:
        lines = "".join(f"\n  {error.path}: {error.problem}" for error in bad[:20])
        more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
        raise BadInputError(
            f"{len(bad)} files cannot be read:{lines}{more}",
            "restore them, or remove their scans",
            path=bad[0].path,
        )


def _problem(file: File, limits: Limits) -> BadInputError | None:
    try:
        check_file(file, limits)
    except BadInputError as error:
        return error
    return None


def _look(file: File, limits: Limits) -> _Mask:
    marked = read_mask(file, limits) > 0
    edge = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    return _Mask(float(marked.mean()), float(edge.mean()))


def _some(keys: list[str]) -> str:
    rest = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
