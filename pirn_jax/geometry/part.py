"""The part within its scan: where it lies, how large it is, and whether parts lie at any angle.

A part that fills a sixth of the frame is six tokens wide at 224 pixels, and nothing is seen on it.
So the encoder is shown a square around the part: one physical size for all scans of a model, taken
from its shots, so that a millimetre is as many pixels in each of them. And where the silhouettes of
the shots fit each other better turned than as they lie, parts lie at any angle, and the shots are
learned from at all of them.

Differs from the paper: it shows the encoder the whole frame (recipe `paper` does), and turns
    nothing. On real scans of MVTec 3D-AD's cable_gland, 5 shots, nearest neighbours go from an
    AUPRO of 0.80 to 0.86 by the square and to 0.92 by the turned copies as well.

Dimension letters: H, W the pixels of the scan; h, w the view's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.geometry.views import Frame

MARGIN = 1.15
"""Side of the square over the longer side of the largest shot's bounding box."""
TURNED_GAIN = 0.05
"""Silhouettes that overlap by this much more when turned, as a share of their union, are of parts
that lie at any angle. Measured over five shots: 0.07-0.14 on real cable glands and 0.26 on
generated ropes, which do; 0.01-0.03 on generated flanges and biscuits, which do not."""

_ANGLES = range(0, 360, 15)
_SIDE = 64  # pixels of a silhouette that is compared
_COMPARED = 8  # silhouettes; their pairs grow with the square


class Part(NamedTuple):
    """A part's place in its scan.

    Attributes:
        silhouette: bool (H, W), its measured pixels.
        centre: of its bounding box, (row, column), in pixels.
        extent: longer side of that box, in pixels.
        pitch: metres between neighbouring pixels on the part.
    """

    silhouette: Bool[np.ndarray, "H W"]
    centre: tuple[float, float]
    extent: int
    pitch: float


def find_part(
    xyz: Float32[np.ndarray, "H W 3"] | None,
    valid: Bool[np.ndarray, "H W"],
    object_pixels: Bool[np.ndarray, "H W"],
) -> Part | None:
    """Where the part lies and how large its pixels are; None where no points say so.

    Args:
        xyz: points in metres, or None.
        valid: the pixels that carry a measurement.
        object_pixels: those that show the object.
    """
    shown = valid & object_pixels
    if xyz is None or not shown.any():
        return None
    steps = [
        np.abs(np.diff(xyz[..., coordinate], axis=axis))[np.logical_and(*_neighbours(shown, axis))]
        for axis, coordinate in ((1, 0), (0, 1))  # x along a row, y along a column
    ]
    distances = np.concatenate(steps)
    distances = distances[distances > 0]
    if not len(distances):
        return None
    spans = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    row, column = ((span[0] + span[-1] + 1) / 2 for span in spans)
    extent = max(int(span[-1] - span[0]) + 1 for span in spans)
    return Part(shown, (row, column), extent, float(np.median(distances)))


def _neighbours(
    shown: Bool[np.ndarray, "H W"], axis: int
) -> tuple[Bool[np.ndarray, "_ _"], Bool[np.ndarray, "_ _"]]:
    if axis == 0:
        return shown[1:], shown[:-1]
    return shown[:, 1:], shown[:, :-1]


def square_side(parts: Sequence[Part], turned: bool = False) -> float | None:
    """The side of the square around every part, in metres; None where it would be the whole frame.

    Args:
        parts: of the shots.
        turned: whether the square must hold them at any angle: a bar that lies along the diagonal
            of its bounding box is longer than this.
    """
    if not parts:
        return None
    side = MARGIN * max(part.extent * part.pitch for part in parts)
    if turned:
        side = max(side, *(2 * _reach(part) * part.pitch for part in parts))
    frames = [max(part.silhouette.shape) * part.pitch for part in parts]
    return side if side < min(frames) else None


def _reach(part: Part) -> float:
    """From the part's centre to the far corner of its farthest pixel, in pixels."""
    rows, columns = np.nonzero(part.silhouette)
    down = np.abs(rows + 0.5 - part.centre[0]) + 0.5
    right = np.abs(columns + 0.5 - part.centre[1]) + 0.5
    return float(np.hypot(down, right).max())


def part_frame(part: Part, side: float, size: tuple[int, int]) -> tuple[Frame, float]:
    """The window around a part.

    Args:
        part: its place.
        side: of the square, in metres.
        size: (h, w) of the views; the window has their shape, and its shorter side is `side`.

    Returns:
        The window, and by how much it had to be widened for a part larger than the square (1: it
        was not).
    """
    shortest = min(size)
    asked = max(1, round(side / part.pitch))
    taken = max(asked, part.extent)
    height, width = (max(1, round(taken * pixels / shortest)) for pixels in size)
    (row, column), (rows, columns) = part.centre, part.silhouette.shape
    top, left = round(height / 2 - row), round(width / 2 - column)
    return Frame((rows, columns), top, left, (height, width), size), taken / asked


def lie_at_any_angle(parts: Sequence[Part]) -> bool:
    """Whether the silhouettes overlap clearly better turned than as they lie.

    A round part fits itself at every angle and is not asked to be turned. One silhouette tells
    nothing.

    Args:
        parts: of the shots.
    """
    parts = parts[:_COMPARED]
    if len(parts) < 2:
        return False
    side = MARGIN * max(part.extent * part.pitch for part in parts)
    turned = [turned_silhouettes(part, side) for part in parts]
    gains = []
    for one in turned:
        for other in turned:
            if one is not other:
                overlaps = [overlap(one[0], silhouette) for silhouette in other]
                gains.append(max(overlaps) - overlaps[0])
    return float(np.mean(gains)) >= TURNED_GAIN


def turned_silhouettes(part: Part, side: float) -> list[Bool[np.ndarray, "_ _"]]:
    """The silhouette about its centre of mass, in a square of `side` metres, at all angles."""
    from scipy import ndimage  # for learning only

    middle = np.array(ndimage.center_of_mass(part.silhouette))[:, None, None]
    reach = np.linspace(-0.5, 0.5, _SIDE) * side * np.sqrt(2) / part.pitch
    places = np.stack(np.meshgrid(reach, reach, indexing="ij"))
    field = part.silhouette.astype(np.float32)
    found = []
    for degrees in _ANGLES:
        angle = np.deg2rad(degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        moved = np.stack([cos * places[0] - sin * places[1], sin * places[0] + cos * places[1]])
        found.append(ndimage.map_coordinates(field, middle + moved, order=1) > 0.5)
    return found


def overlap(one: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]) -> float:
    """What two silhouettes share, of all that one of them covers; 0 for empty ones."""
    return float((one & other).sum() / max(1, (one | other).sum()))
