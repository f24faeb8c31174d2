"""Hostile point maps: TIFF and NPY."""

import io
import os
import struct

import numpy as np

from tests.scans import layouts
from tests.scans.hostile.corpus import cuts, one_file
from tests.scans.hostile.pictures import zeros_deflated

# ------------------------------------------------------------------------------ point map TIFF

XYZ = layouts.points()
SOUND_TIFF = layouts.tiff_bytes(XYZ)
ONE = 3  # TIFF type short
LONG = 4

for at in cuts(SOUND_TIFF):
    one_file(f"point map cut at {at}", "xyz", "a.tiff", SOUND_TIFF[:at])
for compression in ("deflate", "lzw"):
    packed = layouts.tiff_bytes(XYZ, compression, rows=3)
    for share in (0.3, 0.6):
        cut = bytearray(packed)
        begin = 8 + int(share * 300)
        cut[begin : begin + 40] = bytes(40)
        one_file(f"point map {compression} damaged at {begin}", "xyz", "a.tiff", bytes(cut))
for label, extra in {
    "width 0": [(256, LONG, [0])],
    "height 0": [(257, LONG, [0])],
    "width times 1000": [(256, LONG, [16000])],
    "width 2^32-1": [(256, LONG, [2**32 - 1])],
    "height 2^31": [(257, LONG, [2**31])],
    "60000×60000": [(256, LONG, [60_000]), (257, LONG, [60_000])],
    "7000×7000": [(256, LONG, [7000]), (257, LONG, [7000]), (278, LONG, [7000])],
    "64-bit floats in half the room": [(258, ONE, [64, 64, 64])],
    "bits that differ": [(258, ONE, [32, 16, 8])],
    "5 bits": [(258, ONE, [5, 5, 5])],
    "one channel": [(277, ONE, [1]), (258, ONE, [32]), (339, ONE, [3])],
    "65535 channels": [(277, ONE, [65535])],
    "integers": [(339, ONE, [1, 1, 1])],
    "complex numbers": [(339, ONE, [6, 6, 6])],
    "an unknown number type": [(339, ONE, [9, 9, 9])],
    "planes": [(284, ONE, [2])],
    "an unknown plane order": [(284, ONE, [77])],
    "tiles": [(322, LONG, [16]), (323, LONG, [16]), (324, LONG, [8]), (325, LONG, [2304])],
    "tiles of no size": [(322, LONG, [0]), (323, LONG, [0])],
    "a volume": [(32997, LONG, [4])],
    "compression jpeg": [(259, ONE, [7])],
    "compression lzma": [(259, ONE, [34925])],
    "compression zstd": [(259, ONE, [50000])],
    "compression unknown": [(259, ONE, [4242])],
    "compression deflate over plain bytes": [(259, ONE, [8])],
    "compression lzw over plain bytes": [(259, ONE, [5])],
    "predictor 99": [(317, ONE, [99])],
    "reversed bits": [(266, ONE, [2])],
    "strips of no rows": [(278, LONG, [0])],
    "strips of one row, but one strip": [(278, LONG, [1])],
    "a strip behind the end": [(273, LONG, [10**6])],
    "a strip at 2^32-1": [(273, LONG, [2**32 - 1])],
    "a strip longer than the file": [(279, LONG, [10**8])],
    "a strip shorter than its rows": [(279, LONG, [100])],
    "a strip of no bytes": [(279, LONG, [0])],
    "twice the strips": [(273, LONG, [8, 8]), (279, LONG, [2304, 2304])],
}.items():
    one_file(
        f"point map {label}",
        "xyz",
        "a.tiff",
        lambda extra=extra: layouts.tiff_bytes(XYZ, extra=extra),
    )
for label, array in {
    "nothing measured: NaN": np.full((12, 16, 3), np.nan, np.float32),
    "nothing measured: zeros": np.zeros((12, 16, 3), np.float32),
    "nothing measured: infinite": np.full((12, 16, 3), np.inf, np.float32),
    "one point": np.full((1, 1, 3), 0.5, np.float32),
    "all points in one place": np.full((12, 16, 3), 0.5, np.float32),
    "millimetres read as metres": XYZ * 1000,
    "coordinates of 1e30": XYZ * np.float32(1e30),
    "float64 beyond float32": XYZ.astype(np.float64) * 1e200,
    "channels first": np.ascontiguousarray(XYZ.transpose(2, 0, 1)),
}.items():
    one_file(f"point map {label}", "xyz", "a.tiff", lambda array=array: layouts.tiff_bytes(array))


def deflate_bomb():
    """A small grid whose one strip inflates to a gigabyte."""
    packed = zeros_deflated(3 << 30)
    tags = {
        **{256: (4, [16]), 257: (4, [12]), 258: (3, [32] * 3), 259: (3, [8]), 262: (3, [2])},
        **{273: (4, [8]), 277: (3, [3]), 278: (4, [12]), 279: (4, [len(packed)])},
        **{284: (3, [1]), 339: (3, [3] * 3)},
    }
    return layouts.tiff_from(tags, packed)


def tiff_loop(step):
    """Pages that follow each other in a circle, or a page that follows itself."""
    data = bytearray(SOUND_TIFF)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at + step)
    return bytes(data)


def two_pages():
    data = bytearray(SOUND_TIFF)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, len(data))
    return bytes(data) + bytes(data[at : at + 2 + 12 * count]) + bytes(4)


