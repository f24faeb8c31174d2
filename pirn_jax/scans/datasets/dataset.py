"""Datasets: lists of scans that are read when they are looked at.

Listing opens no picture and no point map: an `Entry` knows its files, key, label and defect, and
the reader (a picklable function) turns it into a `Scan`. So a dataset of a thousand scans costs
milliseconds, and its parts can be sent to other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, overload

from pirn_jax.errors import BadInputError, did_you_mean
from pirn_jax.scans.formats.files import File
from pirn_jax.scans.formats.registration import Intrinsics
from pirn_jax.scans.scan import Scan


@dataclass(frozen=True)
class Entry:
    """One scan before it is read.

    Attributes:
        key: unique and stable within the category, "/" on every system.
        files: by role ("rgb", "xyz", "mask", …).
        label: 0 good, 1 defective, None unknown.
        defect: the defect's name, "good", or "" where unknown.
    """

    key: str
    files: Mapping[str, File]
    label: int | None = None
    defect: str = ""


class Split(Sequence):  # not Sequence[Scan]: run-time type checkers would read a scan to see
    """Part of a dataset, in the order of its keys.

    `split[i]` reads one scan, iteration reads one after the other, and a slice is again a `Split`
    that has read nothing. `keys`, `labels` and `defects` cost nothing.

    Args:
        entries: what there is.
        reader: turns an entry into a scan; picklable.

    Raises:
        BadInputError: two entries share a key.
    """

    def __init__(self, entries: Iterable[Entry], reader: Callable[[Entry], Scan]):
        self.entries = tuple(entries)
        self._reader = reader
        seen: set[str] = set()
        for entry in self.entries:
            if entry.key in seen:
                first = next(iter(entry.files.values()), None)
                raise BadInputError(
                    f"two scans have the key {entry.key!r}",
                    "give every scan's files a name of their own",
                    path=None if first is None else str(first),
                )
            seen.add(entry.key)

    @property
    def keys(self) -> tuple[str, ...]:
        """Each scan's name within its category."""
        return tuple(entry.key for entry in self.entries)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """0 good, 1 defective, None unknown."""
        return tuple(entry.label for entry in self.entries)

    @property
    def defects(self) -> tuple[str, ...]:
        """Each scan's defect, "good", or "" where unknown."""
        return tuple(entry.defect for entry in self.entries)

    def select(self, keys: Iterable[str]) -> Split:
        """The scans with these keys, in the order given.

        Raises:
            BadInputError: a key that is not here.
        """
        by_key = {entry.key: entry for entry in self.entries}
        keys = tuple(keys)
        if missing := [key for key in keys if key not in by_key]:
            raise BadInputError(
                f"no scan has the key {missing[0]!r}{did_you_mean(missing[0], by_key)}",
                "use the dataset the keys were taken from",
            )
        return Split([by_key[key] for key in keys], self._reader)

    def joined(self, other: Split) -> Split:
        """These scans and then the other's, each read as before.

        Raises:
            BadInputError: a key that both have.
        """
        mine = frozenset(self.keys)

        def read(entry: Entry) -> Scan:
            return (self if entry.key in mine else other)._reader(entry)

        return Split((*self.entries, *other.entries), read)

    def renamed(self, name: Callable[[str], str]) -> Split:
        """The same scans under other keys."""
        return Split([replace(e, key=name(e.key)) for e in self.entries], self._reader)

    def changed(self, change: Callable[[Scan], Scan]) -> Split:
        """The same scans, each changed once it has been read."""
        return Split(self.entries, lambda entry: change(self._reader(entry)))

    def watched(self, done: Callable[[], None]) -> Split:
        """The same scans; `done` is called whenever one has been read, or could not be."""

        def read(entry: Entry) -> Scan:
            try:
                return self._reader(entry)
            finally:
                done()

        return Split(self.entries, read)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Scan: ...
    @overload
    def __getitem__(self, index: slice) -> Split: ...
    def __getitem__(self, index: int | slice) -> Scan | Split:
        if isinstance(index, slice):
            return Split(self.entries[index], self._reader)
        return self._reader(self.entries[index])

    def __iter__(self) -> Iterator[Scan]:
        return (self._reader(entry) for entry in self.entries)

    def __repr__(self) -> str:
        return f"Split({len(self)} scans, {sum(label == 1 for label in self.labels)} defective)"


class Note(NamedTuple):
    """Something odd about a dataset, that whoever believes its figures should know.

    Attributes:
        words: what, and of which scans.
        touches: the figures that it makes doubtful: of scans, of pixels, all, or "" for none.
    """

    words: str
    touches: Literal["", "scans", "pixels", "all"] = ""


@dataclass(frozen=True)
class Dataset:
    """One category of a dataset.

    Attributes:
        train: good scans to learn from.
        validation: good scans to calibrate on; may be empty.
        test: scans to judge.
        name: the dataset's name, as given to `open_dataset`.
        category: the category's name as the dataset spells it.
        notes: what is odd about its files, as far as their names tell.
        intrinsics: the depth camera, where it has one.
    """

    train: Split
    validation: Split
    test: Split
    name: str = ""
    category: str = ""
    notes: tuple[Note, ...] = ()
    intrinsics: Intrinsics | None = None
