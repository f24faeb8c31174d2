"""Untrusted files: where they lie, how large they may be, and how their bytes come in.

A scan's file comes from a camera, a colleague or a download, so nothing in it is believed: it must
be a regular file inside the dataset's root, it is measured before it is read, and it is read once
into memory, so that what was checked is what gets decoded. Members of a zip archive are files like
any other: they are never unpacked to disk, and their declared size is the most that is inflated.
Nothing is ever written beside the originals, and nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirn_jax.errors import BadInputError
from pirn_jax.storage import open_regular

_MORE_MEMORY = "for larger scans pass limits=Limits(memory=…) (--limits.memory)"
Stream = io.BufferedReader | io.BytesIO
"""An open file, on disk or in memory."""


@dataclass(frozen=True)
class Limits:
    """What one file may cost. The defaults hold every released dataset with room to spare.

    Attributes:
        pixels: largest H·W of a picture, point map or cloud.
        memory: most bytes one file may occupy while it is read: its own bytes, the decoded array
            and the working copies together.
        ratio: largest expansion of a file that inflates to more than `ratio_from` bytes; baseline
            JPEG reaches 192 on a blank page, real scans stay below 50.
        ratio_from: decoded bytes from which `ratio` holds. An all-black mask of 20 megapixels
            compresses 1000:1 and is no bomb, so small files are not held to the ratio.
        valid_share: smallest share of measured pixels in a point map; below it nothing was seen.
        members: most files in one zip archive.
    """

    pixels: int = 64_000_000
    memory: int = 1 << 30
    ratio: float = 250.0
    ratio_from: int = 128 << 20
    valid_share: float = 0.001
    members: int = 100_000

    def check_size(self, file: File | Path, height: int, width: int) -> None:
        """Refuse a grid that is empty or has more pixels than the cap."""
        if height < 1 or width < 1:
            raise BadInputError(
                f"an empty grid of {height}×{width} pixels", "save it again", path=str(file)
            )
        if height * width > self.pixels:
            raise BadInputError(
                f"{height}×{width} pixels, more than the cap of {self.pixels:,}",
                "check the file; for larger scans pass limits=Limits(pixels=…) (--limits.pixels)",
                path=str(file),
            )

    def check_memory(self, file: File | Path, needed: int) -> None:
        """Refuse what would take more bytes than the cap."""
        if needed > self.memory:
            raise BadInputError(
                f"reading it would take {needed:,} bytes, more than the cap of {self.memory:,}",
                f"check the file; {_MORE_MEMORY}",
                path=str(file),
            )

    def check_ratio(self, file: File | Path, stored: int, decoded: int) -> None:
        """Refuse a large file that expands as only a decompression bomb does."""
        if decoded > self.ratio_from and decoded > self.ratio * max(stored, 1):
            raise BadInputError(
                f"{stored:,} stored bytes expand to {decoded:,}: more than {self.ratio:g} times, "
                "as a decompression bomb does",
                "check the file; if it is genuine, pass limits=Limits(ratio=…) (--limits.ratio)",
                path=str(file),
            )


@dataclass(frozen=True)
class File:
    """A file on disk, or a member of a zip archive on disk.

    Attributes:
        path: the file, or the archive.
        member: the member's name in the archive, or None.
        root: folder the file must really lie in, symbolic links resolved; None for a file that
            the user named directly.
    """

    path: Path
    member: str | None = None
    root: Path | None = None

    @property
    def name(self) -> str:
        """The last part of the name, as in "003.png"."""
        return (self.member or str(self.path)).replace("\\", "/").rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The extension in lower case, with its dot."""
        return os.path.splitext(self.name)[1].lower()

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return os.path.splitext(self.name)[0]

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)


