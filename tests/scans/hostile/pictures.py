"""Hostile pictures: PNG, JPEG, BMP, TIFF."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.scans import layouts
from tests.scans.hostile.corpus import beside_points, cuts, encoded, one_file

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
    beside_points(f"jpeg with EXIF orientation {orientation}", "a.jpg", turned)
beside_points(
    "png with EXIF orientation 6",
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


def many_comments():
    """A JPEG of a million comments of no letters."""
    return SOUND_JPEG[:2] + b"\xff\xfe\0\2" * 1_000_000 + SOUND_JPEG[2:]


one_file("jpeg of a million comments", "rgb", "a.jpg", many_comments)


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
beside_points(
    "tiff picture turned",
    "a.tiff",
    lambda: encoded(layouts.photograph(), "TIFF", tiffinfo={274: 3}),
)


def tiff_of_pages(count):
    """A TIFF of many pages of one tag each, after a sound one."""
    data = bytearray(SOUND_TIFF_PICTURE)
    (at,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, at)
    data += bytes(len(data) % 2)
    begin = len(data)
    struct.pack_into("<I", data, at + 2 + 12 * tags, begin)
    page = struct.pack("<HHHII", 1, 256, 4, 1, 16)
    for number in range(count):
        following = begin + 18 * (number + 1) if number + 1 < count else 0
        data += page + struct.pack("<I", following)
    return bytes(data)


one_file("tiff of 300000 pages", "rgb", "a.tiff", lambda: tiff_of_pages(300_000))
one_file(
    "png of a million chunks",
    "rgb",
    "a.png",
    lambda: png(before=[chunk(b"aBcD", b"")] * 1_000_000),
)
one_file(
    "jpeg with ten megabytes of junk",
    "rgb",
    "a.jpg",
    lambda: SOUND_JPEG[:2] + b"\xff\0" * 5_000_000 + SOUND_JPEG[2:],
)
SOUND_GIF = encoded(layouts.photograph(), "GIF")
_AFTER_COLOURS = 13 + (3 << (SOUND_GIF[10] & 7) + 1)
for label, blocks in {
    "a million comments": b"!\xfe\0" * 1_000_000,
    "a comment in a million pieces": b"!\xfe" + b"\1a" * 1_000_000 + b"\0",
    "ten megabytes of junk": b"\0" * 10_000_000,
}.items():
    one_file(
        f"gif with {label}",
        "rgb",
        "a.gif",
        SOUND_GIF[:_AFTER_COLOURS] + blocks + SOUND_GIF[_AFTER_COLOURS:],
    )
one_file(
    "tiff picture of ten million strips",
    "rgb",
    "a.tiff",
    lambda: layouts.tiff_bytes(
        np.zeros((12, 16, 3), np.uint8),
        extra=[(273, 4, [8] * 10_000_000), (279, 4, [0] * 10_000_000)],
    ),
)
