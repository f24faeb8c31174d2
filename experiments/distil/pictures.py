"""Pictures to learn from: folders and tars read as untrusted, decoded by threads, kept in memory.

Nothing is extracted: a tar's members are read in place by their offsets, and their names are only
labels. What is not a sound picture of a reasonable size is left out and named, with the reason. A
picture is kept as bytes, made smaller so far as no crop of `pictures.side` pixels loses by it.

Dimension letters: H W pixels.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from pirn_jax.errors import BadInputError, ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
LARGEST_FILE = 64 * 2**20
LARGEST_PICTURE = 64_000_000
"""Pixels; what a header announces is believed before anything is decoded."""
SMALLEST_SIDE = 32
ROOM = 1.6
"""The short side kept, in sides of a crop: a crop of 40 % of the area is not magnified."""
LONGEST = 2.5
"""The long side kept, in short ones; the middle of a longer strip is taken."""
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
# warnings.catch_warnings changes the whole process, so two threads must not be inside it.
_WARNINGS = threading.Lock()


class Entry(NamedTuple):
    """Where the bytes of one picture lie.

    Attributes:
        source: index of the folder or tar it was found in.
        name: within it.
        path: of the file to read, the tar itself for its members.
        offset, size: of the bytes in that file.
    """

    source: int
    name: str
    path: Path
    offset: int
    size: int


class Skipped(NamedTuple):
    """A file or member that was left out, and why."""

    name: str
    reason: str


class Pictures(NamedTuple):
    """Decoded pictures.

    Attributes:
        names: as `source/name`, sorted.
        arrays: (H, W, 3) each, of their own sizes.
        sources: of each picture, an index into the sources given, each counted once.
        skipped: what was left out.
    """

    names: tuple[str, ...]
    arrays: tuple[UInt8[np.ndarray, "H W 3"], ...]
    sources: tuple[int, ...]
    skipped: tuple[Skipped, ...]


def source_names(sources: Sequence[Path]) -> list[str]:
    """As much of the ends of their paths as tells them apart."""
    parts = [path.absolute().parts for path in sources]
    for length in range(1, max(map(len, parts), default=1)):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in sources]


def read_pictures(
    sources: Sequence[Path],
    side: int,
    *,
    threads: int,
    memory: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pictures:
    """Read all pictures of folders (with all below them) and tars.

    Args:
        sources: each once.
        side: of the crops that will be taken, in pixels.
        threads: that decode.
        memory: GiB the decoded pictures may take; what does not fit is left out and named.
        progress: called with the number of files read and to read.

    Raises:
        BadInputError: a source that does not exist or is neither folder nor uncompressed tar.
        ConfigError: fewer than four pictures, too few to hold any out.
    """
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    names = source_names(sources)
    for index, source in enumerate(sources):
        for found in _list(source, index, names[index]):
            if isinstance(found, Entry):
                entries.append(found)
            else:
                skipped.append(found)
    # In an order that has nothing to do with names: what does not fit is then any of them.
    order = np.random.default_rng(0).permutation(len(entries))
    taken: list[tuple[str, int, np.ndarray]] = []
    left = memory * 2**30
    with ThreadPoolExecutor(threads) as pool:
        decoded = pool.map(lambda i: _read(entries[i], side), order)
        for done, (i, result) in enumerate(zip(order, decoded, strict=True), 1):
            entry = entries[i]
            label = f"{names[entry.source]}/{entry.name}"
            if isinstance(result, str):
                skipped.append(Skipped(label, result))
            elif result.nbytes > left:
                skipped.append(Skipped(label, f"no room for it in {memory:g} GiB (--memory)"))
            else:
                left -= result.nbytes
                taken.append((label, entry.source, result))
            progress(done, len(entries))
    if len(taken) < 4:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:3])
        raise ConfigError(
            f"expected four pictures at least, got {len(taken)}"
            + (f" and {len(skipped)} left out ({reasons})" if skipped else ""),
            f"give folders or tars with {', '.join(SUFFIXES)}",
        )
    taken.sort(key=lambda picture: picture[:2])
    labels, which, arrays = zip(*taken, strict=True)
    return Pictures(labels, arrays, which, tuple(sorted(skipped)))


def _list(source: Path, index: int, label: str) -> Iterator[Entry | Skipped]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_symlink() or not path.is_file():
                yield Skipped(f"{label}/{name}", "no regular file")
            else:
                yield Entry(index, name, path, 0, path.stat().st_size)
    elif source.is_file():
        yield from _list_tar(source, index, label)
    else:
        raise BadInputError("no such file or folder", "give a folder or a tar", path=source)


def _list_tar(source: Path, index: int, archive: str) -> Iterator[Entry | Skipped]:
    total = source.stat().st_size
    try:
        # Uncompressed: members are read by offset.
        tar = tarfile.open(source, "r:")  # noqa: SIM115
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadInputError(
            f"cannot be read as an uncompressed tar ({error})",
            "unpack it and give the folder, or give a plain .tar",
            path=source,
        ) from error
    last = "its beginning"
    with tar:
        try:
            for member in tar:
                last = member.name
                if not member.isdir():
                    yield _judge(member, source, index, archive, total)
        except (tarfile.TarError, OSError, ValueError) as error:
            yield Skipped(archive, f"what follows {last}: {error}")


def _judge(
    member: tarfile.TarInfo, source: Path, index: int, archive: str, total: int
) -> Entry | Skipped:
    """Whether a member of an archive of so many bytes is to be read."""
    label, path = f"{archive}/{member.name}", PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return Skipped(label, "its name leads out of the archive")
    if not member.isreg() or member.issparse():
        return Skipped(label, "no regular file")
    if member.offset_data + member.size > total:
        return Skipped(label, "the archive ends within it")
    if path.suffix.lower() not in SUFFIXES:
        return Skipped(label, f"extension {path.suffix!r} is no picture's")
    return Entry(index, member.name, source, member.offset_data, member.size)


def _read(entry: Entry, side: int) -> UInt8[np.ndarray, "H W 3"] | str:
    """The picture, or why it is left out."""
    if entry.size > LARGEST_FILE:
        return f"{entry.size >> 20} MiB; at most {LARGEST_FILE >> 20} are read"
    try:
        with entry.path.open("rb") as file:
            content = os.pread(file.fileno(), entry.size, entry.offset)
        return decode(content, side)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def decode(content: bytes, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A picture from the bytes of its file, upright, its short side `ROOM * side` at most.

    Raises:
        ValueError: too large, too small, or of a pixel format whose scale to bytes is not known.
        Exception: whatever Pillow raises on files that are damaged or no pictures.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = picture.size
        if width * height > LARGEST_PICTURE:
            raise ValueError(f"{width}×{height} pixels; at most {LARGEST_PICTURE:,} are read")
        if min(width, height) < SMALLEST_SIDE:
            raise ValueError(f"{width}×{height} pixels; at least {SMALLEST_SIDE} a side are needed")
        if picture.mode not in _MODES:
            raise ValueError(f"pixel format {picture.mode}; expected 8 bits a channel")
    # JPEGs are decoded at a half, a quarter or an eighth where that is still large enough.
    keep = round(ROOM * side)
    shrink = keep / min(width, height)
    picture.draft("RGB", (round(width * shrink) or 1, round(height * shrink) or 1))
    picture = ImageOps.exif_transpose(picture.convert("RGB"))
    width, height = picture.size
    longest = round(LONGEST * min(width, height))
    if max(width, height) > longest:
        across, down = min(width, longest), min(height, longest)
        x, y = (width - across) // 2, (height - down) // 2
        picture = picture.crop((x, y, x + across, y + down))
        width, height = picture.size
    if (shrink := keep / min(width, height)) < 1:
        size = (max(keep, round(width * shrink)), max(keep, round(height * shrink)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.array(picture)
