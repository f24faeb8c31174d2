"""Organised point clouds from untrusted files: PCD and PLY in ASCII and binary.

A cloud is organised when its points lie in the order of the sensor's pixels. PCD says so in WIDTH
and HEIGHT. PLY has no such field: the size is taken from the notes sensors leave in the header
(`obj_info num_cols`, `comment width`) or, where the number of vertices is
exactly the photograph's number of pixels, from the photograph. Open3D drops the order of a PLY,
and surface normals and masks need it, so the files are read here.
"""

from __future__ import annotations

import math
import re
import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File, Limits, decoding, read_bytes

_REMEDY = "export the cloud organised (row by row, NaN where nothing was measured), or as xyz TIFF"
_MOST_HEADER = 64 << 10
_TOKEN_BYTES = 24  # memory per byte of ASCII text while it is split into words
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}
_PLY_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1"},
    **{"short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2"},
    **{"int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}


class Header(NamedTuple):
    """What a cloud's header says.

    Attributes:
        height: rows of the grid, 0 where the header does not say.
        width: columns of the grid, 0 where the header does not say.
        points: number of points.
        record: one point's fields.
        encoding: "ascii", "binary" or "binary_compressed".
        begin: where the points start in the file.
    """

    height: int
    width: int
    points: int
    record: np.dtype
    encoding: str
    begin: int


def read_cloud(
    file: File, limits: Limits, grid: tuple[int, int] | None = None
) -> Float32[np.ndarray, "H W 3"]:
    """The points of an organised cloud, in the file's unit, NaN kept.

    Args:
        file: .pcd or .ply.
        limits: the caps.
        grid: the photograph's (H, W), for a PLY that does not tell its own.

    Raises:
        BadInputError: unorganised, damaged, lying about its length, or larger than the caps.
    """
    data = read_bytes(file, limits)
    kind = file.suffix[1:].upper()
    with decoding(file, f"{kind} cloud", _REMEDY):
        header = read_header(file, data)
        height, width = header.height, header.width
        if not height and grid is not None and header.points == grid[0] * grid[1]:
            height, width = grid
        if height < 2 or width < 2 or height * width != header.points:
            raise BadInputError(
                f"{header.points:,} points without a grid: the cloud is not organised",
                _REMEDY,
                path=str(file),
            )
        limits.check_size(file, height, width)
        # Packed points are copied and unpacked; words are objects; then points and tests on them.
        copies = {"ascii": _TOKEN_BYTES, "binary_compressed": 2}.get(header.encoding, 1)
        unpacked = header.points * header.record.itemsize * (header.encoding != "ascii") * 9 // 8
        limits.check_memory(file, len(data) * copies + unpacked + header.points * 24)
        names = header.record.names or ()
        if not {"x", "y", "z"} <= set(names):
            raise ValueError(f"expected fields x, y, z, found {names[:12]}")
        points = _points(header, memoryview(data)[header.begin :], kind, file, limits)
    return points.reshape(height, width, 3)


def read_header(file: File, data: bytes) -> Header:
    """What the header of a .pcd or .ply says, from the file's first bytes.

    Raises:
        ValueError: it says nothing sound.
    """
    return _pcd_header(data) if file.suffix == ".pcd" else _ply_header(data)


def _points(
    header: Header, body: memoryview, kind: str, file: File, limits: Limits
) -> Float32[np.ndarray, "N 3"]:
    record, count = header.record, header.points
    size = count * record.itemsize
    if header.encoding == "ascii":
        words = bytes(body).split()
        columns = sum(math.prod(record[name].shape) for name in record.names or ())
        exact = len(words) == count * columns
        if len(words) < count * columns or (kind == "PCD" and not exact):
            raise ValueError(f"{len(words)} numbers for {count} points of {columns}")
        at, points = 0, np.empty((count, 3), np.float32)
        for name in record.names or ():
            if name in ("x", "y", "z"):
                column = np.fromiter(map(float, words[at : count * columns : columns]), np.float64)
                with np.errstate(over="ignore"):
                    points[:, "xyz".index(name)] = column
            at += math.prod(record[name].shape)
        return points
    if header.encoding == "binary_compressed":
        stored, announced = struct.unpack("<II", body[:8])
        if announced != size or stored > len(body) - 8:  # PCL pads the file to whole pages
            raise ValueError(
                f"{announced:,} and {stored:,} bytes announced, {size:,} and at most "
                f"{len(body) - 8:,} expected"
            )
        limits.check_ratio(file, stored, announced)
        planes, at = memoryview(_unpack_lzf(bytes(body[8 : 8 + stored]), announced)), 0
        points = np.empty((count, 3), np.float32)
        for name in record.names or ():  # field by field, not point by point
            length = count * record[name].itemsize
            if name in ("x", "y", "z"):
                with np.errstate(over="ignore"):
                    points[:, "xyz".index(name)] = np.frombuffer(
                        planes[at : at + length], record[name]
                    )
            at += length
        return points
    # A PLY may go on with faces; a PCD ends with its points.
    if len(body) < size or (kind == "PCD" and len(body) != size):
        raise ValueError(f"{size:,} bytes of points announced, {len(body):,} found")
    table = np.frombuffer(body, record, count=count)
    points = np.empty((count, 3), np.float32)
    with np.errstate(over="ignore"):
        for column, name in enumerate("xyz"):
            points[:, column] = table[name]
    return points


def _pcd_header(data: bytes) -> Header:
    end = re.search(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", data[:_MOST_HEADER], re.MULTILINE)
    if end is None:
        raise ValueError("no DATA line in its header")
    lines = {}
    for line in data[: end.start()].decode("ascii").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            lines[words[0]] = words[1:]
    names, sizes, types = lines["FIELDS"], lines["SIZE"], lines["TYPE"]
    counts = [int(word) for word in lines.get("COUNT", ["1"] * len(names))]
    fields = []
    for number, (name, size, kind, count) in enumerate(
        zip(names, sizes, types, counts, strict=True)
    ):
        if not 1 <= count <= 1024:
            raise ValueError(f"{count} values in field {name}")
        unique = name if name in ("x", "y", "z") else f"field {number}"  # "_" may come twice
        fields.append((unique, f"<{_PCD_TYPES[kind]}{int(size)}", (count,) if count > 1 else ()))
    height, width, points = (int(lines[name][0]) for name in ("HEIGHT", "WIDTH", "POINTS"))
    if min(height, width) < 1 or points != height * width:
        raise ValueError(f"{points} points on a grid of {height}×{width}")
    encoding = end.group(1).decode()
    if encoding not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(f"DATA {encoding}")
    grid = (0, 0) if height == 1 else (height, width)
    return Header(*grid, points, np.dtype(fields), encoding, end.end())


def _ply_header(data: bytes) -> Header:
    end = re.search(rb"^end_header[ \t]*\r?\n", data[:_MOST_HEADER], re.MULTILINE)
    if end is None or not data.startswith(b"ply"):
        raise ValueError("no complete PLY header")
    encoding, order, element, points, before = "", "<", "", -1, False
    fields: list[tuple[str, str]] = []
    size: dict[str, int] = {}
    for line in data[: end.start()].decode("ascii").splitlines()[1:]:
        match line.split():
            case ["format", "ascii", "1.0"]:
                encoding = "ascii"
            case ["format", "binary_little_endian" | "binary_big_endian" as name, "1.0"]:
                encoding, order = "binary", "<" if "little" in name else ">"
            case ["element", "vertex", count] if points < 0:
                element, points = "vertex", int(count)
            case ["element", name, _]:
                before, element = before or points < 0, name
            case ["property", kind, name] if element == "vertex":
                fields.append((name, order + _PLY_TYPES[kind]))
            case ["property", "list", *_] if element == "vertex":
                raise ValueError("a list among the properties of a vertex")
            case ["obj_info" | "comment", "num_cols" | "width" | "Width", count]:
                size["width"] = int(count)
            case ["obj_info" | "comment", "num_rows" | "height" | "Height", count]:
                size["height"] = int(count)
    if not encoding or points < 1 or before:
        raise ValueError("no format, no vertices, or another element before them")
    height, width = size.get("height", 0), size.get("width", 0)
    if height < 2 or width < 2:
        height = width = 0
    return Header(height, width, points, np.dtype(fields), encoding, end.end())


def _unpack_lzf(data: bytes, size: int) -> bytearray:
    """LZF: literal runs of 1–32 bytes, or copies of 3–264 bytes from at most 8 KiB back."""
    out, at = bytearray(), 0
    while at < len(data) and len(out) <= size:
        control = data[at]
        at += 1
        if control < 32:
            run = data[at : at + control + 1]
            if len(run) != control + 1:
                raise ValueError("compressed points end early")
            out += run
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - data[at] - 1
        at += 1
        length += 2
        if start < 0:
            raise ValueError("compressed points refer to before their beginning")
        piece = out[start : start + length]
        while len(piece) < length:  # the copy may overlap what it writes
            piece += piece[: length - len(piece)]
        out += piece
    if len(out) != size:
        raise ValueError(f"compressed points unpack to {len(out)} bytes, not {size}")
    return out
