"""Views: the two pictures an encoder takes, and the way back to the scan's own pixels.

One geometry for everything: a window of the target's shape is laid on the scan, black where it
reaches beyond it, then resized. The window holds the whole scan, or is a square around the part
(`part.py`), in which a small part fills the picture. Photographs
by Pillow's bicubic (antialiased, as the field does), masks and validity by the nearest pixel.
Normals are averaged over each target pixel's area, valid ones only, and brought back to length 1:
from 800² to 224² on a wavy surface with noise of 0.2 pixel distances the median error to the true
normals at the target's pixels is 0.70°, against 1.19° of the nearest pixel (0.06° and 0.12°
without noise; tests/geometry/test_views.py has the surface), and fine relief does not alias.
All of them place pixel centres at half-integers, so they lie on each other exactly.

Source: the paper, appendix B.2: each component of a normal from [-1, 1] to [0, 1], background
    black.
Differs from the paper: no detour over 8-bit PNG files. How pictures are resized it leaves open;
    peers stretch other shapes to a square, or pad the photograph with its edge colours.

Dimension letters: H, W the scan's pixels; h, w the target's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.sight import Sight, sight_of
from pirn_jax.pixels import holes
from pirn_jax.scans.scan import Scan

_STRIP = 1 << 21  # pixels of a scan that are resized at a time
_LEAST_COVER = 0.5  # of a target pixel's area must carry normals for it to be valid


class Frame(NamedTuple):
    """Where a scan lies in its views: all that is needed to go there and back.

    Attributes:
        scan: (H, W), the scan's pixels.
        top: the scan's first row in the window; below 0 where the window leaves rows out.
        left: its first column.
        window: (H', W') scan pixels, of the target's shape.
        size: (h, w), the views' pixels.
    """

    scan: tuple[int, int]
    top: int
    left: int
    window: tuple[int, int]
    size: tuple[int, int]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the views that lie whole within the scan: all but the padding."""
        rows, columns = (
            slice(-(-max(first, 0) * view // window), min(first + scan, window) * view // window)
            for first, scan, view, window in zip(
                (self.top, self.left), self.scan, self.size, self.window, strict=True
            )
        )
        return rows, columns

    def overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The pixels that scan and window share: rows and columns of the scan, of the window."""
        of_scan, of_window = [], []
        for first, scan, window in zip((self.top, self.left), self.scan, self.window, strict=True):
            start, stop = max(first, 0), min(first + scan, window)
            of_window.append(slice(start, stop))
            of_scan.append(slice(start - first, stop - first))
        return (of_scan[0], of_scan[1]), (of_window[0], of_window[1])

    def to_scan(self, anomaly_map: Float32[np.ndarray, " ..."]) -> Float32[np.ndarray, "H W"]:
        """An anomaly map on the scan's own pixels: bilinear; 0 outside the window.

        Raises:
            BadInputError: the map has another size than the views.
        """
        if anomaly_map.shape != self.size:
            raise BadInputError(
                f"an anomaly map of {anomaly_map.shape} for views of {self.size}",
                "resize it to the views first",
            )
        rows, columns = self.window
        wide = Image.fromarray(anomaly_map).resize(
            (columns, self.size[0]), Image.Resampling.BILINEAR
        )
        (scan_rows, scan_columns), (window_rows, window_columns) = self.overlap()
        result = np.zeros(self.scan, np.float32)
        step = max(1, _STRIP // rows)
        for start in range(window_columns.start, window_columns.stop, step):
            stop = min(start + step, window_columns.stop)
            strip = wide.crop((start, 0, stop, self.size[0]))
            strip = strip.resize((stop - start, rows), Image.Resampling.BILINEAR)
            place = scan_columns.start - window_columns.start
            result[scan_rows, start + place : stop + place] = np.asarray(strip)[window_rows]
        return result


class Views(NamedTuple):
    """A scan as the encoder sees it.

    Attributes:
        rgb: float32 (h, w, 3) in [0, 1], black outside the object; None for geometry alone.
        normals: float32 (h, w, 3), each component mapped from [-1, 1] to [0, 1], black where there
            is no normal; None for a scan without normals.
        valid: bool (h, w): the object, where the scan carries a measurement or has a hole around
            which it does; False in the padding.
        mask: bool (h, w), True on defects; None where no truth is known.
        ignore: bool (h, w), True where nothing may be learned or scored; None if nowhere.
        frame: the way back to the scan's pixels.
        sight: what the scan shows, in numbers; by them a sensor that saw nothing is told.
        points: float32 (h, w, 3) in metres, zeros where nothing of the object was measured: the
            geometry where it is not a picture of normals that describes it; None otherwise.
    """

    rgb: Float32[np.ndarray, "h w 3"] | None
    normals: Float32[np.ndarray, "h w 3"] | None
    valid: Bool[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"] | None
    ignore: Bool[np.ndarray, "h w"] | None
    frame: Frame
    sight: Sight = Sight()
    points: Float32[np.ndarray, "h w 3"] | None = None

    def picture(self, modality: str) -> Float32[np.ndarray, "h w 3"] | None:
        """What an encoder takes of a modality, "rgb" or "normals"; None where it is not there."""
        if modality == "normals" and self.points is not None:
            return self.points
        return getattr(self, modality)

    def to_scan(self, anomaly_map: Float32[np.ndarray, " ..."]) -> Float32[np.ndarray, "H W"]:
        """See `Frame.to_scan`."""
        return self.frame.to_scan(anomaly_map)


def make_views(
    scan: Scan,
    size: int | tuple[int, int] = 224,
    object_pixels: Bool[np.ndarray, " ..."] | None = None,
    window: Frame | None = None,
    *,
    points: bool = False,
) -> Views:
    """The views of a scan.

    Args:
        scan: with `normals` if pictures of its geometry are wanted: they are not made from its
            points here, see `pirn_jax.geometry.prepared`.
        size: (h, w) of the views, or the side of a square.
        object_pixels: bool (H, W), from `remove_background`; everything else is blackened. None
            keeps all.
        window: what of the scan they show, as `pirn_jax.geometry.part.part_frame` says; None: all
            of it.
        points: whether its points are wanted, those of the nearest pixels.

    Returns:
        Views on h×w pixels.

    Raises:
        BadInputError: `object_pixels` has another size than the scan.
        ConfigError: a size that is not positive.
    """
    shape = scan.valid.shape
    kept = np.ones(shape, bool) if object_pixels is None else object_pixels
    if kept.shape != shape:
        raise BadInputError(
            f"object pixels of {kept.shape} for a scan of {shape}",
            "compute them from this scan",
        )
    shown = (size, size) if isinstance(size, int) else size
    frame = fit_frame((shape[0], shape[1]), shown) if window is None else window
    rgb = None if scan.rgb is None else _resize_rgb(scan.rgb, kept, frame)
    seen = kept & scan.valid
    valid = resize_nearest(seen | (kept & holes(seen, scan.valid)), frame)
    measured = None
    if points and scan.xyz is not None:
        part = np.where((scan.valid & kept)[..., None], scan.xyz, np.float32(0))
        measured = resize_nearest(part, frame)
    return Views(
        rgb=rgb,
        normals=None if scan.normals is None else _resize_normals(scan.normals, kept, frame),
        valid=valid,
        mask=None if scan.mask is None else resize_nearest(scan.mask, frame) > 0,
        ignore=None if scan.ignore is None else resize_nearest(scan.ignore, frame),
        frame=frame,
        sight=sight_of(rgb, valid, scan.xyz, scan.normals, kept, scan.valid),
        points=measured,
    )


def fit_frame(scan: tuple[int, int], size: tuple[int, int]) -> Frame:
    """The smallest padding, centred, that gives a scan of H×W the shape of h×w.

    Raises:
        ConfigError: a size that is not positive.
    """
    if min(size) < 1:
        raise ConfigError(f"a picture size of {size}", "give positive numbers of pixels")
    (height, width), (rows, columns) = scan, size
    if height * columns >= width * rows:  # the scan is taller than the target
        window = (height, max(width, round(height * columns / rows)))
    else:
        window = (max(height, round(width * rows / columns)), width)
    return Frame(scan, (window[0] - height) // 2, (window[1] - width) // 2, window, size)


def resize_nearest(
    field: Shaped[np.ndarray, "H W *channels"], frame: Frame
) -> Shaped[np.ndarray, "h w *channels"]:
    """The value of the pixel in which each target pixel's centre lies; zeros in the padding."""
    rows = _nearest(frame.size[0], frame.window[0]) - frame.top
    columns = _nearest(frame.size[1], frame.window[1]) - frame.left
    seen = ((rows >= 0) & (rows < frame.scan[0]), (columns >= 0) & (columns < frame.scan[1]))
    result = np.zeros((*frame.size, *field.shape[2:]), field.dtype)
    result[np.ix_(*seen)] = field[np.ix_(rows[seen[0]], columns[seen[1]])]
    return result


def _nearest(target: int, source: int) -> np.ndarray:
    return (2 * np.arange(target) + 1) * source // (2 * target)  # centres at half-integers


def _resize_rgb(
    rgb: UInt8[np.ndarray, "H W 3"], kept: Bool[np.ndarray, "H W"], frame: Frame
) -> Float32[np.ndarray, "h w 3"]:
    def shown(rows: slice, columns: slice) -> UInt8[np.ndarray, "n W 3"]:
        return np.where(kept[rows, columns, None], rgb[rows, columns], np.uint8(0))

    resized = _resize(shown, 3, np.uint8, frame, Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32) / np.float32(255)


def _resize_normals(
    normals: Float32[np.ndarray, "H W 3"], kept: Bool[np.ndarray, "H W"], frame: Frame
) -> Float32[np.ndarray, "h w 3"]:
    def defined(rows: slice, columns: slice) -> Bool[np.ndarray, "n W"]:
        return kept[rows, columns] & (normals[rows, columns] != 0).any(-1)

    def component(axis: int) -> Callable[[slice, slice], Float32[np.ndarray, "n W"]]:
        def shown(rows: slice, columns: slice) -> Float32[np.ndarray, "n W"]:
            return np.where(defined(rows, columns), normals[rows, columns, axis], np.float32(0))

        return shown

    fields = (*(component(axis) for axis in range(3)), defined)
    x, y, z, cover = (
        np.asarray(_resize(field, 1, np.float32, frame, Image.Resampling.BOX)) for field in fields
    )
    mean = np.stack([x, y, z], axis=-1)
    length = np.linalg.norm(mean, axis=-1)
    shown = (cover >= _LEAST_COVER) & (length > 1e-3)  # opposite normals cancel
    unit = mean / np.where(shown, length, 1)[..., None]
    return np.where(shown[..., None], (unit + 1) / 2, 0).astype(np.float32)


def _resize(
    field: Callable[[slice, slice], np.ndarray],
    channels: int,
    kind: type[np.generic],
    frame: Frame,
    way: Image.Resampling,
) -> Image.Image:
    """The window of a field at the views' size, as Pillow resizes it, strip by strip.

    Pillow goes along the rows first, each for itself; so rows may come in strips, and neither the
    window, which for a line scan is a square of its length, nor a second copy of a large scan is
    ever there as a whole.

    Args:
        field: gives some rows and columns of the scan.
        channels: how many it has; of 1 it has no axis for them.
        kind: of its values, as Pillow holds them.
        frame: what is shown, and its size.
        way: Pillow's filter.
    """
    (scan_rows, scan_columns), (window_rows, window_columns) = frame.overlap()
    last = () if channels == 1 else (channels,)
    (height, width), columns = frame.window, frame.size[1]
    narrow = np.zeros((height, columns, *last), kind)
    step = max(1, _STRIP // width)
    for start in range(window_rows.start, window_rows.stop, step):
        stop = min(start + step, window_rows.stop)
        place = scan_rows.start - window_rows.start
        strip = np.zeros((stop - start, width, *last), kind)
        strip[:, window_columns] = field(slice(start + place, stop + place), scan_columns)
        resized = Image.fromarray(strip).resize((columns, stop - start), way)
        narrow[start:stop] = np.asarray(resized)
    return Image.fromarray(narrow).resize((columns, frame.size[0]), way)
