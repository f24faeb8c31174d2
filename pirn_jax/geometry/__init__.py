"""Geometry: Scan → Views: surface normals, background removal, and one resize for every picture.

The names load on first use: views need neither JAX nor open3d, and open3d is imported only inside
the methods that are named after it. Normals of a run come from `pirn_jax.geometry.prepared`, which
keeps them; shots are augmented by `pirn_jax.geometry.augmentation`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pirn_jax.geometry.background import (
        WITNESSES,
        Background,
        GeometryWarning,
        background_of,
        choose_object,
        find_object,
        measured,
        remove_background,
    )
    from pirn_jax.geometry.normals import grid_normals, surface_normals
    from pirn_jax.geometry.prepared import (
        Prepared,
        PreparedCache,
        Settings,
        default_folder,
        prepare_scan,
    )
    from pirn_jax.geometry.views import Frame, Views, make_views

_HOME = {
    "WITNESSES": "background",
    "Background": "background",
    "GeometryWarning": "background",
    "background_of": "background",
    "choose_object": "background",
    "find_object": "background",
    "measured": "background",
    "remove_background": "background",
    "grid_normals": "normals",
    "surface_normals": "normals",
    "Prepared": "prepared",
    "PreparedCache": "prepared",
    "Settings": "prepared",
    "default_folder": "prepared",
    "prepare_scan": "prepared",
    "Frame": "views",
    "Views": "views",
    "make_views": "views",
}
__all__ = [
    "WITNESSES",
    "Background",
    "Frame",
    "GeometryWarning",
    "Prepared",
    "PreparedCache",
    "Settings",
    "Views",
    "background_of",
    "choose_object",
    "default_folder",
    "find_object",
    "grid_normals",
    "make_views",
    "measured",
    "prepare_scan",
    "remove_background",
    "surface_normals",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
