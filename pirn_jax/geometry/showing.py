"""What of a scan a detector looks at: one rule for learning, judging, and judging elsewhere.

Dimension letters: H, W the pixels of the scan.
"""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np

from pirn_jax.errors import BadInputError
from pirn_jax.geometry.part import find_part, part_frame
from pirn_jax.geometry.prepared import Prepared, Settings
from pirn_jax.geometry.views import Frame, Views, make_views
from pirn_jax.scans.scan import Scan

_log = logging.getLogger("pirn_jax")


class Looking(NamedTuple):
    """How a detector looks at scans.

    Attributes:
        modalities: rgb, normals, or both.
        image_size: side of the pictures in pixels, of all their tiles together.
        settings: how object and normals are found.
        foreground: mask: pixels of the object count; all: every pixel does.
        part_side: side of the square around the part, in metres; None: the whole frame is shown.
        points: whether it is points, and no picture of normals, that describe the geometry.
    """

    modalities: tuple[str, ...]
    image_size: int
    settings: Settings
    foreground: Literal["mask", "all"]
    part_side: float | None
    points: bool = False

    @property
    def sees_normals(self) -> bool:
        """Whether pictures of normals are wanted."""
        return "normals" in self.modalities and not self.points


def show_scan(scan: Scan, looking: Looking, known: Prepared) -> Views:
    """The scan as the encoder sees it.

    With foreground "all" every location is valid but those to be ignored, whatever the pictures
    show there; it is said here and nowhere else.

    Args:
        scan: with what the detector's modalities need.
        looking: of the detector.
        known: the scan's object and normals.

    Raises:
        BadInputError: a modality is missing, nothing of the part was measured, or no points say
            where it is and the detector looks at a square around it.
    """
    for note in known.notes:
        _log.warning("%s: %s", scan.key, note)
    shown = scan._replace(
        rgb=scan.rgb if "rgb" in looking.modalities else None,
        normals=known.normals if looking.sees_normals else None,
    )
    for name in looking.modalities:
        points = looking.points and name == "normals"
        if getattr(shown, "xyz" if points else name) is None:
            needed = {"rgb": "photograph"}.get(name, "points" if points else "points or normals")
            raise BadInputError(
                f"{scan.key or 'the scan'} has no {needed}, which this model needs",
                "give it, or use a model trained without that modality",
            )
    window = _window(scan, known, looking)
    views = make_views(shown, looking.image_size, known.object, window, points=looking.points)
    if views.ignore is not None:
        views = views._replace(valid=views.valid & ~views.ignore)
        if views.points is not None:  # what looks at points looks at no mask
            seen = views.valid[..., None]
            views = views._replace(points=np.where(seen, views.points, np.float32(0)))
    if not views.valid.any():
        raise BadInputError(
            f"{scan.key or 'the scan'} shows no measured pixel of a part",
            "check its points and the ignore mask",
        )
    if looking.foreground == "all":
        everywhere = np.ones_like(views.valid) if views.ignore is None else ~views.ignore
        views = views._replace(valid=everywhere)
    return views


def _window(scan: Scan, known: Prepared, looking: Looking) -> Frame | None:
    """The square around the part, or None: the whole frame."""
    if looking.part_side is None:
        return None
    part = find_part(scan.xyz, scan.valid, known.object)
    if part is None:
        raise BadInputError(
            f"{scan.key or 'the scan'} has no points that say where the part is, and this model "
            "looks at a square around it",
            "give its points, or train with --recipe.view frame",
        )
    size = (looking.image_size, looking.image_size)
    frame, widened = part_frame(part, looking.part_side, size)
    if widened > 1:
        _log.warning(
            "%s: the part is larger than those learned from; it is shown %.2f times smaller",
            scan.key,
            widened,
        )
    return frame
