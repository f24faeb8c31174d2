"""Pictures from untrusted files: photographs, masks, depth and normal maps in Pillow's kinds.

The header is read first, from the same bytes that are decoded afterwards: the kind must match the
extension, the size the caps, and the pixel format must be one whose meaning is certain. What could
be read in two ways is refused, not guessed:

* 16-bit colour and grey photographs: which value is white is the user's to say. Of their TIFFs
  grey with black at 0 and RGB are read, and none that is stored turned.
* Transparency that hides anything; CMYK; several pictures in one file, but for GIF, whose first
  frame is read.
* An EXIF orientation other than upright beside geometry, which shares the sensor's pixel grid and
  carries no such tag: turning the photograph alone would part it from the points. Photographs
  alone are turned upright, as every viewer shows them.

What masks mean is in `pirn_jax.scans.formats.masks`.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import tifffile
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans.formats.arrays import read_array
from pirn_jax.scans.formats.files import File, Limits, decoding, read_bytes
from pirn_jax.scans.formats.headers import (
    WHITE,
    check_cost,
    check_pieces,
    check_png,
    check_tiff,
    webp_size,
)

PICTURE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
DEEP = GREY, COLOUR = 0, 2
"""PNG's colour types of which pictures of 16 bits a channel can be read."""
_TIFF_COMPRESSION = {"raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"}
_READ_AS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
_BAD = "save the picture again as an 8-bit PNG"
_FIRST, _SECOND = "RGB;16B", "RGB;16L"  # Pillow's names for big and little endian
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258
_STRIP = 1 << 18  # pixels that are copied at a time
_MOST_SCANS = 64  # of one progressive JPEG; each costs a pass over the whole picture
# warnings.catch_warnings changes the whole process, so two threads must not be inside it.
_WARNINGS = threading.Lock()


