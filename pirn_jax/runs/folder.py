"""The folder of a run: everything its figures need to be believed and repeated.

What lies where is in `pirn_jax.report.layout`, what the files hold in `pirn_jax.report.schema`.
Nothing is overwritten unasked, every file is there whole or not at all, and a run on generated data
or with random weights says so in each.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax

from pirn_jax import __version__
from pirn_jax.config import TrainConfig
from pirn_jax.config_json import code_named, from_json, to_json
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.geometry.prepared import PreparedCache, default_folder
from pirn_jax.manifest import is_ours
from pirn_jax.places import is_remote
from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder
from pirn_jax.report.schema import Document, Environment
from pirn_jax.runs.outputs import RUN_FORMAT, check_free, is_taken
from pirn_jax.storage import cache_folder, read_object
from pirn_jax.training import FeatureCache
from pirn_jax.training.compilation import use_compilation_cache

Progress = Callable[[str, int, int, str], None]
"""Called with a stage (shots, training, scans), how much of it is done, of how much, and a note."""

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ott-jax",
    "jraph",
    "numpy",
    "scipy",
)
_NOT_SETTINGS = ("parallel", "save_seconds")


def stored_config(config: TrainConfig) -> Document:
    """A run's `config.json`: background and geometry as data and recipe decide them, if they do."""
    background, geometry = config.model_config.background, config.detector.geometry_method
    return {**to_json(config), "background": background, "geometry": geometry}


def open_run(folder: Path, allow_code: Collection[str] = ()) -> TrainConfig:
    """The config of a run folder.

    Args:
        folder: of the run.
        allow_code: what code it may name, as for `PIRN.load`.

    Raises:
        BadInputError: it is no run folder.
        ConfigError: it does not fit, or names code that is not allowed.
    """
    path = folder / layout.CONFIG
    if not path.is_file():
        raise BadInputError(
            "expected a run folder with a config.json", "give what --out of a training was", folder
        )
    return from_json(TrainConfig, read_object(path), str(path), allow_code)


def trained_models(run: Path, categories: Sequence[str] = ()) -> list[ModelFolder]:
    """The trained models of a run, by category and seed.

    Raises:
        BadInputError: none, or a category without one.
    """
    found = [place for place in layout.list_models(run) if place.trained]
    known = sorted({place.category for place in found})
    for category in categories:
        if category not in known:
            raise BadInputError(
                f"no model of category {category!r}; there are {', '.join(known) or 'none'}",
                "name one of them",
                run,
            )
    if not found:
        raise BadInputError("no trained model", "train, or resume the run", run)
    return [place for place in found if not categories or place.category in categories]


def check_run_folder(config: TrainConfig, folder: Path | None = None) -> bool:
    """See whether the run's folder may be written to: it is empty, to go on with, or replaced.

    Args:
        config: of the run.
        folder: the copy of the run's folder, where that lies in an object store.

    Returns:
        Whether there is nothing left to do.

    Raises:
        ConfigError: something else is there, a run that is neither to be resumed nor replaced, or
            one that was started with other settings.
    """
    folder = folder or Path(config.folder)
    if not is_taken(folder):
        return False
    if config.resume and (folder / layout.CONFIG).is_file():
        # Code that this very run names is the caller's.
        stored = open_run(folder, code_named(config.detector))
        _check_same(stored_config(stored), stored_config(config))
        return (folder / layout.METRICS).is_file() and (folder / layout.REPORT).is_file()
    if is_ours(folder, RUN_FORMAT) and not config.overwrite and not config.resume:
        raise ConfigError(
            "there is a run in this folder already",
            "--resume goes on with it, --overwrite replaces it once the new one is whole, --out "
            "names another",
            folder,
        )
    read = (config.data_root or os.environ.get("PIRN_DATA"), config.detector.weights)
    inputs = [Path(path) for path in read if path and path != "random"]
    check_free(folder, RUN_FORMAT, overwrite=config.overwrite or config.resume, inputs=inputs)
    return False


def _check_same(stored: Document, wanted: Document) -> None:
    for name in stored:
        same = json.dumps(stored[name]) == json.dumps(wanted[name])
        if name not in _NOT_SETTINGS and not same:
            raise ConfigError(
                f"the run was started with {name} = {stored[name]!r}, not {wanted[name]!r}",
                "resume with the same settings, or start another run with --out",
            )


def environment(command: Sequence[str] = (), run: str = "") -> Environment:
    """Command, packages and devices of this process."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return Environment(
        command=tuple(command),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        pirn_jax=__version__,
        python=sys.version.split()[0],
        platform=platform.platform(),
        processors=os.cpu_count(),
        packages=versions,
        devices=tuple(f"{d.platform}: {d.device_kind}" for d in jax.local_devices()),
        run=run,
    )


def machine_cache(folder: str | None) -> Path:
    """`cache_folder`, where that is on this machine; else the one that is there by default."""
    path = cache_folder(folder)
    return Path.home() / ".cache" / "pirn_jax" if is_remote(path) else path


def start_caches(folder: str | None) -> tuple[FeatureCache, PreparedCache]:
    """Features of shots and prepared normals that are kept; compiled programs are from now on.

    Of a cache in an object store, prepared normals alone are kept there.
    """
    path, local = cache_folder(folder), machine_cache(folder)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        use_compilation_cache(local / "xla")
    return FeatureCache(local / "features"), PreparedCache(default_folder(path))
