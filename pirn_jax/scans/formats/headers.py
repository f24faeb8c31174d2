"""Headers of pictures, before Pillow sees them: all they announce must be there, within the caps.

Pillow shows rows that are missing as black, and makes room for a WebP's pixels as it opens it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File, Limits, Stream

WHITE = "say which value is white: white=… (--white), e.g. 4095 of a camera of 12 bits, or 65535"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Chunks of a PNG beyond these must have 2 KiB each on average (libpng writes 8); of a JPEG or a GIF
# no more pieces may come before the pixels: each costs Pillow a turn, whatever is in it.
_MOST_PIECES = 1000
_MOST_VALUES = 1 << 20  # strips of 64 megapixels, row by row, are a few thousand
_TIFF_BYTES = (1, 2, 6, 7)  # types whose values stay bytes: a thumbnail, a colour profile
# First column, first row and steps of each pass of an interlaced PNG.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def check_cost(
    file: File, stored: int, height: int, width: int, channels: int, limits: Limits
) -> None:
    """Refuse by the header alone what would be too large.

    Pillow holds at most four bytes a pixel, and libjpeg six more while it decodes a progressive
    JPEG; a conversion takes four more, and the array, which is filled strip by strip, as many.
    """
    limits.check_size(file, height, width)
    limits.check_memory(file, stored + 11 * height * width)
    limits.check_ratio(file, stored, height * width * channels)


def webp_size(data: bytes) -> tuple[int, int]:
    """Rows and columns by the first chunk: extended, lossless or lossy (RFC 9649)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        raise ValueError("it does not begin as a WebP does")
    if int.from_bytes(data[4:8], "little") > len(data) - 8:
        raise ValueError("cut short")
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise ValueError("no header of a picture")
    return height, width


