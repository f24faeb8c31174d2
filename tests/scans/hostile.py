"""A corpus of hostile files, made when asked for: `CASES[name](folder)` returns what reads it.

Run as a program it reads every case in turn and prints, as JSON lines, what came out, how long it
took and how much memory it took at its peak.
"""

import functools
import io
import json
import os
import pickle
import stat
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Intrinsics, Limits, Options, open_dataset, read_intrinsics, read_scan
from pirn_jax.scans.files import File
from tests.scans import layouts

CASES = {}
_CAMERA = Intrinsics(600.0, 600.0, 8.0, 6.0)


def limits():
    """The caps under test: the defaults, or a memory cap in MiB from the environment."""
    small = os.environ.get("HOSTILE_MEMORY_MIB")
    return Limits(memory=int(small) << 20) if small else Limits()


def case(name):
    def keep(function):
        assert name not in CASES, name
        CASES[name] = function
        return function

    return keep


def one_file(name, role, filename, content):
    """A case of one file read in one role; content is bytes or a function that makes them."""

    @case(name)
    def build(folder):
        path = folder / filename
        path.write_bytes(content() if callable(content) else content)
        options = Options(limits=limits(), intrinsics=_CAMERA)
        return lambda: read_scan({role: path}, options)


def with_photograph(name, role, filename, content):
    """A case of one file read beside a sound photograph."""

    @case(name)
    def build(folder):
        path = folder / filename
        path.write_bytes(content() if callable(content) else content)
        layouts.picture(folder / "sound.png", layouts.photograph())
        options = Options(limits=limits(), intrinsics=_CAMERA)
        return lambda: read_scan({"rgb": folder / "sound.png", role: path}, options)


def encoded(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(stream, kind, **options)
    return stream.getvalue()


def cuts(data, shares=(0.02, 0.1, 0.25, 0.5, 0.75, 0.9)):
    """Where to cut a file short: after some shares of it, and one byte before its end."""
    return sorted({max(1, int(share * len(data))) for share in shares} | {len(data) - 1})


# ------------------------------------------------------------------------------------------- PNG


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width=16, height=12, depth=8, colour=2, tail=b"\0\0\0", body=None, before=(), after=b""):
    """A PNG with any header; `tail` is compression, filter and interlace method."""
    header = struct.pack(">IIBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour) + tail
    if body is None:
        body = zlib.compress(b"".join(b"\0" + bytes(48) for _ in range(12)))
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + after


def zeros_deflated(size):
    """A sound zlib stream of about `size` zeros: one flushed megabyte, repeated."""
    count = max(1, size >> 20)
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = ((count << 20) % 65521) << 16 | 1
    return b"\x78\xda" + block * count + b"\x03\x00" + struct.pack(">I", adler)


assert zlib.decompress(zeros_deflated(3 << 20)) == bytes(3 << 20)

SOUND_PNG = encoded(layouts.photograph(), "PNG")
assert png()  # the writer itself is sound, see test_hostile

for at in cuts(SOUND_PNG):
    one_file(f"png cut at {at}", "rgb", "a.png", SOUND_PNG[:at])
for label, at in (("header", 20), ("pixels", 45), ("end", len(SOUND_PNG) - 2)):
    damaged = bytearray(SOUND_PNG)
    damaged[at] ^= 0xFF
    one_file(f"png {label} byte flipped", "rgb", "a.png", bytes(damaged))
for label, changes in {
    "width 0": {"width": 0},
    "height 0": {"height": 0},
    "width 2^31-1": {"width": 2**31 - 1},
    "width 2^32-1": {"width": 2**32 - 1},
    "height 2^31": {"height": 2**31},
    "100000×100000": {"width": 100_000, "height": 100_000},
    "65000×1000": {"width": 65_000, "height": 1000},
    "header wider than its pixels": {"width": 1600},
    "header higher than its pixels": {"height": 1200},
    "depth 3": {"depth": 3},
    "depth 255": {"depth": 255},
    "colour type 7": {"colour": 7},
    "colour type 1": {"colour": 1},
    "palette without a palette": {"colour": 3, "depth": 1, "body": b""},
    "compression method 1": {"tail": b"\1\0\0", "body": b""},
    "no pixels": {"body": b""},
    "pixels that are no deflate": {"body": b"\xff" * 64},
    "pixels of a preset dictionary": {"body": b"\x78\xbb\0\0\0\0\0\0"},
    "16-bit colour": {"depth": 16, "body": zlib.compress(bytes(97 * 12))},
    "16-bit grey": {"depth": 16, "colour": 0, "body": zlib.compress(bytes(33 * 12))},
    "16-bit colour with alpha": {"depth": 16, "colour": 6, "body": zlib.compress(bytes(129 * 12))},
    "transparent": {"colour": 6, "body": zlib.compress(bytes(65 * 12))},
    "two headers": {"before": [chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))]},
    "animation": {"before": [chunk(b"acTL", struct.pack(">II", 2, 0))]},
    "zip behind its end": {"after": b"PK\x03\x04" + bytes(64)},
    "script behind its end": {"after": b"<script>alert(1)</script>"},
    "text bomb": {"before": [chunk(b"zTXt", b"k\0\0" + zeros_deflated(64 << 20))]},
    "international text bomb": {
        "before": [chunk(b"iTXt", b"k\0\1\0\0\0" + zeros_deflated(64 << 20))]
    },
}.items():
    one_file(f"png {label}", "rgb", "a.png", lambda changes=changes: png(**changes))
