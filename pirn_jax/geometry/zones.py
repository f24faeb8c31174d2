"""Zones of a view: named places on a scan, some of which are not judged, moved with the part.

    size = [480, 640]          # height and width of the scans, in pixels
    part = "part.png"          # the part where the zones were drawn: then they move with it
    [zones.clamp]
    judged = false
    polygon = [[0, 0], [120, 0], [120, 80], [0, 80]]   # column, row, from the upper left corner
    [zones.sealing_face]       # a zone for the rules (`pirn_jax.scoring.rules`)
    mask = "sealing.png"       # white is inside

or a picture alone, white where nothing is judged. Names of pictures are relative to the file, which
they may not leave.

Where `part` is given, the zones are turned and shifted as the part lies in each scan: its
silhouette is laid over the one they were drawn on, centre of mass on centre of mass, at the angle
where both overlap most. A round part fits at every angle and is not turned.

Dimension letters: H, W the pixels of the scan.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from pirn_jax.errors import BadInputError, ConfigError, check_name
from pirn_jax.scans.formats.files import File, Limits, decoding, join_inside, read_bytes
from pirn_jax.scans.formats.masks import read_mask

_LARGEST = 1 << 20  # bytes of the file
_MOST_CORNERS = 10_000
_SIDE = 128  # pixels of a silhouette that is compared
_STEPS = (5.0, 1.0, 0.2)  # degrees, from coarse to fine
_CLEARLY = 0.01
"""A turn must make the silhouettes overlap better by this share of their union."""


class Zone(NamedTuple):
    """A named place.

    Attributes:
        pixels: on the scan it was drawn on.
        judged: False: patches that lie there wholly are not scored, and no pixel there is marked. A
            patch that reaches out of it is judged with all that it shows: draw a zone a patch, a
            sixteenth of the square at 224 pixels, wider than what it is to hide.
    """

    pixels: Bool[np.ndarray, "H W"]
    judged: bool


class Zones(NamedTuple):
    """The zones of a view.

    Attributes:
        named: by name.
        part: the part's pixels where they were drawn; None: they stay where they are.
    """

    named: Mapping[str, Zone]
    part: Bool[np.ndarray, "H W"] | None = None

    def place(self, part: Bool[np.ndarray, "H W"]) -> Zones:
        """The zones on a scan.

        Args:
            part: its pixels that show the part; where the zones do not move, its size alone counts.

        Raises:
            BadInputError: the scan has another size.
        """
        shape = next(iter(self.named.values())).pixels.shape
        if part.shape != shape:
            raise BadInputError(
                f"zones drawn on {shape[0]}×{shape[1]} pixels, a scan of "
                f"{part.shape[0]}×{part.shape[1]}",
                "draw the zones on a scan of this camera",
            )
        if self.part is None:
            return self
        if not part.any() or part.all():
            raise BadInputError(
                "no part told from its background that the zones could move with",
                "look at the scan; or leave `part` out of the file of zones",
            )
        pose = find_pose(self.part, part)
        moved = {
            name: zone._replace(pixels=pose.move(zone.pixels)) for name, zone in self.named.items()
        }
        return Zones(moved, part)

    @property
    def not_judged(self) -> Bool[np.ndarray, "H W"]:
        """The pixels of all zones that are not judged."""
        zones = self.named.values()
        return np.any([z.pixels & (not z.judged) for z in zones], axis=0)


class Pose(NamedTuple):
    """How one silhouette lies against another.

    Attributes:
        degrees: by which it is turned, from columns towards rows (clockwise as seen).
        before: (row, column) of its centre of mass.
        after: where that has gone.
    """

    degrees: float
    before: tuple[float, float]
    after: tuple[float, float]

    def move(self, pixels: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
        """Pixels of the first where they lie in the second."""
        places = np.indices(pixels.shape).astype(np.float64)
        return _sample(pixels, _turn(places, self.after, self.before, -self.degrees))


def find_pose(before: Bool[np.ndarray, "H W"], after: Bool[np.ndarray, "H W"]) -> Pose:
    """How a part has moved, from its silhouettes; not empty ones."""
    centres = [_centre(silhouette) for silhouette in (before, after)]
    reach = max(_radius(before, centres[0]), _radius(after, centres[1]))
    line = np.linspace(-reach, reach, _SIDE)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"))
    target = _sample(after, grid + np.reshape(centres[1], (2, 1, 1)))

    def overlap(degrees: float) -> float:
        came = _turn(grid, (0.0, 0.0), centres[0], -degrees)
        found = _sample(before, came)
        return float((found & target).sum() / max(1, (found | target).sum()))

    best, span = 0.0, 180.0
    as_it_lies = overlap(0.0)
    for step in _STEPS:
        angles = best + np.arange(-span, span + step / 2, step)
        best = float(angles[np.argmax([overlap(angle) for angle in angles])])
        span = step
    if overlap(best) < as_it_lies + _CLEARLY:
        best = 0.0
    return Pose(best, centres[0], centres[1])


def _centre(silhouette: Bool[np.ndarray, "H W"]) -> tuple[float, float]:
    rows, columns = np.nonzero(silhouette)
    return float(rows.mean()), float(columns.mean())


def _radius(silhouette: Bool[np.ndarray, "H W"], centre: Any) -> float:
    rows, columns = np.nonzero(silhouette)
    return float(np.hypot(rows - centre[0], columns - centre[1]).max()) + 1.0


def _turn(places: np.ndarray, about: Any, onto: Any, degrees: float) -> np.ndarray:
    """Places turned about one point, which goes to another."""
    angle = np.deg2rad(degrees)
    row, column = places[0] - about[0], places[1] - about[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * row + sin * column + onto[0], cos * column - sin * row + onto[1]])


def _sample(silhouette: Bool[np.ndarray, "H W"], places: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """The pixels in which places lie; nothing beyond the edge."""
    row, column = np.floor(places + 0.5).astype(int)
    height, width = silhouette.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    found = silhouette[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return found & inside


# --- from a file, none of which is believed -------------------------------------------------------


def read_zones(path: Path, limits: Limits) -> Zones:
    """The zones of a file, as in the module's description.

    Raises:
        BadInputError: a file cannot be read.
        ConfigError: the file says something else than is understood.
    """
    if path.suffix.lower() != ".toml":
        pixels = read_mask(File(path), limits) > 0
        return Zones({"not judged": Zone(pixels, judged=False)})
    with decoding(path, "TOML document", "see docs/serving.md for what it may hold"):
        document = tomllib.loads(read_bytes(File(path), limits, _LARGEST).decode())
    try:
        return _parse(document, path, limits)
    except ConfigError as error:
        raise ConfigError(error.problem, error.remedy, error.path or path) from error


def _parse(document: Mapping[str, Any], path: Path, limits: Limits) -> Zones:
    for name in document:
        check_name("zones", name, ("size", "part", "zones"))
    size, tables = document.get("size"), document.get("zones")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError("no zones", "name at least one: [zones.clamp]")
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)):
        raise ConfigError(f"size: expected [height, width], got {size!r:.80}")
    limits.check_size(path, *size)
    shape = (size[0], size[1])
    zones = {name: _zone(name, table, shape, path, limits) for name, table in tables.items()}
    part = None
    if "part" in document:
        part = _picture("part", document["part"], shape, path, limits)
        if not part.any():
            raise ConfigError("part: the picture is black", "white is the part")
    return Zones(zones, part)


def _zone(name: str, table: Any, shape: tuple[int, int], path: Path, limits: Limits) -> Zone:
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: expected a table", f"write [zones.{name}]")
    for key in table:
        check_name(f"zone {name}", key, ("judged", "polygon", "mask"))
    judged = table.get("judged", True)
    if not isinstance(judged, bool):
        raise ConfigError(f"zone {name}: judged is true or false, got {judged!r:.80}")
    if ("polygon" in table) == ("mask" in table):
        raise ConfigError(f"zone {name}: give a polygon or a mask, one of them")
    if "mask" in table:
        return Zone(_picture(name, table["mask"], shape, path, limits), judged)
    return Zone(_polygon(name, table["polygon"], shape), judged)


def _polygon(name: str, corners: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    def is_corner(corner: Any) -> bool:
        numbers = isinstance(corner, list) and len(corner) == 2
        return numbers and all(type(n) in (int, float) and abs(n) < 1e6 for n in corner)

    fits = isinstance(corners, list) and 3 <= len(corners) <= _MOST_CORNERS
    if not fits or not all(map(is_corner, corners)):
        raise ConfigError(
            f"zone {name}: expected three corners or more, got {corners!r:.80}",
            "write [[column, row], [column, row], …]",
        )
    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in corners], fill=1, outline=1)
    return np.array(canvas, bool)


def _picture(
    name: str, file: Any, shape: tuple[int, int], path: Path, limits: Limits
) -> Bool[np.ndarray, "H W"]:
    place = join_inside(path.parent, file, path)
    pixels = read_mask(File(place, root=path.parent), limits) > 0
    if pixels.shape != shape:
        raise ConfigError(
            f"{name}: a picture of {pixels.shape[0]}×{pixels.shape[1]} pixels, size says "
            f"{shape[0]}×{shape[1]}",
            "draw it on a scan of that size",
            place,
        )
    return pixels