def read_rgb(
    file: File, limits: Limits, *, white: int | None = None, upright: bool = False
) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph; grey is repeated into three channels, a palette is resolved.

    Args:
        file: the photograph.
        limits: the caps.
        white: the value of white in photographs of more than 8 bits; None refuses them.
        upright: turn it as its EXIF orientation says; False refuses what is stored turned.

    Raises:
        BadInputError: see the module's description.
    """
    if white is not None and (deep := _read_deep(file, limits)) is not None:
        shades = np.clip(np.rint(np.arange(1 << 16) * (255 / white)), 0, 255).astype(np.uint8)
        scaled = shades[deep]
        return np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)))
    picture = open_picture(file, limits, upright=upright)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = converted(file, picture, "RGBA")
    if picture.mode in ("RGBA", "LA"):
        with decoding(file, f"{picture.format or ''} picture".strip(), _BAD):
            opaque = picture.getchannel("A").getextrema() == (255, 255)
        if not opaque:
            raise BadInputError(
                "the photograph is partly transparent",
                "flatten it onto the background it was taken against, without an alpha channel",
                path=str(file),
            )
    if picture.mode in ("RGBA", "LA", "L", "P"):
        picture = converted(file, picture, "RGB")
    if picture.mode != "RGB":
        raise BadInputError(
            f"expected an 8-bit grey, palette or RGB photograph, got pixel format {picture.mode}",
            WHITE if picture.mode.startswith("I") else "convert it to 8-bit RGB",
            path=str(file),
        )
    return decode(file, picture)


def _read_deep(file: File, limits: Limits) -> UInt16[np.ndarray, "H W c"] | None:
    """A photograph of 16 bits a channel, grey or colour; None for any other."""
    if file.suffix in (".tif", ".tiff"):
        data = read_bytes(file, limits)
        with decoding(file, "TIFF picture", _BAD):
            check_tiff(io.BytesIO(data))
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                page = tiff.pages.first
                deep, kind = page.dtype == np.uint16, page.photometric
                orientation = page.tags.valueof(_ORIENTATION, 1)
        if deep and kind not in _READ_AS:
            raise BadInputError(
                f"a TIFF whose values mean {getattr(kind, 'name', kind)}, expected grey with black "
                "at 0, or RGB",
                "save it again as grey or RGB of 16 bits",
                path=str(file),
            )
        if deep:
            _check_upright(file, orientation)
        array = read_array(file, limits) if deep else None
    else:
        picture = open_picture(file, limits, deep=DEEP)
        array = decode(file, picture) if picture.mode.startswith("I;16") else None
        if array is None and is_deep_colour(picture):
            array = decode_deep_colour(file, picture, limits)
    if array is None:
        return None
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] not in (1, 3):
        raise BadInputError(
            f"a photograph of {array.shape[2]} channels", "save grey or RGB", path=str(file)
        )
    return array.astype(np.uint16)


def is_deep_colour(picture: ImageFile.ImageFile) -> bool:
    """Whether it is a colour PNG of 16 bits a channel, before it is decoded."""
    return picture.mode == "RGB" and picture.format == "PNG" and picture.tile[0].args == _FIRST


def decode_deep_colour(
    file: File, picture: ImageFile.ImageFile, limits: Limits
) -> UInt16[np.ndarray, "H W 3"]:
    """The values of a colour PNG of 16 bits a channel, of which Pillow keeps the first byte.

    Read as if the bytes came the other way round, it keeps the second.
    """
    limits.check_memory(file, 20 * picture.width * picture.height)
    values = decode(file, picture).astype(np.uint16) << 8
    again = open_picture(file, limits, deep=DEEP)
    again.tile = [again.tile[0]._replace(args=_SECOND)]
    values |= decode(file, again)
    return values


def read_grey16(file: File, limits: Limits) -> UInt16[np.ndarray, "H W"]:
    """A 16-bit grey PNG, as depth maps are stored."""
    picture = open_picture(file, limits, deep=(GREY,))
    if file.suffix != ".png" or not picture.mode.startswith("I;16"):
        raise BadInputError(
            f"expected a depth map as 16-bit grey PNG, got {picture.format} {picture.mode}",
            "save depth as 16-bit grey PNG, or as a float32 .npy or .tiff",
            path=str(file),
        )
    return decode(file, picture).astype(np.uint16)


def read_normal_picture(file: File, limits: Limits) -> Float32[np.ndarray, "H W 3"]:
    """Normals from an 8-bit RGB picture: n = value / 127.5 - 1, zeros where the pixel is black.

    The vectors are returned as stored, neither normalised nor turned into the camera's frame.
    """
    picture = open_picture(file, limits)
    if picture.mode != "RGB":
        raise BadInputError(
            f"expected an 8-bit RGB normal map, got pixel format {picture.mode}",
            "store n·127.5 + 127.5 in an 8-bit RGB PNG, or the vectors in a float32 .npy",
            path=str(file),
        )
    # Beside the picture: bytes, vectors, their lengths and the tests on them.
    limits.check_memory(file, 40 * picture.width * picture.height)
    stored = decode(file, picture)
    normals = stored.astype(np.float32)
    normals /= 127.5
    normals -= 1.0
    normals[(stored == 0).all(axis=-1)] = 0.0
    return normals


def open_picture(
    file: File, limits: Limits, *, deep: Collection[int] = (), upright: bool = False
) -> ImageFile.ImageFile:
    """Read the bytes, inspect the header, and leave the pixels for later.

    Args:
        file: the picture.
        limits: the caps.
        deep: colour types of PNG that may have 16 bits a channel.
        upright: turn it as its EXIF orientation says; False refuses what is stored turned.
    """
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
        chunks = check_png(file, data, limits, deep=deep) if kind == "PNG" else set()
        check_pieces(kind, data)
        if kind == "JPEG" and data.count(b"\xff\xda") > _MOST_SCANS:
            raise ValueError(f"more than {_MOST_SCANS} scans, each a pass over the picture")
        if kind == "TIFF":
            check_tiff(io.BytesIO(data))
        if kind == "WEBP":  # Pillow makes room for the pixels when it looks at the header
            check_cost(file, len(data), *webp_size(data), 8, limits)
        with bombs_refused():
            picture = Image.open(io.BytesIO(data), formats=[kind])
            channels = max(4, len(picture.getbands()))  # Pillow holds RGB in 4 bytes a pixel
            check_cost(file, len(data), picture.height, picture.width, channels, limits)
            # Pillow decodes a PNG whole to look for orientation, so it is asked only if need be.
            look = kind != "PNG" or b"eXIf" in chunks
            orientation = picture.getexif().get(_ORIENTATION, 1) if look else 1
            several = kind != "GIF" and _has_second(picture)
    if several:
        raise BadInputError("expected one picture, got several", _BAD, path=str(file))
    if not upright:
        _check_upright(file, orientation)
    if kind == "TIFF":
        compression = picture.info.get("compression", "raw")
        depth = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        if compression not in _TIFF_COMPRESSION or max(np.atleast_1d(depth)) > 8:
            bits = int(max(np.atleast_1d(depth)))
            raise BadInputError(
                f"a TIFF of {bits} bits, compression {compression}",
                WHITE if bits == 16 else _BAD,
                path=str(file),
            )
    if orientation != 1:
        with decoding(file, f"{kind} picture", _BAD):
            ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _check_upright(file: File, orientation: object) -> None:
    if orientation != 1:
        raise BadInputError(
            f"EXIF orientation {orientation!s:.20}: the picture is stored turned or mirrored, and "
            "what belongs to its pixels is not",
            "write its pixels upright without the tag (for instance `mogrify -auto-orient`), and "
            "check that masks and geometry are turned the same way",
            path=str(file),
        )


def _has_second(picture: Image.Image) -> bool:
    """Whether there is another picture in the file; counting them all may take for ever."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return getattr(picture, "n_frames", 1) > 1
    try:
        picture.seek(1)
    except EOFError:
        return False
    return True


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Pillow's warnings are silent, but for the one of a bomb, which is an error."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def converted(file: File, picture: Image.Image, mode: str) -> Image.Image:
    """The picture in another of Pillow's pixel formats."""
    with decoding(file, "picture", _BAD):
        return picture.convert(mode)


def decode(file: File, picture: Image.Image) -> np.ndarray:
    """Decode; a file that ends early is an error, not a grey stripe."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, which hides damaged files",
            "leave it False while scans are read",
        )
    with decoding(file, f"{picture.format or ''} picture".strip(), _BAD):
        width, height = picture.size
        picture.load()
        if picture.size != (width, height):
            raise ValueError(f"its header says {height}×{width}, its pixels {picture.size[::-1]}")
        step = max(1, _STRIP // width)
        if step >= height:
            return np.array(picture)
        first = np.asarray(picture.crop((0, 0, width, step)))
        array = np.empty((height, *first.shape[1:]), first.dtype)
        for top in range(0, height, step):
            stop = min(top + step, height)
            array[top:stop] = np.asarray(picture.crop((0, top, width, stop)))
    return array
