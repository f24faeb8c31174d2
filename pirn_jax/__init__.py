"""pirn_jax: few-shot RGB + 3D industrial anomaly detection by prototype reconstruction, in JAX.

The names below load on first use, so importing the package costs next to nothing and works where
open3d, torch or a GPU are missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pirn_jax.config import Config
    from pirn_jax.detector import PIRN, Prediction
    from pirn_jax.encoder import load_encoder
    from pirn_jax.scans import open_dataset

__version__ = "0.1.0"

_HOME = {
    "Config": "pirn_jax.config",
    "PIRN": "pirn_jax.detector",
    "Prediction": "pirn_jax.detector",
    "load_encoder": "pirn_jax.encoder",
    "open_dataset": "pirn_jax.scans",
}
__all__ = ["PIRN", "Config", "Prediction", "__version__", "load_encoder", "open_dataset"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pirn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