one_file(
    "png bomb of 8000×8000",
    "rgb",
    "a.png",
    lambda: png(8000, 8000, body=zeros_deflated(8000 * 24001 + (1 << 20))),
)
one_file(
    "png bomb of 60000×60000",
    "rgb",
    "a.png",
    lambda: png(60_000, 60_000, 1, 0, body=zeros_deflated(450 << 20)),
)
one_file("png header missing", "rgb", "a.png", SOUND_PNG[:8] + SOUND_PNG[33:])
one_file("png end missing", "rgb", "a.png", SOUND_PNG[:-12])
one_file("png chunk of 4 GB", "rgb", "a.png", SOUND_PNG[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99))


def palette_with_holes():
    picture = Image.fromarray(layouts.photograph()).quantize(8)
    stream = io.BytesIO()
    picture.save(stream, "PNG", transparency=0)
    return stream.getvalue()


one_file("png palette with a transparent colour", "rgb", "a.png", palette_with_holes)


# ------------------------------------------------------------------------------------ JPEG, BMP

SOUND_JPEG = encoded(layouts.photograph(size=(64, 64)), "JPEG")


def jpeg_size(height, width, precision=8):
    data = bytearray(SOUND_JPEG)
    at = data.index(b"\xff\xc0")
    struct.pack_into(">BHH", data, at + 4, precision, height, width)
    return bytes(data)


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


for at in cuts(SOUND_JPEG)[:-1]:
    one_file(f"jpeg cut at {at}", "rgb", "a.jpg", SOUND_JPEG[:at])
for label, size in {
    "0×0": (0, 0),
    "height 0": (0, 64),
    "65535×65535": (65535, 65535),
    "65535×1000": (65535, 1000),
    "12 bits": (64, 64, 12),
}.items():
    one_file(f"jpeg {label}", "rgb", "a.jpg", jpeg_size(*size))
for orientation in range(2, 9):
    turned = encoded(layouts.photograph(), "JPEG", exif=exif(orientation))
    one_file(f"jpeg with EXIF orientation {orientation}", "rgb", "a.jpg", turned)
one_file(
    "png with EXIF orientation 6",
    "rgb",
    "a.png",
    encoded(layouts.photograph(), "PNG", exif=exif(6)),
)
one_file(
    "jpeg CMYK",
    "rgb",
    "a.jpg",
    lambda: (lambda s: (Image.new("CMYK", (16, 12)).save(s, "JPEG"), s.getvalue())[1])(
        io.BytesIO()
    ),
)


