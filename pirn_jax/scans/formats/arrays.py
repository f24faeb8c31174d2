"""Arrays from untrusted files: TIFF, NPY and NPZ with floating-point or integer values.

Every header is read and believed only as far as the file's own length bears it out: the bytes the
header announces must be the bytes that are there, before anything is allocated for them.

TIFF is parsed by tifffile and decoded here: released point maps are LZW or deflate compressed,
some with a predictor, for which tifffile needs imagecodecs and inflates without a bound. Deflate
strips are inflated up to the size the header gives them; LZW is undone by libtiff through Pillow,
which sees the same strips as rows of plain bytes.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import Archive, File, Limits, Stream, decoding, read_bytes
from pirn_jax.scans.formats.headers import check_tiff

_BAD_TIFF = 'write float32 points (H, W, 3) with tifffile.imwrite(…, photometric="rgb")'
_BAD_NPY = "write it again with numpy.save(path, array) from a float32 array (H, W, 3)"
_NONE, _LZW, _DEFLATE = (1,), (5,), (8, 32946)  # TIFF compression codes
_TILES = {322, 323, 324, 325}  # tags
_LARGEST_LZW = 64 << 20  # bytes of one LZW strip


def read_array(file: File, limits: Limits, key: str = "xyz") -> np.ndarray:
    """An array as stored, of two or three dimensions.

    Args:
        file: .tif, .tiff, .npy or .npz.
        limits: the caps.
        key: which array of an .npz with several.

    Returns:
        Array (H, W) or (H, W, C) of real numbers or truth values; read-only where it lies in the
        file.

    Raises:
        BadInputError: another kind of file, objects or text in it, a header that does not fit its
            bytes, or more than the caps allow.
    """
    data = read_bytes(file, limits)
    if file.suffix in (".tif", ".tiff"):
        with decoding(file, "TIFF point map", _BAD_TIFF):
            check_tiff(io.BytesIO(data))
            return _tiff(file, data, limits)
    if file.suffix == ".npz":
        name, data = _npz_member(file, data, limits, key)
        file = File(file.path, f"{file.member}!{name}" if file.member else name)
    with decoding(file, "NPY array", _BAD_NPY):
        return _npy(file, data, limits)


def _check_grid(
    file: File, shape: tuple[int, ...], dtype: np.dtype, stored: int, limits: Limits
) -> None:
    """Refuse what is no (H, W) or (H, W, C≤4) grid of real numbers within the caps."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise BadInputError(
            f"expected real numbers, got {dtype}", "save it as float32", path=str(file)
        )
    if len(shape) not in (2, 3) or (len(shape) == 3 and not 1 <= shape[2] <= 4):
        raise BadInputError(
            f"expected a grid (H, W, 3) of points or (H, W) of depths, got shape {shape}",
            "points must stay on the sensor's grid, channels last",
            path=str(file),
        )
    limits.check_size(file, shape[0], shape[1])
    # The file's bytes, the decoded values, their float32 copy, and the tests for validity.
    limits.check_memory(file, stored + math.prod(shape) * (dtype.itemsize + 9))


def read_npy_header(file: File, stream: Stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order (True: Fortran's) and type of an NPY file, whose values begin where it ends.

    Raises:
        ValueError: no header, or one of another version.
        BadInputError: it announces Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"NPY version {version}; 1.0 and 2.0 are read")
    if dtype.hasobject:
        raise BadInputError(
            "it holds Python objects, which are never unpickled", _BAD_NPY, str(file)
        )
    return shape, fortran, dtype


def _npy(file: File, data: bytes, limits: Limits) -> np.ndarray:
    stream = io.BytesIO(data)
    shape, fortran, dtype = read_npy_header(file, stream)
    _check_grid(file, shape, dtype, len(data), limits)
    begin = stream.tell()
    if len(data) - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"shape {shape} of {dtype} needs {math.prod(shape) * dtype.itemsize:,} bytes, "
            f"the file holds {len(data) - begin:,}"
        )
    flat = np.frombuffer(data, dtype, offset=begin)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npz_member(file: File, data: bytes, limits: Limits, key: str) -> tuple[str, bytes]:
    archive = Archive(io.BytesIO(data), file, limits)
    arrays = [name for name in archive.members if name.endswith(".npy")]
    name = arrays[0] if len(arrays) == 1 else f"{key}.npy"
    if name not in archive.members:
        raise BadInputError(
            f"expected one array or one named {key!r}, found {sorted(arrays)[:8]}",
            f"write it with numpy.savez(path, {key}=array)",
            path=str(file),
        )
    return name, archive.read(name, limits.memory, held=len(data))


