"""Pictures from untrusted files: photographs, masks, depth and normal maps as PNG, JPEG, BMP, TIFF.

The header is read first, from the same bytes that are decoded afterwards: the kind must match the
extension, the size the caps, and the pixel format must be one whose meaning is certain. What could
be read in two ways is refused, not guessed:

* 16-bit colour and grey photographs: the scale to 8 bits is the user's to choose.
* Transparency that hides anything; CMYK; several pictures in one file.
* An EXIF orientation other than upright. Masks and point maps share the sensor's pixel grid and
  carry no such tag, so turning the photograph alone would part it from them, and ignoring the tag
  would show the user another picture than the one scored.
* JPEG masks: compression rings around each edge, and every ring pixel would count as a defect.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, ImageFile

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.formats.files import File, Limits, decoding, read_bytes

PICTURE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_TIFF_COMPRESSION = {"raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"}
_BAD = "save the picture again as an 8-bit PNG"
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258
_MOST_SCANS = 64  # of one progressive JPEG; each costs a pass over the whole picture
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First column, first row and steps of each pass of an interlaced PNG.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
# warnings.catch_warnings changes the whole process, so two threads must not be inside it.
_WARNINGS = threading.Lock()


def read_rgb(file: File, limits: Limits) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph; grey is repeated into three channels, a palette is resolved.

    Raises:
        BadInputError: see the module's description.
    """
    picture = _open(file, limits)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = _converted(file, picture, "RGBA")
    if picture.mode in ("RGBA", "LA"):
        channels = _array(file, picture)
        if channels[..., -1].min() < 255:
            raise BadInputError(
                "the photograph is partly transparent",
                "flatten it onto the background it was taken against, without an alpha channel",
                path=str(file),
            )
        channels = channels[..., :-1]
        return np.ascontiguousarray(np.broadcast_to(channels, (*channels.shape[:2], 3)))
    if picture.mode in ("L", "P"):
        picture = _converted(file, picture, "RGB")
    if picture.mode != "RGB":
        raise BadInputError(
            f"expected an 8-bit grey, palette or RGB photograph, got pixel format {picture.mode}",
            "convert it to 8-bit RGB, with one fixed scale for all photographs",
            path=str(file),
        )
    return _array(file, picture)


def read_mask(file: File, limits: Limits) -> UInt8[np.ndarray, "H W"]:
    """A mask with its grey values kept: 0 is good, everything else is not.

    Accepted are 1-bit, 8-bit grey and palette pictures (the palette's index is the value) and
    colour pictures whose channels are equal.
    """
    if file.suffix in (".jpg", ".jpeg"):
        raise BadInputError(
            "a JPEG mask: its compression leaves false defect pixels around every edge",
            "save the mask as PNG",
            path=str(file),
        )
    picture = _open(file, limits)
    if picture.mode == "1":
        picture = _converted(file, picture, "L")
    if picture.mode in ("RGB", "RGBA", "LA"):
        channels = _array(file, picture)
        grey = channels[..., :1]
        colours = channels[..., 1:3] if picture.mode != "LA" else grey
        if np.array_equal(np.broadcast_to(grey, colours.shape), colours):
            return np.ascontiguousarray(grey[..., 0])
    if picture.mode not in ("L", "P"):
        raise BadInputError(
            f"expected an 8-bit mask of one channel, got pixel format {picture.mode}"
            + (" with colours" if picture.mode == "RGB" else ""),
            "save the mask as an 8-bit grey PNG, 0 where the part is good",
            path=str(file),
        )
    return _array(file, picture)


def read_grey16(file: File, limits: Limits) -> UInt16[np.ndarray, "H W"]:
    """A 16-bit grey PNG, as depth maps are stored."""
    picture = _open(file, limits, deep=True)
    if file.suffix != ".png" or not picture.mode.startswith("I;16"):
        raise BadInputError(
            f"expected a depth map as 16-bit grey PNG, got {picture.format} {picture.mode}",
            "save depth as 16-bit grey PNG, or as a float32 .npy or .tiff",
            path=str(file),
        )
    return _array(file, picture).astype(np.uint16)


