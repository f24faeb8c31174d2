"""Geometry: Scan → Views: surface normals, background removal, and one resize for every picture.

The names load on first use: views need neither JAX nor open3d, and open3d is imported only inside
the methods that are named after it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pirn_jax.geometry.background import (
        Background,
        choose_object,
        find_object,
        remove_background,
        stands_on_plane,
    )
    from pirn_jax.geometry.normals import grid_normals, surface_normals
    from pirn_jax.geometry.points import GeometryWarning, measured
    from pirn_jax.geometry.views import Frame, Views, make_views

_HOME = {
    "Background": "background",
    "GeometryWarning": "points",
    "choose_object": "background",
    "find_object": "background",
    "remove_background": "background",
    "stands_on_plane": "background",
    "grid_normals": "normals",
    "measured": "points",
    "surface_normals": "normals",
    "Frame": "views",
    "Views": "views",
    "make_views": "views",
}
__all__ = [
    "Background",
    "Frame",
    "GeometryWarning",
    "Views",
    "choose_object",
    "find_object",
    "grid_normals",
    "make_views",
    "measured",
    "remove_background",
    "stands_on_plane",
    "surface_normals",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
