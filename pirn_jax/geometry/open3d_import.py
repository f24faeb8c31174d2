"""The one place that imports open3d: its wheel needs system libraries that servers often lack."""

from __future__ import annotations

import re
import sys
from types import ModuleType

from pirn_jax.errors import MissingDependencyError

_DEBIAN_PACKAGE = {  # shared library → the package that brings it
    "libusb-1.0": "libusb-1.0-0",
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libX11": "libx11-6",
    "libgomp": "libgomp1",
    "libudev": "libudev1",
    "libstdc++": "libstdc++6",
}


def load_open3d() -> ModuleType:
    """Imports open3d.

    Raises:
        MissingDependencyError: it is not installed, or a system library it needs is not.
    """
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise missing_open3d(f"{type(error).__name__}: {error}") from error
    return open3d


def missing_open3d(reason: str) -> MissingDependencyError:
    """The error for an import that failed for `reason`, with what to install for it."""
    library = re.search(r"(lib[\w+.-]+?)\.so", reason)
    if library:
        name = library.group(1)
        package = _DEBIAN_PACKAGE.get(name, f"the package that provides {name}.so")
        remedy = f"install the system library (Debian, Ubuntu: apt-get install {package})"
    else:
        wheel = "open3d-cpu" if sys.platform == "linux" else "open3d"
        remedy = f"pip install {wheel}"
    return MissingDependencyError(
        f'method="open3d" needs open3d, which cannot be imported here ({reason})',
        f'{remedy}, or use method="grid", which does not need it',
    )