def many_scans():
    """A progressive JPEG whose last scan is repeated two thousand times."""
    data = encoded(layouts.photograph(size=(1024, 1024)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 2000 + data[-2:]


one_file("jpeg of two thousand scans", "rgb", "a.jpg", many_scans)


def two_pictures():
    stream = io.BytesIO()
    first = Image.fromarray(layouts.photograph())
    first.save(stream, "MPO", save_all=True, append_images=[first])
    return stream.getvalue()


one_file("jpeg of two pictures", "rgb", "a.jpg", two_pictures)

SOUND_BMP = encoded(layouts.photograph(), "BMP")
for at in cuts(SOUND_BMP)[:-1]:
    one_file(f"bmp cut at {at}", "rgb", "a.bmp", SOUND_BMP[:at])
for label, where, what in (
    ("width 2^31-1", 18, struct.pack("<i", 2**31 - 1)),
    ("100000×100000", 18, struct.pack("<ii", 100_000, 100_000)),
    ("width negative", 18, struct.pack("<i", -16)),
    ("bits 7", 28, struct.pack("<H", 7)),
    ("compression 99", 30, struct.pack("<I", 99)),
    ("header of 4 GB", 14, struct.pack("<I", 2**32 - 1)),
    ("pixels behind the end", 10, struct.pack("<I", 2**31 - 1)),
):
    mutated = bytearray(SOUND_BMP)
    mutated[where : where + len(what)] = what
    one_file(f"bmp {label}", "rgb", "a.bmp", bytes(mutated))


def tiff_pictures(count):
    stream = io.BytesIO()
    first = Image.fromarray(layouts.photograph())
    first.save(stream, "TIFF", save_all=True, append_images=[first] * (count - 1))
    return stream.getvalue()


SOUND_TIFF_PICTURE = tiff_pictures(1)
for at in cuts(SOUND_TIFF_PICTURE)[1:-1]:
    one_file(f"tiff picture cut at {at}", "rgb", "a.tiff", SOUND_TIFF_PICTURE[:at])
one_file("tiff of three pictures", "rgb", "a.tiff", tiff_pictures(3))
one_file(
    "tiff picture of 16 bits",
    "rgb",
    "a.tiff",
    encoded(np.zeros((12, 16), np.uint16), "TIFF"),
)
one_file("tiff picture of floats", "rgb", "a.tiff", encoded(np.zeros((12, 16), np.float32), "TIFF"))
one_file(
    "tiff picture in JPEG compression",
    "rgb",
    "a.tiff",
    lambda: encoded(layouts.photograph(), "TIFF", compression="jpeg"),
)
one_file(
    "tiff picture turned",
    "rgb",
    "a.tiff",
    lambda: encoded(layouts.photograph(), "TIFF", tiffinfo={274: 3}),
)


# ----------------------------------------------------------------- another kind under the name

FOREIGN = {
    "nothing": b"",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a gif": encoded(np.zeros((12, 16), np.uint8), "GIF"),
    "a pickle": pickle.dumps({"xyz": np.zeros((4, 4, 3))}),
    "a shell script": b"#!/bin/sh\nrm -rf /\n" * 20,
    "noise": bytes(np.random.RandomState(0).randint(0, 256, 4096, np.uint8)),
    "zeros": bytes(4096),
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a picture": encoded(layouts.photograph(), "WEBP"),
}
for suffix, role in {
    ".png": "rgb",
    ".jpg": "rgb",
    ".bmp": "rgb",
    ".tiff": "xyz",
    ".npy": "xyz",
    ".npz": "xyz",
    ".ply": "xyz",
    ".pcd": "xyz",
}.items():
    for label, content in FOREIGN.items():
        one_file(f"{label} named {suffix}", role, f"a{suffix}", content)
one_file("a jpeg named .png", "rgb", "a.png", SOUND_JPEG)
one_file("a png named .jpg", "rgb", "a.jpg", SOUND_PNG)
one_file("a photograph as point map", "xyz", "a.tiff", SOUND_TIFF_PICTURE)
one_file("a picture's extension for points", "xyz", "a.png", SOUND_PNG)
one_file("an unknown extension", "rgb", "a.svg", b"<svg/>")


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


# ------------------------------------------------------------------------------ NPZ and archives


def zipped(members, method=zipfile.ZIP_DEFLATED, change=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if change:
                change(info)
            archive.writestr(info, data)
    return stream.getvalue()


def flagged(data, flag):
    """Set a flag bit in every local and central header."""
    data = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= flag
            at = data.find(signature, at + 4)
    return bytes(data)


def resized(data, size):
    """Lie about the inflated size in the central directory."""
    data = bytearray(data)
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, size)
    return bytes(data)


def linked(info):
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def repeated():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate that is wanted here
        return zipped([("xyz.npy", SOUND_NPY)] * 2)


def npz_bomb():
    """A point map of 8000×8000 zeros, which a few hundred kilobytes hold."""
    stream = io.BytesIO()
    head = npy_header(described("(8000, 8000, 3)"))
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xyz.npy", "w") as member,
    ):
        member.write(head)
        for _ in range(768):
            member.write(bytes(1_000_000))
    return stream.getvalue()


@functools.cache
def crowded():
    return zipped([(f"{i}.npy", b"") for i in range(120_000)], zipfile.ZIP_STORED)


SOUND_NPZ = zipped([("xyz.npy", SOUND_NPY)])
for at in cuts(SOUND_NPZ):
    one_file(f"npz cut at {at}", "xyz", "a.npz", SOUND_NPZ[:at])
ARCHIVES = {
    "climbing out": lambda: zipped([("../../xyz.npy", SOUND_NPY)]),
    "climbing out half-way": lambda: zipped([("a/../../xyz.npy", SOUND_NPY)]),
    "with an absolute name": lambda: zipped([("/etc/xyz.npy", SOUND_NPY)]),
    "with a drive letter": lambda: zipped([("C:/xyz.npy", SOUND_NPY)]),
    "with backslashes": lambda: zipped([("..\\xyz.npy", SOUND_NPY)]),
    "with a home folder": lambda: zipped([("~/xyz.npy", SOUND_NPY)]),
    "with a line break in a name": lambda: zipped([("xyz\n.npy", SOUND_NPY)]),
    "with an empty name": lambda: zipped([("", SOUND_NPY)]),
    "with a symbolic link": lambda: zipped([("xyz.npy", b"/etc/passwd")], change=linked),
    "with a member twice": repeated,
    "encrypted": lambda: flagged(SOUND_NPZ, 1),
    "compressed by bzip2": lambda: zipped([("xyz.npy", SOUND_NPY)], zipfile.ZIP_BZIP2),
    "compressed by lzma": lambda: zipped([("xyz.npy", SOUND_NPY)], zipfile.ZIP_LZMA),
    "with 120000 members": crowded,
    "behind a picture": lambda: SOUND_PNG + SOUND_NPZ,
    "whose sizes lie low": lambda: resized(SOUND_NPZ, 100),
    "whose sizes lie high": lambda: resized(SOUND_NPZ, 10**6),
    "whose size is 4 GB": lambda: resized(SOUND_NPZ, 2**32 - 2),
    "without its list": lambda: SOUND_NPZ[: SOUND_NPZ.index(b"PK\x01\x02")],
    "that is empty": lambda: zipped([]),
}
for label, content in ARCHIVES.items():
    one_file(f"npz {label}", "xyz", "a.npz", content)
one_file("npz bomb", "xyz", "a.npz", npz_bomb)
one_file(
    "npz of two arrays, none named xyz",
    "xyz",
    "a.npz",
    lambda: zipped([("one.npy", SOUND_NPY), ("two.npy", SOUND_NPY)]),
)
one_file("npz of pickled objects", "xyz", "a.npz", lambda: zipped([("xyz.npy", object_array())]))
one_file(
    "npz with a damaged member", "xyz", "a.npz", lambda: zipped([("xyz.npy", SOUND_NPY[:300])])
)


# ------------------------------------------------------------------------------------ PCD, PLY


def pcd(data="binary", body=None, **changes):
    lines = {
        "VERSION": ".7",
        "FIELDS": "x y z",
        "SIZE": "4 4 4",
        "TYPE": "F F F",
        "COUNT": "1 1 1",
        "WIDTH": "16",
        "HEIGHT": "12",
        "POINTS": "192",
        **changes,
    }
    head = "".join(f"{name} {value}\n" for name, value in lines.items() if value is not None)
    return f"{head}DATA {data}\n".encode() + (BODY if body is None else body)


def lzf(body, stored=None, size=None):
    size = len(BODY) if size is None else size
    return struct.pack("<II", len(body) if stored is None else stored, size) + body


PLANES = XYZ.transpose(2, 0, 1).tobytes()  # compressed points are stored field by field
LITERALS = b"".join(b"\x1f" + PLANES[at : at + 32] for at in range(0, len(PLANES), 32))
for at in cuts(pcd())[:-1]:
    one_file(f"pcd cut at {at}", "xyz", "a.pcd", pcd()[:at])
for label, data in {
    "width that lies": pcd(WIDTH="160"),
    "points that lie": pcd(POINTS="19200"),
    "grid of 10^6×10^6": pcd(WIDTH="1000000", HEIGHT="1000000", POINTS="1000000000000"),
    "negative width": pcd(WIDTH="-16", HEIGHT="-12"),
    "no points": pcd(WIDTH="0", HEIGHT="0", POINTS="0", body=b""),
    "width in words": pcd(WIDTH="sixteen"),
    "without a grid": pcd(WIDTH="192", HEIGHT="1"),
    "no size": pcd(WIDTH=None),
    "no fields": pcd(FIELDS=None),
    "fields without z": pcd(FIELDS="x y w"),
    "the field x twice": pcd(FIELDS="x x y z", SIZE="4 4 4 4", TYPE="F F F F", COUNT="1 1 1 1"),
    "an unknown type": pcd(TYPE="F F Q"),
    "a size of three bytes": pcd(SIZE="4 4 3"),
    "a field of 10^9 values": pcd(COUNT="1 1 1000000000"),
    "unequal lists": pcd(SIZE="4 4"),
    "an unknown encoding": pcd("binary_encrypted"),
    "bytes behind its end": pcd(body=BODY + b"more"),
    "ascii words": pcd("ascii", b"one two three\n" * 192),
    "ascii too few": pcd("ascii", b"1 2 3\n" * 191),
    "ascii too many": pcd("ascii", b"1 2 3\n" * 193),
    "ascii number of a megabyte": pcd("ascii", b"1" * (1 << 20) + b" 2 3\n" * 192),
    "lzf cut short": pcd("binary_compressed", lzf(LITERALS[:-20])),
    "lzf size that lies": pcd("binary_compressed", lzf(LITERALS, size=10**9)),
    "lzf stored size that lies": pcd("binary_compressed", lzf(LITERALS, stored=10**9)),
    "lzf copy from before its beginning": pcd("binary_compressed", lzf(b"\xff\xff\xff" * 99)),
    "lzf that unpacks to more": pcd("binary_compressed", lzf(b"\0\0" + b"\xe0\xff\0" * 4000)),
    "lzf without its sizes": pcd("binary_compressed", b"\1\0"),
    "a header without end": b"VERSION .7\n" + b"# comment\n" * 20_000,
    "a header of other letters": pcd(FIELDS="x y \xe9"),
}.items():
    one_file(f"pcd {label}", "xyz", "a.pcd", data)


def lzf_bomb():
    """A legal size and 88-fold copies: 60 million points of zeros."""
    grid = {"WIDTH": "10000", "HEIGHT": "6000", "POINTS": "60000000"}
    body = b"\0\0" + b"\xe0\xff\0" * (720_000_000 // 264)
    return pcd("binary_compressed", lzf(body, size=720_000_000), **grid)


one_file("pcd lzf bomb", "xyz", "a.pcd", lzf_bomb)


def ply(
    form="binary_little_endian 1.0",
    count=192,
    properties=("float x", "float y", "float z"),
    notes=("obj_info num_cols 16", "obj_info num_rows 12"),
    before=(),
    body=BODY,
    end="end_header\n",
):
    lines = ["ply", f"format {form}", *notes, *before, f"element vertex {count}"]
    lines += [f"property {name}" for name in properties]
    return ("\n".join(lines) + "\n" + end).encode() + body


for at in cuts(ply())[:-1]:
    one_file(f"ply cut at {at}", "xyz", "a.ply", ply()[:at])
for label, data in {
    "count that lies": ply(count=19_200, notes=("obj_info num_cols 160", "obj_info num_rows 120")),
    "count of 10^12": ply(count=10**12, notes=("comment width 1000000", "comment height 1000000")),
    "no vertices": ply(count=0),
    "negative count": ply(count=-192),
    "count in words": ply(count="many"),
    "a list in each vertex": ply(properties=("list uchar int x", "float y", "float z")),
    "faces before its vertices": ply(before=("element face 3", "property list uchar int i")),
    "an unknown type": ply(properties=("quad x", "quad y", "quad z")),
    "no z": ply(properties=("float x", "float y")),
    "the property x twice": ply(properties=("float x", "float x", "float y", "float z")),
    "an unknown format": ply("binary_middle_endian 1.0"),
    "no format": ply("1.0"),
    "version 2": ply("ascii 2.0"),
    "no grid": ply(notes=()),
    "a grid that does not fit": ply(notes=("obj_info num_cols 17", "obj_info num_rows 12")),
    "a grid in words": ply(notes=("obj_info num_cols wide",)),
    "no end of its header": ply(end=""),
    "ascii words": ply("ascii 1.0", body=b"a b c\n" * 192),
    "ascii too few": ply("ascii 1.0", body=b"1 2 3\n" * 100),
    "magic missing": ply()[3:],
}.items():
    one_file(f"ply {label}", "xyz", "a.ply", data)


# ---------------------------------------------------------- depth, normals, masks beside others

one_file("depth map of 8 bits", "depth", "a.png", encoded(np.zeros((12, 16), np.uint8), "PNG"))
one_file("depth map in colour", "depth", "a.png", SOUND_PNG)
one_file("depth map of zeros", "depth", "a.png", encoded(np.zeros((12, 16), np.uint16), "PNG"))
one_file("depth map that is a cloud", "depth", "a.npy", SOUND_NPY)
one_file("depth map of text", "depth", "a.npy", npy_header(described("(12, 16)", "'<U1'"), BODY))
one_file("depth map of NaN", "depth", "a.npy", lambda: npy(np.full((12, 16), np.nan, np.float32)))
one_file("depth map as jpeg", "depth", "a.jpg", SOUND_JPEG)


@case("depth map without its camera")
def _(folder):
    layouts.picture(folder / "a.png", np.full((12, 16), 500, np.uint16))
    return lambda: read_scan({"depth": folder / "a.png"}, Options(unit="mm", limits=limits()))


for label, text in {
    "zero focal length": '{"fx": 0, "fy": 1, "cx": 1, "cy": 1}',
    "a missing centre": '{"fx": 500, "fy": 500}',
    "words": '{"fx": "wide", "fy": 500, "cx": 1, "cy": 1}',
    "infinity": '{"fx": Infinity, "fy": 500, "cx": 1, "cy": 1}',
    "NaN": '{"fx": NaN, "fy": 500, "cx": 1, "cy": 1}',
    "a scale of kilometres": '{"fx": 500, "fy": 500, "cx": 1, "cy": 1, "depth_scale": 1000}',
    "a scale of words": '{"fx": 500, "fy": 500, "cx": 1, "cy": 1, "depth_scale": "mm"}',
    "a list": "[500, 500, 1, 1]",
    "no JSON": "fx=500",
    "a hundred thousand brackets": "[" * 100_000,
    "a number of a million digits": '{"fx": ' + "9" * 1_000_000 + "}",
    "other letters": "\xff\xfe",
}.items():

    @case(f"camera of {label}")
    def _(folder, text=text):
        (folder / "intrinsics.json").write_bytes(text.encode("latin-1"))
        return lambda: read_intrinsics(File(folder / "intrinsics.json"), limits())


one_file(
    "normals that are a photograph",
    "normals",
    "a.png",
    lambda: encoded(np.random.RandomState(1).randint(0, 90, (12, 16, 3), np.uint8), "PNG"),
)
one_file("normals that are all undefined", "normals", "a.png", png())
one_file("normals in grey", "normals", "a.png", encoded(np.zeros((12, 16), np.uint8), "PNG"))
one_file(
    "normals away from the sensor",
    "normals",
    "a.npy",
    lambda: npy(np.zeros((12, 16, 3), np.float32) + np.array([0, 0, -1], np.float32)),
)
one_file("normals of integers", "normals", "a.npy", lambda: npy(np.ones((12, 16, 3), np.int8)))
one_file("normals of NaN", "normals", "a.npy", lambda: npy(np.full((12, 16, 3), np.nan)))
for role in ("mask", "ignore"):
    for label, name, data in (
        ("as jpeg", "m.jpg", encoded(np.zeros((12, 16), np.uint8), "JPEG")),
        ("in colours", "m.png", SOUND_PNG),
        ("of another size", "m.png", encoded(np.zeros((24, 32), np.uint8), "PNG")),
        ("of 16 bits", "m.png", encoded(np.zeros((12, 16), np.uint16), "PNG")),
        ("of floats", "m.tiff", encoded(np.zeros((12, 16), np.float32), "TIFF")),
        ("cut short", "m.png", encoded(np.zeros((12, 16), np.uint8), "PNG")[:50]),
    ):
        with_photograph(f"{role} {label}", role, name, data)
with_photograph("geometry of another size", "xyz", "a.npy", lambda: npy(layouts.points(0, (6, 8))))


# ------------------------------------------------------------------- names, links, whole datasets


@case("a pipe under a picture's name")
def _(folder):
    os.mkfifo(folder / "a.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a folder under a picture's name")
def _(folder):
    (folder / "a.png").mkdir()
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a device under a picture's name")
def _(folder):
    (folder / "a.png").symlink_to("/dev/zero")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a link to nothing")
def _(folder):
    (folder / "a.png").symlink_to(folder / "absent.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a link to itself")
def _(folder):
    (folder / "a.png").symlink_to(folder / "a.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a file that does not exist")
def _(folder):
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a name with a NUL")
def _(folder):
    return lambda: read_scan({"rgb": f"{folder}/a\0.png"})


@case("a sparse file of 100 GB")
def _(folder):
    with open(folder / "a.npy", "wb") as file:
        file.truncate(100 << 30)
    return lambda: read_scan({"xyz": folder / "a.npy"})


def read_all(name, root, category, **options):
    data = open_dataset(name, root, category, limits=limits(), **options)
    for split in (data.train, data.validation, data.test):
        for scan in split:
            assert scan.key


def damaged(name, label, change, category, **options):
    """A release that is sound but for one change."""

    @case(f"{name}: {label}")
    def _(folder):
        root = folder / "data"
        getattr(layouts, name)(root, category)
        change(root)
        return lambda: read_all(name, root, category, **options)


def outside(root):
    target = root.parent / "outside"
    target.mkdir(exist_ok=True)
    (target / "000.png").write_bytes(SOUND_PNG)
    return target


def linked_file(root):
    path = root / "bagel/train/good/rgb/000.png"
    path.unlink()
    path.symlink_to(outside(root) / "000.png")


def linked_folder(root):
    path = root / "bagel/validation"
    path.rename(outside(root) / "validation")
    path.symlink_to(root.parent / "outside/validation")


def linked_category(root):
    (root / "bagel").rename(outside(root) / "bagel")
    (root / "bagel").symlink_to(root.parent / "outside/bagel")


def writes(path, text):
    return lambda root: (root / path).write_text(text)


damaged("mvtec3d", "a picture linked from outside", linked_file, "bagel")
damaged("mvtec3d", "a split linked from outside", linked_folder, "bagel")
damaged("mvtec3d", "a category linked from outside", linked_category, "bagel")
for label, text in {
    "a list": "[1, 2]",
    "values out of range": '{"999": "hole"}',
    "values in words": '{"white": "hole"}',
    "no JSON": "{",
}.items():
    damaged("mvtec3d", f"class_ids of {label}", writes("bagel/class_ids.json", text), "bagel")
damaged(
    "mvtec3d",
    "two photographs of one stem",
    lambda root: (root / "bagel/train/good/rgb/000.bmp").write_bytes(SOUND_BMP),
    "bagel",
)
damaged(
    "mvtec2d",
    "a mask for no photograph",
    lambda root: (root / "nut/ground_truth/crack/077_mask.png").write_bytes(SOUND_PNG),
    "nut",
)
for label, text in {
    "bounds the wrong way round": "normalization:\n  max: 0.5\n  min: 0.9\n",
    "no bounds": "normalization: {}\n",
    "bounds of NaN": "normalization: {min: .nan, max: .inf}\n",
    "a bound twice": "normalization: {min: 0, min: 1, max: 2}\n",
    "negative bounds": "normalization: {min: -4.0, max: 2.0}\n",
    "bounds of kilometres": "normalization: {min: 1.0e4, max: 2.0e4}\n",
    "a hundred kilobytes": "# comment\n" * 10_000,
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
}.items():
    damaged(
        "eyecandies",
        f"depth with {label}",
        writes("Sweet/train/data/000_info_depth.yaml", text),
        "Sweet",
    )
for label, text in {
    "no truth": "bumps: 1\n",
    "an odd truth": "anomalous: 7\n",
    "an object tag": "!!python/object/apply:os.abort []\n",
}.items():
    damaged(
        "eyecandies",
        f"metadata with {label}",
        writes("Sweet/test_public/data/00_metadata.yaml", text),
        "Sweet",
    )


def d3(label, change):
    """A D3 release whose split is changed: `change(document)` alters or replaces it."""

    def rewrite(root):
        path = root / "realiad_d3_jsons/part.json"
        document = json.loads(path.read_text())
        result = change(document)
        path.write_text(json.dumps(document) if result is None else result)

    damaged("real_iad_d3", label, rewrite, "part", assume_aligned=True)


def set_path(value, field="image_path"):
    return lambda document: document["train"][0].__setitem__(field, value)


for label, value in {
    "climbs out": "../../../etc/passwd",
    "climbs out half-way": "a/../../../etc/passwd",
    "is absolute": "/etc/passwd",
    "has a drive letter": "C:/x.jpg",
    "has backslashes": "..\\..\\x.jpg",
    "is in a home folder": "~/x.jpg",
    "has a NUL": "a\0.jpg",
    "is empty": "",
    "is a dot": ".",
    "is a number": 7,
    "is a list": ["a.jpg"],
    "is endless": "a" * 5000,
}.items():
    d3(f"a photograph's path that {label}", set_path(value))
    if label in ("climbs out", "is absolute", "is a number"):
        d3(f"a point map's path that {label}", set_path(value, "xyz_path"))
        d3(f"a mask's path that {label}", set_path(value, "mask_path"))
d3("a prefix that climbs out", lambda document: document["meta"].__setitem__("prefix", "../../"))
d3("a prefix that is absolute", lambda document: document["meta"].__setitem__("prefix", "/etc/"))
d3("a prefix that is a number", lambda document: document["meta"].__setitem__("prefix", 7))
d3("a split that is a list", lambda document: "[]")
d3("a split of text samples", lambda document: json.dumps({"train": ["a", "b"]}))
d3("a split without samples", lambda document: "{}")
d3("a split cut short", lambda document: json.dumps(document)[:200])
d3("a split of brackets", lambda document: "[" * 200_000)
d3("a split of 20 MB", lambda document: json.dumps(document) + " " * (20 << 20))
d3("a sample without its class", lambda document: document["test"][0].pop("anomaly_class") and None)
d3("a defect among training samples", set_path("scratch", "anomaly_class"))
d3("a sample twice", lambda document: document["train"].append(document["train"][0]))
for label, content in ARCHIVES.items():

    def replaced(root, content=content):
        (root / "realiad_d3_raw/part.zip").write_bytes(content())

    damaged("real_iad_d3", f"archive {label}", replaced, "part", assume_aligned=True)


def flipped(root):
    path = root / "realiad_d3_raw/part.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(".tiff"))
    data[info.header_offset + 120] ^= 0xFF
    path.write_bytes(bytes(data))


damaged("real_iad_d3", "archive with a flipped byte", flipped, "part", assume_aligned=True)


def peak_memory():
    """The most memory the process has held since `reset_peak`, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(values["VmHWM"]) << 10


def reset_peak():
    """Forget earlier peaks; returns the memory held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def main(folder):
    """Read every case once; JSON lines of name, error, seconds and peak memory growth in bytes."""
    # One sound scan first, so that libraries loaded on first use do not count as a case's memory.
    layouts.mvtec3d(Path(folder) / "sound", "bagel")
    read_all("mvtec3d", Path(folder) / "sound", "bagel")
    for number, (name, build) in enumerate(CASES.items()):
        here = Path(folder) / str(number)
        here.mkdir()
        attempt = build(here)
        before, start = reset_peak(), time.perf_counter()
        try:
            attempt()
            result = "read"
        except BadInputError as error:
            complete = error.problem and error.remedy and error.path
            result = "BadInputError" if complete else f"incomplete: {error!r}"
        except BaseException as error:
            result = repr(error)
        seconds, grown = time.perf_counter() - start, peak_memory() - before
        sys.stdout.write(json.dumps([name, result, seconds, grown]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
