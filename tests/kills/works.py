"""What is killed: saving, preparing, training, evaluating and predicting, each small and whole."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from PIL import Image

from pirn_jax.config import Config, TrainConfig, preset, with_settings
from pirn_jax.decoder import Tokens
from pirn_jax.detector import PIRN, open_encoder, records
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, PirnError
from pirn_jax.geometry import PreparedCache, Settings
from pirn_jax.report import layout
from pirn_jax.report.contents import read_run
from pirn_jax.runs import evaluate_run, preparation, train_run
from pirn_jax.runs.predictions import predict_scans
from pirn_jax.scans import Options, open_dataset
from pirn_jax.scans.datasets.judged import find_scans
from pirn_jax.storage import read_object
from pirn_jax.training import FeatureCache
from tests.kills.states import contents
from tests.runs.in_this_process import InThisProcess
from tests.scans import layouts

TIMED = ("environment.json", "report.html")
"""They say when a run was started."""


class Work(NamedTuple):
    """Something that writes into a folder.

    Attributes:
        before: makes what lies there at first.
        do: the work.
        again: what a user does once it was killed: the same command, with --resume or --overwrite.
        check: reads what there is, as all commands do; raises where half of something is taken for
            whole.
    """

    before: Callable[[Path], object]
    do: Callable[[Path], object]
    again: Callable[[Path], object]
    check: Callable[[Path], object]


def outcome(root: Path) -> dict[str, bytes]:
    """The files that must be the same, byte for byte."""
    return {
        name: content
        for name, content in contents(root).items()
        if Path(name).name not in TIMED and not name.startswith("cache/xla/")
    }


def small_encoder() -> Encoder:
    """Of random weights."""
    return open_encoder(_small())


def _small() -> Config:
    config = Config(encoder="vit-tiny-16", weights="random", image_size=32, method="mixture")
    config = dataclasses.replace(config, modalities=("rgb",), background="none")
    return with_settings(config, {"prototypes": 2, "rank": 2, "view": "frame"})


def small_model(encoder: Encoder, seed: int) -> PIRN:
    """A model of random numbers."""
    model = PIRN(_small(), encoder=encoder)
    stream = np.random.RandomState(seed)
    model.parameters = tuple(
        jax.tree.map(lambda leaf: np.float32(stream.rand(*np.abs(leaf.shape))), tree)
        for tree in model.method.abstract_params()
    )
    model.set_threshold([0.1 * seed, 0.2, 0.3])
    return model


def _learned(model: PIRN) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model.parameters)]


def saving(encoder: Encoder) -> Work:
    """A model is saved in the place of another one."""
    older, newer = (small_model(encoder, seed) for seed in (1, 2))

    def check(root: Path) -> None:
        if (root / "model").exists():
            found = PIRN.load(root / "model", encoder=encoder)  # whole at every moment
            assert _learned(found) in (_learned(older), _learned(newer))

    def save(root: Path) -> None:
        newer.save(root / "model")

    return Work(lambda root: older.save(root / "model"), save, save, check)


def caching() -> Work:
    """Features of shots are kept."""
    values = np.random.RandomState(0).standard_normal((2, 4, 4, 6)).astype(np.float32)
    tokens = Tokens(values, np.ones((4, 4), bool))

    def look(root: Path) -> None:
        found = FeatureCache(root / "cache").get({"a": "b"}, lambda: tokens)
        assert found.values.tobytes() == values.tobytes()

    return Work(lambda root: None, look, look, lambda root: None)


def preparing() -> Work:
    """Normals of a data set of eight scans are made, in this process."""

    def before(root: Path) -> None:
        layouts.mvtec3d(root / "data")

    def prepare(root: Path) -> None:
        with mock.patch.object(preparation, "ProcessPoolExecutor", InThisProcess):
            preparation.prepare_dataset(
                "mvtec3d", root / "data", root / "cache", background="none", workers=1
            )

    def check(root: Path) -> None:
        data, settings = open_dataset("mvtec3d", root / "data", "bagel"), Settings("grid", "none")
        for path in (root / "cache").glob("??/*.npz"):
            assert np.load(path)["normals"].shape == (*layouts.SIZE, 3)
        for scan in (*data.train, *data.test):
            PreparedCache(root / "cache").read(scan, settings)

    return Work(before, prepare, prepare, check)


def predicting(encoder: Encoder, *, over: bool) -> Work:
    """Three photographs are judged; over: where other predictions lie already."""
    model = small_model(encoder, 1)

    def predict(root: Path) -> None:
        scans, _ = find_scans([root / "scans"], {}, ("rgb",), Options())
        with mock.patch.object(records, "now", return_value="2026-01-01T00:00Z"):
            for _ in predict_scans(model, scans, root / "out", _never):
                pass

    def before(root: Path) -> None:
        (root / "scans").mkdir()
        for number in range(3):
            Image.fromarray(layouts.photograph(number)).save(root / "scans" / f"{number}.png")
        if over:
            predict(root)

    def check(root: Path) -> None:
        for path in root.glob("out/*.png"):
            Image.open(path).load()
        for path in root.glob("out/predictions.jsonl"):
            whole = path.read_text().split("\n")[:-1]  # what is behind the last break is no line
            assert all(json.loads(line)["key"] for line in whole)

    return Work(before, predict, predict, check)


def _never(key: str, error: PirnError) -> None:
    raise AssertionError(key) from error


def training(folder: Path, *, over: bool) -> Work:
    """A run is trained and evaluated; over: in place of an older one, made in the folder."""

    def config(root: Path, **changes: object) -> TrainConfig:
        flags = {"out": str(root / "run"), "cache": str(root / "cache"), **changes}
        return dataclasses.replace(preset("debug"), test_scans=2, **flags)

    def before(root: Path) -> None:
        if over:
            if not folder.exists():
                train_run(config(folder, shots=3))
            shutil.copytree(folder, root, dirs_exist_ok=True)

    def check(root: Path) -> None:
        check_run(root / "run")
        if over and (root / "run").exists():  # the old one or the new one, and all of it
            assert read_object(root / "run" / layout.METRICS)
            assert PIRN.load(root / "run/flange/seed0/model", encoder=_debug_encoder())

    def train(root: Path) -> None:
        train_run(config(root, overwrite=over))

    def again(root: Path) -> None:
        train_run(config(root, overwrite=over, resume=not over))

    return Work(before, train, again, check)


def evaluating(folder: Path) -> Work:
    """A run is evaluated on more scans than before."""

    def before(root: Path) -> None:
        training(folder, over=True).before(root)

    def evaluate(root: Path, **changes: object) -> None:
        about = {"test_scans": 3}
        evaluate_run(root / "run", root / "out", about, cache=str(root / "cache"), **changes)

    def check(root: Path) -> None:
        check_run(root / "out")

    return Work(before, evaluate, lambda root: evaluate(root, overwrite=True), check)


@functools.cache
def _debug_encoder() -> Encoder:
    return open_encoder(preset("debug").model_config)


def check_run(run: Path) -> None:
    """Every file of a run is whole, and every model is, or is refused by name."""
    try:
        found = read_run(run)
    except BadInputError:
        return  # nothing there yet
    assert found.notes == []
    for place in layout.list_models(run):
        if contents(place.path / layout.MODEL):
            assert PIRN.load(place.path / layout.MODEL, encoder=_debug_encoder())
