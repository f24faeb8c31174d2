"""Strict settings for the whole suite, made before jax starts."""

import os
from pathlib import Path

from jaxlib.version import __version__ as jaxlib_version

# Most of a test's time is the compiler's, and most of that is spent on making fast what runs once.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 compiles as for users: `.ci/run full` does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2"]
# A flag that jaxlib does not know ends the process: this one is for releases known to have it.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and jaxlib_version.startswith("0.10."):
    _flags.insert(0, "--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(_flags).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a network
os.environ.setdefault("MPLBACKEND", "agg")

import jax  # noqa: E402 (reads what was set above)
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real scans and weights; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("PIRN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"real data not at hand: {root} (set PIRN_SHARED)")
    return root


@pytest.fixture(autouse=True)
def _open3d_or_skip(request):
    """Tests marked open3d are skipped where it cannot be loaded, with what would mend it."""
    if request.node.get_closest_marker("open3d") is not None:
        from pirn_jax.errors import MissingDependencyError
        from pirn_jax.geometry.open3d_import import load_open3d

        try:
            load_open3d()
        except MissingDependencyError as error:
            pytest.skip(f"{error.problem}; apt-get install {OPEN3D_LIBRARIES}")


OPEN3D_LIBRARIES = "libusb-1.0-0 libgl1 libgomp1 libx11-6 libegl1"


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Drop what a module compiled: kept, a whole run's programs would take several gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked():
    """Types are not checked at run time, as for users: wrong values reach our own messages."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