@contextmanager
def decoding(file: File | Path, kind: str, remedy: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one `BadInputError`.

    Decoders raise some twenty kinds of exception on bad bytes (struct.error, zlib.error, KeyError,
    SyntaxError, MemoryError, …), and no list of them stays complete.
    """
    try:
        yield
    except BadInputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadInputError(f"not a readable {kind}: {reason}", remedy, path=str(file)) from error


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path that, with its symbolic links followed, leaves the root."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links is either, by version
        raise BadInputError(f"leads nowhere: {error}", "remove the link", str(path)) from error
    if not real.is_relative_to(root.resolve()):
        raise BadInputError(
            f"it leads out of the dataset's root {root} (to {real})",
            "pass the folder that really holds the files as root, without symbolic links in it",
            path=str(path),
        )


def join_inside(root: Path, relative: Any, source: File | Path) -> Path:
    """The path of a file that an untrusted document names.

    Args:
        root: folder that may not be left.
        relative: the name as found in the document.
        source: the document, for the message.

    Raises:
        BadInputError: the name is not text, is absolute, or climbs out of the root.
    """
    return root / check_relative(relative, source)


def check_relative(name: Any, source: File | Path) -> str:
    """A member's or document's relative name, refused where it is absolute or climbs out."""
    bad = (
        not isinstance(name, str)
        or not name.strip("/.")
        or len(name) > 1024
        or name.startswith(("/", "~"))
        or "\\" in name
        or re.match(r"^[A-Za-z]:", name) is not None
        or any(ord(letter) < 32 for letter in name)
        or ".." in name.split("/")
    )
    if bad:
        raise BadInputError(
            f"it names the file {str(name)[:120]!r}, which is not a plain path inside the dataset",
            "use an unaltered release of the dataset",
            path=str(source),
        )
    return name


def read_bytes(file: File, limits: Limits, most: int | None = None) -> bytes:
    """The whole file, once.

    Args:
        file: what to read.
        limits: the caps; a file larger than `limits.memory` is not opened.
        most: a smaller cap for files known to be small (JSON, YAML, camera parameters).

    Raises:
        BadInputError: missing, not a regular file, outside its root, empty, or too large.
    """
    cap = limits.memory if most is None else min(most, limits.memory)
    if file.root is not None:
        check_inside(file.path, file.root)
    if file.member is not None:
        with open_archive(file.path, limits) as archive:
            return archive.read(file.member, cap)
    with open_regular(file.path) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if size > cap:
            raise BadInputError(
                f"{size:,} bytes, more than the cap of {cap:,}",
                f"check that it is the right file; {_MORE_MEMORY}",
                path=str(file),
            )
        try:
            data = stream.read(size + 1)
        except OSError as error:
            raise BadInputError(
                f"cannot be read: {error.strerror}", "check the disk it lies on", path=str(file)
            ) from error
    if not data:
        raise BadInputError("the file is empty", "copy it again from the source", path=str(file))
    if len(data) != size:
        raise BadInputError("it changed while it was read", "try again", path=str(file))
    return data


class Archive:
    """A zip archive whose list of members has been checked; members are read into memory.

    Raises:
        BadInputError: not a zip, too many members, or a member that is absolute, climbs out, is a
            symbolic link, is encrypted, appears twice, or uses a method other than stored/deflate.
    """

    def __init__(self, stream: Stream, name: File | Path, limits: Limits):
        self._name, self._limits = name, limits
        remedy = "download the archive again and compare its checksum"
        with decoding(name, "zip archive", remedy):
            _check_directory(stream, name, limits)
            self._zip = zipfile.ZipFile(stream)
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            problem = _member_problem(info)
            if info.filename in self.members:
                problem = "appears twice"
            if problem is not None:
                raise BadInputError(f"member {info.filename!r} {problem}", remedy, path=str(name))
            check_relative(info.orig_filename.rstrip("/"), name)
            if not info.is_dir():
                self.members[info.filename] = info

    def read(self, member: str, most: int, held: int = 0) -> bytes:
        """One member's bytes.

        Args:
            member: its name.
            most: the most bytes it may have.
            held: bytes that are in memory meanwhile and count against the cap.
        """
        file = File(Path(str(self._name)), member)
        info = self.members.get(member)
        if info is None:
            raise BadInputError(
                "the archive has no such member", "download the archive again", path=str(file)
            )
        if info.file_size > most:
            raise BadInputError(
                f"{info.file_size:,} bytes, more than the cap of {most:,}",
                f"check the archive; {_MORE_MEMORY}",
                path=str(file),
            )
        self._limits.check_memory(file, held + info.compress_size + info.file_size)
        self._limits.check_ratio(file, info.compress_size, info.file_size)
        with decoding(file, "zip member", "download the archive again"):
            with self._zip.open(info) as stream:
                data = stream.read(info.file_size + 1)
            if len(data) != info.file_size or not data:
                raise ValueError(f"{info.file_size} bytes announced, {len(data)} found")
        return data


def _member_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 0x1:
        return "is encrypted"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"uses compression method {info.compress_type}; only stored and deflate are read"
    return None


def _check_directory(stream: Stream, name: File | Path, limits: Limits) -> None:
    """Refuse a list of members too long to hold, before zipfile builds it."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if stream.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise ValueError("it does not begin as a zip archive does")
    start = max(0, size - (1 << 16) - 22)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ValueError("the list of members at its end is missing: the file is cut short")
    count, directory = struct.unpack("<HL", tail[at + 10 : at + 16])
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64 locator
        (where,) = struct.unpack("<Q", tail[at - 12 : at - 4])
        stream.seek(min(where, size))
        record = stream.read(56)
        if len(record) < 56 or record[:4] != b"PK\x06\x06":
            raise ValueError("its zip64 record is damaged")
        count, directory = struct.unpack("<QQ", record[32:48])
    # The count may lie, the size of the list cannot: zipfile goes by it.
    if count > limits.members or directory > 200 * limits.members:
        raise BadInputError(
            f"{count:,} members in the archive, more than the cap of {limits.members:,}",
            "use an unaltered release of the dataset",
            path=str(name),
        )


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """The archive at a path, its list of members checked.

    It is opened anew each time: thousands of members are listed in milliseconds, and a dataset
    that holds no open file can be pickled and forked.
    """
    with open_regular(path) as stream:
        yield Archive(stream, path, limits)


def read_json(file: File, limits: Limits) -> Any:
    """A JSON document of at most 16 MiB.

    Python's objects are up to thirty times larger than the text, which is why the cap is small.
    """
    data = read_bytes(file, limits, most=16 << 20)
    with decoding(file, "JSON document", "restore it from the release"):
        return json.loads(data.decode("utf-8-sig"))
