"""Puts those modules of pirn_jax into the runtime that it shares: one source, two packages.

The runtime's own modules import from `pirn_jax`, and run so beside it in a checkout. In what is
built, what they import lies in `pirn_runtime/shared`, under the same names, and every such import
is turned to there; so both can be installed side by side, and neither holds a copy to be kept up.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARED = (
    "errors.py",
    "manifest.py",
    "pixels.py",
    "places.py",
    "storage.py",
    "deploy/__init__.py",
    "deploy/description.py",
    "detector/__init__.py",
    "detector/given.py",
    "detector/judging.py",
    "detector/prediction.py",
    "detector/predictor.py",
    "detector/records.py",
    "detector/result.py",
    "geometry/__init__.py",
    "geometry/background.py",
    "geometry/clusters.py",
    "geometry/open3d_import.py",
    "geometry/part.py",
    "geometry/plane_fits.py",
    "geometry/prepared.py",
    "geometry/showing.py",
    "geometry/sight.py",
    "geometry/views.py",
    "geometry/zones.py",
    "report/__init__.py",
    "report/heatmap.py",
    "report/layout.py",
    "scans/__init__.py",
    "scans/scan.py",
    "scans/datasets/*.py",
    "scans/formats/*.py",
    "scoring/__init__.py",
    "scoring/calibration.py",
    "scoring/regions.py",
    "scoring/rules.py",
    "scoring/surface.py",
)
"""Modules of pirn_jax that need numpy, Pillow and tifffile, and nothing else to judge."""

_IMPORT = re.compile(r"^(\s*(?:from|import) )pirn_jax\b", re.MULTILINE)
_ROOT = (
    '"""Modules of pirn_jax, as the runtime shares them; built by `runtime/hatch_build.py`."""\n'
)


class Hook(BuildHookInterface):
    """Called by hatchling before it builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the package as it is built to a folder of its own, and build that."""
        del version
        root = Path(self.root)
        house = root.parent / "pirn_jax"
        if not (house / "errors.py").is_file():
            raise FileNotFoundError(f"{house}: a wheel is built from a checkout of pirn_jax")
        shutil.rmtree(root / "build", ignore_errors=True)
        made = write_package(house, root / "pirn_runtime", root / "build")
        build_data["force_include"][str(made)] = "pirn_runtime"


def write_package(house: Path, own: Path, target: Path) -> Path:
    """The package as it is built.

    Args:
        house: the package pirn_jax.
        own: the runtime's own modules.
        target: folder to write it into.

    Returns:
        The package's folder there.
    """
    made = target / "pirn_runtime"
    for file in sorted(own.glob("*.py")):
        _write(file, made / file.name)
    for pattern in SHARED:
        for file in sorted(house.glob(pattern)):
            _write(file, made / "shared" / file.relative_to(house))
    (made / "shared" / "__init__.py").write_text(_ROOT)
    return made


def _write(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8")
    target.write_text(_IMPORT.sub(r"\1pirn_runtime.shared", text), encoding="utf-8")
