"""Headers of pictures, before Pillow sees them: all they announce must be there, within the caps.

Pillow shows rows that are missing as black, and makes room for a WebP's pixels as it opens it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File, Limits

WHITE = "say which value is white: white=… (--white), e.g. 4095 of a camera of 12 bits, or 65535"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
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
    while at < len(data) and b"IEND" not in names:
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