def _tiff(file: File, data: bytes, limits: Limits) -> np.ndarray:
    """A single-page TIFF in strips, from its header to its values."""
    # TiffFile and its pages refer to each other; closing the stream lets go of the bytes at once.
    with io.BytesIO(data) as stream, tifffile.TiffFile(stream, name=file.name) as tiff:
        page = tiff.pages.first
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None:
            raise ValueError("no page with a known number type")
        try:
            tiff.pages[1]
        except IndexError:
            pass
        else:
            raise BadInputError("expected one page, got several", _BAD_TIFF, path=str(file))
        shape, dtype = page.shape, np.dtype(page.dtype).newbyteorder(tiff.byteorder)
        _check_grid(file, shape, dtype, len(data), limits)
        height, width = shape[:2]
        channels = shape[2] if len(shape) == 3 else 1
        tags = {tag.code: tag.count for tag in page.tags}
        if page.imagedepth != 1 or _TILES & tags.keys() or page.planarconfig not in (1, None):
            raise ValueError("tiles, planes or volumes; expected strips of whole rows")
        if page.fillorder != 1 or page.bitspersample != 8 * dtype.itemsize:
            raise ValueError("packed or reversed bits")
        offsets, counts = page.dataoffsets, page.databytecounts
        rows = min(int(page.rowsperstrip), height)
        compression, predictor = int(page.compression), int(page.predictor)
    if compression in _NONE and predictor != 1:  # libtiff ignores it, tifffile applies it
        raise ValueError("a predictor without compression")
    strips = -(-height // rows) if rows > 0 else 0
    listed = {len(offsets), len(counts), tags.get(273, 0), tags.get(279, 0)}
    if strips == 0 or listed != {strips}:  # tifffile mends some lies; they are lies all the same
        raise ValueError(f"{sorted(listed)} strips of {rows} rows for {height} rows")
    if any(o < 0 or c <= 0 or o + c > len(data) for o, c in zip(offsets, counts, strict=True)):
        raise ValueError("a strip lies outside the file: it is cut short")
    row_bytes = width * channels * dtype.itemsize
    limits.check_ratio(file, sum(counts), height * row_bytes)
    segments = [memoryview(data)[o : o + c] for o, c in zip(offsets, counts, strict=True)]
    batch = 1  # strips at a time
    if compression in _LZW:
        if rows * row_bytes > _LARGEST_LZW:
            raise ValueError(f"LZW strips of {rows * row_bytes:,} bytes")
        batch = max(1, _LARGEST_LZW // 8 // (rows * row_bytes))
        # Packed, wrapped, in Pillow, and as bytes, beside the file and the values.
        limits.check_memory(file, len(data) + (height + 5 * min(batch * rows, height)) * row_bytes)
    raw = np.empty(height * row_bytes, np.uint8)
    for first in range(0, strips, batch):
        some = segments[first : first + batch]
        begin, end = first * rows, min((first + len(some)) * rows, height)
        if compression in _LZW:
            found = _unpack_lzw(some, end - begin, row_bytes, rows)
        else:
            found = _strip(some[0], (end - begin) * row_bytes, compression)
        raw[begin * row_bytes : end * row_bytes] = np.frombuffer(found, np.uint8)
    values = _undo_predictor(raw, height, channels, dtype, predictor)
    return values.reshape(shape)


def _strip(segment: memoryview, expected: int, compression: int) -> bytes | memoryview:
    """One strip's bytes: exactly as many as its rows take."""
    if compression in _NONE:
        found: bytes | memoryview = segment
    elif compression in _DEFLATE:
        found = zlib.decompressobj().decompress(segment, expected + 1)
    else:
        raise ValueError(f"compression {compression}; none, LZW and deflate are read")
    if len(found) != expected:
        raise ValueError(f"a strip of {len(found):,} bytes where its rows take {expected:,}")
    return found


def _unpack_lzw(segments: list[memoryview], height: int, row_bytes: int, rows: int) -> bytes:
    """LZW strips to bytes: an 8-bit grey TIFF made around them, for libtiff to decode."""
    body = b"".join(segments)
    lengths = [len(segment) for segment in segments]
    count = len(segments)
    starts = np.cumsum([8, *lengths[:-1]]).tolist()
    tables_at = 8 + len(body)
    directory_at = tables_at + 8 * count
    entries = [
        (256, 4, 1, row_bytes),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, _LZW[0]),
        (262, 3, 1, 1),
        (273, 4, count, starts[0] if count == 1 else tables_at),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, count, lengths[0] if count == 1 else tables_at + 4 * count),
    ]
    wrapped = struct.pack("<2sHI", b"II", 42, directory_at) + body
    wrapped += struct.pack(f"<{2 * count}I", *starts, *lengths)
    wrapped += struct.pack("<H", len(entries))
    wrapped += b"".join(struct.pack("<HHII", *entry) for entry in entries) + b"\0\0\0\0"
    with Image.open(io.BytesIO(wrapped), formats=["TIFF"]) as picture:
        if picture.mode != "L" or picture.size != (row_bytes, height):
            raise ValueError("LZW strips that do not fit the header")
        return picture.tobytes()


def _undo_predictor(
    raw: UInt8[np.ndarray, " N"], height: int, channels: int, dtype: np.dtype, predictor: int
) -> np.ndarray:
    """Values from bytes; TIFF predictors store differences along each row (TIFF 6, TechNote 3)."""
    if predictor == 1:
        return raw.view(dtype)
    if predictor == 2:
        whole = np.dtype(f"{dtype.byteorder}u{dtype.itemsize}")
        steps = raw.view(whole).reshape(height, -1, channels)
        sums = np.cumsum(steps, axis=1, dtype=whole.newbyteorder("="))
        return sums.view(dtype.newbyteorder("=")).reshape(-1)
    if predictor == 3 and dtype.kind == "f":
        steps = raw.reshape(height, -1, channels)
        planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(height, dtype.itemsize, -1)
        ordered = np.ascontiguousarray(planes.transpose(0, 2, 1))  # most significant byte first
        return ordered.view(f">f{dtype.itemsize}").reshape(-1)
    raise ValueError(f"predictor {predictor} of {dtype}")