def read_normal_picture(file: File, limits: Limits) -> Float32[np.ndarray, "H W 3"]:
    """Normals from an 8-bit RGB picture: n = value / 127.5 - 1, zeros where the pixel is black.

    The vectors are returned as stored, neither normalised nor turned into the camera's frame.
    """
    picture = _open(file, limits)
    if picture.mode != "RGB":
        raise BadInputError(
            f"expected an 8-bit RGB normal map, got pixel format {picture.mode}",
            "store n·127.5 + 127.5 in an 8-bit RGB PNG, or the vectors in a float32 .npy",
            path=str(file),
        )
    # Beside the picture: bytes, vectors, their lengths and the tests on them.
    limits.check_memory(file, 40 * picture.width * picture.height)
    stored = _array(file, picture)
    normals = stored.astype(np.float32)
    normals /= 127.5
    normals -= 1.0
    normals[(stored == 0).all(axis=-1)] = 0.0
    return normals


def _open(file: File, limits: Limits, *, deep: bool = False) -> Image.Image:
    """Read the bytes, inspect the header, and leave the pixels for later."""
    kind = PICTURE_FORMATS.get(file.suffix)
    if kind is None:
        raise BadInputError(
            f"extension {file.suffix!r} is no picture; expected one of "
            f"{', '.join(sorted(PICTURE_FORMATS))}",
            _BAD,
            path=str(file),
        )
    data = read_bytes(file, limits)
    with decoding(file, f"{kind} picture", _BAD):
        chunks = _check_png(file, data, limits, deep=deep) if kind == "PNG" else set()
        if kind == "JPEG" and data.count(b"\xff\xda") > _MOST_SCANS:
            raise ValueError(f"more than {_MOST_SCANS} scans, each a pass over the picture")
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=[kind])
            channels = max(4, len(picture.getbands()))  # Pillow holds RGB in 4 bytes a pixel
            _check_cost(file, len(data), picture.height, picture.width, channels, limits)
            # Pillow decodes a PNG whole to look for orientation, so it is asked only if need be.
            look = kind != "PNG" or b"eXIf" in chunks
            orientation = picture.getexif().get(_ORIENTATION, 1) if look else 1
            pages = getattr(picture, "n_frames", 1)
    if pages != 1:
        raise BadInputError(f"expected one picture, got {pages}", _BAD, path=str(file))
    if orientation != 1:
        raise BadInputError(
            f"EXIF orientation {orientation}: the picture is stored turned or mirrored",
            "write its pixels upright without the tag (for instance `mogrify -auto-orient`), and "
            "check that masks and geometry are turned the same way",
            path=str(file),
        )
    if kind == "TIFF":
        compression = picture.info.get("compression", "raw")
        depth = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        if compression not in _TIFF_COMPRESSION or max(np.atleast_1d(depth)) > 8:
            raise BadInputError(
                f"a TIFF of {max(np.atleast_1d(depth))} bits, compression {compression}",
                _BAD,
                path=str(file),
            )
    return picture


def _check_cost(
    file: File, stored: int, height: int, width: int, channels: int, limits: Limits
) -> None:
    """Refuse by the header alone what would be too large."""
    limits.check_size(file, height, width)
    limits.check_memory(file, stored + 4 * height * width * channels)
    limits.check_ratio(file, stored, height * width * channels)


def _check_png(file: File, data: bytes, limits: Limits, *, deep: bool) -> set[bytes]:
    """Walk the chunks: sizes before pixels, every checksum, and nothing after the end.

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
    if depth == 16 and not (deep and colour == 0):
        raise BadInputError(
            "16 bits per channel: the scale to 8 bits is not known",
            "convert all photographs and masks to 8 bits with one fixed scale",
            path=str(file),
        )
    if b"IEND" not in names or not pixels:
        raise ValueError("cut short")
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes follow its end")
    if b"acTL" in names:
        raise ValueError("an animation, expected one picture")
    _check_cost(file, len(data), height, width, 4, limits)
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


def _converted(file: File, picture: Image.Image, mode: str) -> Image.Image:
    with decoding(file, "picture", _BAD):
        return picture.convert(mode)


def _array(file: File, picture: Image.Image) -> np.ndarray:
    """Decode; a file that ends early is an error, not a grey stripe."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, which hides damaged files",
            "leave it False while scans are read",
        )
    with decoding(file, f"{picture.format or ''} picture".strip(), _BAD):
        size = picture.size
        array = np.array(picture)
        if array.shape[:2] != size[::-1]:
            raise ValueError(f"its header says {size[1]}×{size[0]}, its pixels {array.shape[:2]}")
    return array
