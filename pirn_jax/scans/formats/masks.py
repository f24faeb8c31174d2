"""Masks from untrusted files, by one rule: 0, or black, is good, and everything else a defect.

* Grey pictures of 1 or 8 bits: the value is kept (a defect's number); of 16 bits: values above 255
  become 255.
* Palettes: the index is the value where index 0 is black or no colour in use is; where another
  index is black, so that 0 is a defect, the colours say it.
* Colours: a pixel's value is its largest channel, of 16 bits as of grey. So red on black is a mask.
* An alpha channel is the mask where the colours are the same everywhere; where they vary it must
  hide nothing.
* JPEG, which blurs edges: defective from 128 up; refused where a value lies between 96 and 160, for
  then the edge is a guess.

Whether a mask is upside down in value (good parts white) cannot be seen in one file; it is asked of
all masks of a category together, in `pirn_jax.scans.datasets.checks`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats.files import File, Limits
from pirn_jax.scans.formats.pictures import (
    DEEP,
    PICTURE_FORMATS,
    converted,
    decode,
    decode_deep_colour,
    is_deep_colour,
    open_picture,
)

_REMEDY = "save the mask as an 8-bit grey PNG, 0 where the part is good"
_DOUBTFUL = (96, 160)


def read_mask(file: File, limits: Limits, *, upright: bool = False) -> UInt8[np.ndarray, "H W"]:
    """A mask: 0 is good, everything else is not.

    Args:
        file: the mask.
        limits: the caps.
        upright: as for the photograph it belongs to.

    Raises:
        BadInputError: it could be read in two ways; see the module's description.
    """
    picture = open_picture(file, limits, deep=DEEP, upright=upright)
    if picture.mode.startswith("I;16"):
        return np.minimum(decode(file, picture), 255).astype(np.uint8)
    if is_deep_colour(picture):
        deep = decode_deep_colour(file, picture, limits).max(axis=-1)
        return np.minimum(deep, 255).astype(np.uint8)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = converted(file, picture, "RGBA")
    if picture.mode == "P":
        values = _of_palette(decode(file, picture), picture.getpalette("RGB") or [])
    elif picture.mode in ("1", "L"):
        values = decode(file, converted(file, picture, "L"))
    elif picture.mode in ("RGB", "RGBA", "LA"):
        limits.check_memory(file, 20 * picture.width * picture.height)  # and comparisons of them
        values = _of_channels(file, decode(file, picture), "A" in picture.mode)
    else:
        raise BadInputError(
            f"expected a mask in grey, palette or RGB, got pixel format {picture.mode}",
            _REMEDY,
            path=str(file),
        )
    if PICTURE_FORMATS[file.suffix] == "JPEG":
        return _of_jpeg(file, values)
    return values


def _of_palette(indices: UInt8[np.ndarray, "H W"], palette: list[int]) -> UInt8[np.ndarray, "H W"]:
    shades = np.zeros(256, np.uint8)
    shades[: len(palette) // 3] = np.reshape(palette, (-1, 3)).max(axis=1)
    if shades[0] and (shades[np.unique(indices)] == 0).any():
        return shades[indices]
    return indices


def _of_channels(
    file: File, channels: UInt8[np.ndarray, "H W c"], has_alpha: bool
) -> UInt8[np.ndarray, "H W"]:
    if not has_alpha:
        return channels.max(axis=-1)
    colours, alpha = channels[..., :-1], channels[..., -1]
    if (alpha == 255).all():
        return colours.max(axis=-1)
    if (colours == colours[0, 0]).all() or np.array_equal(colours.max(axis=-1) > 0, alpha > 0):
        return alpha
    raise BadInputError(
        "a mask with both colours and an alpha channel: either could be meant",
        _REMEDY,
        path=str(file),
    )


def _of_jpeg(file: File, values: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    low, high = _DOUBTFUL
    if count := int(((values > low) & (values < high)).sum()):
        raise BadInputError(
            f"a JPEG mask of which {count} pixels are neither black nor white: its compression "
            "blurs the edges",
            _REMEDY,
            path=str(file),
        )
    return np.where(values >= 128, np.uint8(255), np.uint8(0))