def huge_tag(tag):
    """A tag that announces two thousand million values."""
    data = bytearray(SOUND_TIFF)
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            struct.pack_into("<I", data, entry + 4, 2**31 - 1)
    return bytes(data)


one_file("point map deflate bomb in one strip", "xyz", "a.tiff", deflate_bomb)
one_file("point map of two pages", "xyz", "a.tiff", two_pages)
for tag in (256, 258, 273, 279, 339):
    one_file(f"point map tag {tag} of 2^31 values", "xyz", "a.tiff", huge_tag(tag))
one_file(
    "point map directory behind the end", "xyz", "a.tiff", b"II*\0\xff\xff\xff\x7f" + bytes(99)
)
one_file("point map of no directory", "xyz", "a.tiff", b"II*\0\0\0\0\0" + bytes(99))
one_file(
    "point map directory of 65535 tags", "xyz", "a.tiff", b"II*\0\x08\0\0\0\xff\xff" + bytes(99)
)
one_file("point map BigTIFF cut short", "xyz", "a.tiff", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0")
one_file(
    "point map BigTIFF of 2^60 tags",
    "xyz",
    "a.tiff",
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + struct.pack("<Q", 2**60) + bytes(200),
)


# --------------------------------------------------------------------------------------- NPY


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npy_header(text, body=b"", version=(1, 0), length=None):
    header = text.encode().ljust(118) + b"\n"
    size = len(header) if length is None else length
    packed = struct.pack("<H" if version[0] == 1 else "<I", size)
    return b"\x93NUMPY" + bytes(version) + packed + header + body


def described(shape="(12, 16, 3)", descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


SOUND_NPY = npy(XYZ)
BODY = XYZ.tobytes()
for at in cuts(SOUND_NPY):
    one_file(f"npy cut at {at}", "xyz", "a.npy", SOUND_NPY[:at])
one_file("npy with bytes behind its end", "xyz", "a.npy", SOUND_NPY + b"PK\x03\x04")


def object_array():
    class Trap:
        def __reduce__(self):
            return (os._exit, (66,))  # unpickling would end the process

    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    return stream.getvalue()


one_file("npy of pickled objects", "xyz", "a.npy", object_array)
for label, data in {
    "shape larger than its bytes": npy_header(described("(1200, 16, 3)"), BODY),
    "shape smaller than its bytes": npy_header(described("(6, 16, 3)"), BODY),
    "shape of 2^62": npy_header(described(f"({2**62}, 16, 3)"), BODY),
    "shape whose product overflows": npy_header(described(f"({2**32}, {2**32}, 3)"), BODY),
    "shape of 60000×60000": npy_header(described("(60000, 60000, 3)"), BODY),
    "shape of 9000×9000": npy_header(described("(9000, 9000, 3)"), BODY),
    "negative shape": npy_header(described("(-12, -16, 3)"), BODY),
    "shape of floats": npy_header(described("(12.0, 16.0, 3.0)"), BODY),
    "shape of text": npy_header(described("'12x16'"), BODY),
    "empty shape": npy_header(described("()"), b"\0\0\0\0"),
    "objects in its header only": npy_header(described(descr="'|O'"), BODY),
    "a record type": npy_header(described(descr="[('x','<f4'),('y','<f4'),('z','<f4')]"), BODY),
    "a type that does not exist": npy_header(described(descr="'<q17'"), BODY),
    "a type as code": npy_header(described(descr="__import__('os').system('true')"), BODY),
    "text": npy_header(described("(12, 16, 3)", "'<U1'"), BODY),
    "void of a gigabyte": npy_header(described(descr="'|V1073741824'"), BODY),
    "no dictionary": npy_header("[1, 2, 3]", BODY),
    "a missing field": npy_header("{'descr': '<f4', 'shape': (12, 16, 3)}", BODY),
    "a field too many": npy_header(described()[:-1] + ", 'more': 1}", BODY),
    "header of code": npy_header("__import__('os').abort()", BODY),
    "header of parentheses": npy_header("(" * 8000, BODY),
    "header longer than the file": npy_header(described(), BODY, length=65000),
    "header of 4 GB": npy_header(described(), BODY, (2, 0), length=2**32 - 1),
    "version 3": npy_header(described(), BODY, (3, 0)),
    "version 9": npy_header(described(), BODY, (9, 9)),
    "order that is no truth value": npy_header(described(order="'yes'"), BODY),
}.items():
    one_file(f"npy {label}", "xyz", "a.npy", data)
for label, array in {
    "of integers": (XYZ * 1000).astype(np.int32),
    "of truth values": XYZ > 0,
    "of complex numbers": XYZ.astype(np.complex64),
    "of dates": np.zeros((12, 16, 3), "datetime64[s]"),
    "of one dimension": XYZ.reshape(-1),
    "of two dimensions": XYZ[..., 2],
    "of four dimensions": XYZ[None],
    "channels first": np.ascontiguousarray(XYZ.transpose(2, 0, 1)),
    "of an unorganised cloud": XYZ.reshape(-1, 3),
    "of no points": XYZ[:0],
    "of NaN": np.full_like(XYZ, np.nan),
    "between metres and millimetres in scale": XYZ * 1e-9,
}.items():
    one_file(f"npy {label}", "xyz", "a.npy", lambda array=array: npy(array))
