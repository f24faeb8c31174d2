"""A glance at a file: is it there, whole and of its kind, by its first and last bytes alone?

No pixel is decoded, so a thousand scans are looked through in seconds, before any work begins. What
is damaged inside is still found when the file is read.
"""

from __future__ import annotations

import io
import math

import tifffile
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.arrays import read_npy_header
from pirn_jax.scans.formats.clouds import read_header
from pirn_jax.scans.formats.files import File, Limits, Stream, check_inside, decoding
from pirn_jax.scans.formats.headers import check_cost, check_pieces, check_tiff, webp_size
from pirn_jax.scans.formats.pictures import PICTURE_FORMATS, bombs_refused
from pirn_jax.storage import open_regular

_BEGINNING = 1 << 18  # bytes in which nearly all pictures say how large they are
_ENDS = {  # what the last bytes of a whole picture hold, and among how many of them
    "PNG": (b"\0\0\0\0IEND\xaeB`\x82", 12),
    "JPEG": (b"\xff\xd9", 1 << 16),
    "GIF": (b";", 1 << 10),
}


def check_file(file: File, limits: Limits) -> None:
    """Refuse a file that cannot be read, by its header, its length and its end.

    Raises:
        BadInputError: missing, no regular file, empty, of another kind, cut short, or too large.
    """
    if file.root is not None:
        check_inside(file.path, file.root)
    if file.member is not None:  # the archive's list was read when its members were listed
        return
    with open_regular(file.path) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if not size:
            raise BadInputError("the file is empty", "copy it again", path=str(file))
        limits.check_memory(file, size)
        with decoding(file, f"{file.suffix} file", "copy it again from the source"):
            kind = PICTURE_FORMATS.get(file.suffix)
            if kind == "TIFF":
                _check_tiff(file, stream, size, limits)
            elif kind is not None:
                _check_picture(file, stream, size, kind, limits)
            elif file.suffix == ".npy":
                _check_npy(file, stream, size, limits)
            elif file.suffix in (".ply", ".pcd"):
                header = read_header(file, stream.read(1 << 16))
                if header.encoding == "binary":
                    _check_length(size, header.begin + header.points * header.record.itemsize)


def _check_length(size: int, needed: int) -> None:
    if size < needed:
        raise ValueError(f"cut short: {size:,} bytes where its header announces {needed:,}")


def _check_picture(file: File, stream: Stream, size: int, kind: str, limits: Limits) -> None:
    beginning = stream.read(size if kind == "WEBP" else _BEGINNING)  # Pillow reads a WebP whole
    if kind == "WEBP":
        check_cost(file, size, *webp_size(beginning), 8, limits)
    try:
        picture = _opened(kind, beginning)
    except Exception:  # as for decoders, of which kind is not known
        if size <= len(beginning):
            raise
        picture = _opened(kind, beginning + stream.read())  # a long comment, or colour profile
    limits.check_size(file, picture.height, picture.width)
    if kind in _ENDS:
        end, among = _ENDS[kind]
        stream.seek(max(0, size - among))
        if end not in stream.read():
            raise ValueError("cut short: its end is missing")


def _opened(kind: str, data: bytes) -> Image.Image:
    check_pieces(kind, data)
    with bombs_refused():
        return Image.open(io.BytesIO(data), formats=[kind])


def _check_tiff(file: File, stream: Stream, size: int, limits: Limits) -> None:
    check_tiff(stream)
    with tifffile.TiffFile(stream, name=file.name) as tiff:
        page = tiff.pages.first
        limits.check_size(file, page.imagelength, page.imagewidth)
        parts = zip(page.dataoffsets, page.databytecounts, strict=False)
        _check_length(size, max((offset + count for offset, count in parts), default=size + 1))


def _check_npy(file: File, stream: Stream, size: int, limits: Limits) -> None:
    shape, _, dtype = read_npy_header(file, stream)
    _check_length(size, stream.tell() + math.prod(shape) * dtype.itemsize)