def check_png(file: File, data: bytes, limits: Limits, *, deep: Collection[int] = ()) -> set[bytes]:
    """Walk the chunks: sizes before pixels, every checksum, and nothing after the end.

    Args:
        file: for messages.
        data: its bytes.
        limits: the caps.
        deep: colour types that may have 16 bits a channel.

    Returns:
        The names of the chunks.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it does not begin as a PNG does")
    at, names, pixels, header = 8, set(), [], (0, 0, 0, 0, 0)
    chunks, most = 0, _MOST_PIECES + len(data) // 2048
    while at < len(data) and b"IEND" not in names:
        chunks += 1
        if chunks > most:
            raise ValueError(f"more than {most} chunks in {len(data):,} bytes")
        if len(data) - at < 12:
            raise ValueError("cut short")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = memoryview(data)[at + 8 : at + 8 + length]
        checksum = data[at + 8 + length : at + 12 + length]
        if len(body) != length or len(checksum) != 4:
            raise ValueError(f"chunk {name!r} is cut short")
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(checksum, "big"):
            raise ValueError(f"the checksum of chunk {name!r} is wrong")
        if (name == b"IHDR") == bool(names):
            raise ValueError("its header is missing, late or repeated")
        if name == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            header = (width, height, depth, colour, interlaced)
        elif name == b"IDAT":
            pixels.append(body)
        names.add(name)
        at += 12 + length
    width, height, depth, colour, interlaced = header
    if depth == 16 and colour not in deep:
        raise BadInputError(
            "16 bits per channel: the scale to 8 bits is not known",
            f"save it without alpha channel, and {WHITE}" if colour > 3 else WHITE,
            path=str(file),
        )
    if b"IEND" not in names or not pixels:
        raise ValueError("cut short")
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow its end")
    if b"acTL" in names:
        raise ValueError("an animation, expected one picture")
    check_cost(file, len(data), height, width, 4, limits)
    if colour not in _PNG_CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise ValueError(f"colour type {colour} of {depth} bits, interlace {interlaced}")
    _check_inflated(pixels, _png_bytes(width, height, depth * _PNG_CHANNELS[colour], interlaced))
    return names


def check_pieces(kind: str, data: bytes) -> None:
    """Refuse what keeps Pillow busy before it has seen a pixel.

    Args:
        kind: Pillow's name of it.
        data: the file, or its beginning.
    """
    walk = {"PNG": _walk_png, "JPEG": _walk_jpeg, "GIF": _walk_gif}.get(kind)
    if walk is not None:
        walk(data)


def _walk_png(data: bytes) -> None:
    """The chunks before the pixels."""
    at = 8
    for _ in range(_MOST_PIECES):
        if len(data) < at + 8 or data[at + 4 : at + 8] == b"IDAT":
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"more than {_MOST_PIECES} chunks before its pixels")


def _walk_jpeg(data: bytes) -> None:
    """The segments before the pixels, and the bytes between them."""
    at, between = 2, 0
    for _ in range(_MOST_PIECES):
        begin = at
        while data[at : at + 2] not in (b"", b"\xff") and not _is_marker(data[at : at + 2]):
            at += 1
            between += 1
            if between > _MOST_PIECES:
                raise ValueError(f"{begin:,} bytes from its beginning there is no segment")
        if len(data) < at + 4 or data[at + 1] == 0xDA:
            return
        alone = data[at + 1] == 1 or 0xD0 <= data[at + 1] <= 0xD8  # without a length
        at += 2 if alone else 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise ValueError(f"more than {_MOST_PIECES} segments before its pixels")


def _is_marker(two: bytes) -> bool:
    return two[0] == 0xFF and two[1] not in (0, 0xFF)


def _walk_gif(data: bytes) -> None:
    """The blocks before the first picture, and the pieces of each."""
    if len(data) < 13:
        raise ValueError("cut short")
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    for _ in range(_MOST_PIECES):
        match data[at : at + 1]:
            case b"" | b",":
                return
            case b"!":
                at += 2
                for _ in range(_MOST_PIECES):
                    if not data[at : at + 1].strip(b"\0"):
                        break
                    at += 1 + data[at]
                else:
                    raise ValueError(f"a block of more than {_MOST_PIECES} pieces")
        at += 1
    raise ValueError(f"more than {_MOST_PIECES} blocks before its picture")


def check_tiff(stream: Stream) -> None:
    """See how many values the first directory announces: they are read as Python's numbers."""
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    if not order or len(head) < 16:
        raise ValueError("it does not begin as a TIFF does")
    big = head[2:4] in (b"+\0", b"\0+")  # offsets and counts of 8 bytes
    word, short, size, length = ("Q", 8, 20, 8) if big else ("I", 4, 12, 2)
    (at,) = struct.unpack_from(f"{order}{word}", head, short)
    stream.seek(min(at, 1 << 62))
    count = int.from_bytes(stream.read(length), "little" if order == "<" else "big")
    table = stream.read(size * min(count, 1 << 16))
    stream.seek(0)
    values = 0
    for entry in range(0, len(table) - size + 1, size):
        _, kind, number = struct.unpack_from(f"{order}HH{word}", table, entry)
        values += 0 if kind in _TIFF_BYTES else number
    if values > _MOST_VALUES:
        raise ValueError(f"{values:,} values in its directory, more than {_MOST_VALUES:,}")


def _png_bytes(width: int, height: int, bits: int, interlaced: int) -> int:
    """Bytes of the filtered rows of a PNG, each with its filter byte."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _check_inflated(parts: list[memoryview], expected: int) -> None:
    """Pillow shows rows that are missing as black; here as many bytes must come as announced."""
    inflater, total = zlib.decompressobj(), 0
    for part in parts:
        rest: bytes | memoryview = part
        while rest and not inflater.eof and total <= expected:
            total += len(inflater.decompress(rest, 1 << 18))
            rest = inflater.unconsumed_tail
    while not inflater.eof and total <= expected and (more := inflater.decompress(b"", 1 << 18)):
        total += len(more)
    if total != expected or not inflater.eof:
        raise ValueError(f"pixels of {total:,} bytes where the header announces {expected:,}")
