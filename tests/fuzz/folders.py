"""Files of our own to be fuzzed: models, checkpoints, caches, weights, run folders, metrics' files.

Models, checkpoints and caches are sealed: damage is refused, or made anew, and never read as
something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save

from pirn_jax.config import Config, TrainConfig, with_settings
from pirn_jax.config_json import from_json, to_json
from pirn_jax.decoder import Tokens
from pirn_jax.detector import open_encoder
from pirn_jax.detector.saving import Stored, load_model, save_model
from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.weights import read_weights
from pirn_jax.geometry.prepared import Prepared, PreparedCache, Settings
from pirn_jax.manifest import MANIFEST, digest_of
from pirn_jax.metrics.files import open_pair, read_map, read_scores
from pirn_jax.report import write_report
from pirn_jax.report.contents import read_run
from pirn_jax.runs import open_run
from pirn_jax.scans import Scan
from pirn_jax.scans.formats import File
from pirn_jax.scoring import calibrate
from pirn_jax.storage import read_object, write_json
from pirn_jax.training import FeatureCache
from pirn_jax.training.checkpoint import Checkpoints
from pirn_jax.training.step import State
from tests.fuzz.judging import TEXT, Files, Kind
from tests.fuzz.scans import LIMITS, encoded, files_of
from tests.report.make_run import write_run
from tests.report.page import Page
from tests.scans import layouts
from tests.scans.hostile import clouds, points


def _made(build: Callable[[Path], object]) -> Files:
    """All files that are written into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        return files_of(Path(folder))


def _digest(*parts: object) -> str:
    """Of everything that was read, to the last bit."""
    digest = hashlib.sha256()
    for part in parts:
        for leaf in jax.tree.leaves(part):
            found = np.asarray(leaf)
            digest.update(f"|{found.dtype} {found.shape}|".encode() + found.tobytes())
    return digest.hexdigest()


def _random(shapes: object) -> object:
    stream = np.random.RandomState(0)

    def array(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return stream.standard_normal([3 if n < 0 else n for n in leaf.shape]).astype(leaf.dtype)

    return jax.tree.map(array, shapes)


def _models() -> list[Kind]:
    """A model of a few kilobytes, and its config as a run's."""
    small = {"prototypes": 2, "rank": 2}
    config = with_settings(
        Config(encoder="vit-tiny-16", weights="random", image_size=32, method="mixture"), small
    )
    encoder = open_encoder(config)
    method = config.settings.create(config.modalities, encoder)
    learned = [_random(tree) for tree in method.abstract_params()]
    calibration = calibrate([0.1, 0.2, 0.3])
    stored = Stored(config, encoder, calibration, None, None, {"dataset": "folder"}, *learned)

    def load(folder: Path) -> object:
        found = load_model(folder, encoder=encoder)
        facts = (json.dumps(to_json(found.config)), found.calibration, json.dumps(found.origin))
        return facts, _digest(found.parameters, found.statistics)

    def reseal(folder: Path) -> None:
        try:
            manifest = read_object(folder / MANIFEST)
            for name in manifest["files"]:
                content = (folder / name).read_bytes()
                manifest["files"][name] = hashlib.sha256(content).hexdigest()
            document = read_object(folder / "config.json")
            manifest["about"]["config"] = digest_of(document["config"])
            manifest["about"]["calibration"] = document["calibration"]
            manifest["about"]["weights"] = document["encoder"]["sha256"]
            write_json(folder / MANIFEST, manifest)
        except (ValueError, AttributeError, KeyError, TypeError, OSError):
            return  # too far gone

    run = dataclasses.replace(TrainConfig(), detector=config)

    def read_run_config(folder: Path) -> None:
        open_run(folder)

    def read_model_config(folder: Path) -> None:
        path = folder / "config.json"
        from_json(Config, read_object(path), str(path))

    def text(document: object) -> bytes:
        return json.dumps(document, indent=2).encode()

    decoder = with_settings(Config(method="pirn"), {"epochs": 3})
    return [
        Kind(
            "model",
            [_made(lambda folder: save_model(stored, folder))],
            load,
            sealed=True,
            share=0.3,
            reseal=reseal,
        ),
        Kind("run's config", [{"config.json": text(to_json(run))}], read_run_config, share=0.1),
        Kind(
            "model's config",
            [{"config.json": text(to_json(c))} for c in (config, decoder)],
            read_model_config,
            share=0.1,
        ),
    ]


def _weights() -> Kind:
    """Encoder weights, by timm's names, of a network of two narrow blocks."""
    shape = EncoderConfig(
        "narrow", 8, 2, 2, 4, (1, 2), (1, 2), 16, position_rule="timm", native_size=8
    )
    block = {
        **{f"norm{n}.{part}": (8,) for n in (1, 2) for part in ("weight", "bias")},
        **{"attn.qkv.weight": (24, 8), "attn.qkv.bias": (24,)},
        **{"attn.proj.weight": (8, 8), "attn.proj.bias": (8,)},
        **{"mlp.fc1.weight": (16, 8), "mlp.fc1.bias": (16,)},
        **{"mlp.fc2.weight": (8, 16), "mlp.fc2.bias": (8,)},
    }
    names = {f"blocks.{n}.{name}": size for n in range(2) for name, size in block.items()}
    names |= {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 5, 8),
        "norm.weight": (8,),
        "norm.bias": (8,),
    }
    names |= {"patch_embed.proj.weight": (8, 3, 4, 4), "patch_embed.proj.bias": (8,)}
    stream = np.random.RandomState(0)
    tensors = {n: stream.standard_normal(size).astype(np.float32) for n, size in names.items()}

    def read(folder: Path) -> None:
        read_weights(folder / "a.safetensors", shape, (2, 2), "timm")

    return Kind("weights", [{"a.safetensors": save(tensors)}], read, share=0.5)


def _caches() -> list[Kind]:
    """Prepared scans and features: what is damaged is made anew."""
    settings = Settings("grid", "plane")
    xyz = layouts.points(size=(8, 8))
    scan = Scan(None, xyz, (xyz != 0).any(-1))
    normals = np.random.RandomState(0).standard_normal((8, 8, 3)).astype(np.float32)
    ready = Prepared(normals, scan.valid, True, ("a note",))
    tokens = Tokens(normals.reshape(2, 4, 4, 6), np.ones((4, 4), bool))

    def read_prepared(folder: Path) -> object:
        found = PreparedCache(folder).read(scan, settings)
        return found and (found.stands, found.notes, _digest(found.normals, found.object))

    def read_features(folder: Path) -> object:
        anew: list[bool] = []

        def make() -> Tokens:
            anew.append(True)
            return tokens

        found = FeatureCache(folder).get({"a": "b"}, make)
        return None if anew else _digest(found)

    def reseal_features(folder: Path) -> None:
        for path in folder.glob("*/entry.json"):
            try:
                entry = read_object(path)
                for name in entry["sha256"]:
                    content = (path.parent / f"{name}.npy").read_bytes()
                    entry["sha256"][name] = hashlib.sha256(content).hexdigest()
                write_json(path, entry)
            except (ValueError, AttributeError, KeyError, TypeError, OSError):
                return  # too far gone

    return [
        Kind(
            "prepared scan",
            [_made(lambda folder: PreparedCache(folder).write(scan, settings, ready))],
            read_prepared,
            sealed=True,
        ),
        Kind(
            "features",
            [_made(lambda folder: FeatureCache(folder).get({"a": "b"}, lambda: tokens))],
            read_features,
            sealed=True,
            share=0.3,
            reseal=reseal_features,
        ),
    ]


def _checkpoints() -> Kind:
    """Two checkpoints of one run: the newer, or where that is damaged the older; else from new."""
    state = State({"w": np.arange(12, dtype=np.float32).reshape(1, 12)}, (), {})

    def at(epoch: int) -> State:
        return state._replace(parameters={"w": state.parameters["w"] + np.float32(epoch)})

    def write(folder: Path) -> None:
        with Checkpoints(folder / "0", "this run", keep=2, resume=False) as checkpoints:
            for epoch in (1, 2):
                checkpoints.save(epoch, at(epoch), [{"epoch": epoch, "loss": 0.5}])

    def read(folder: Path) -> object:
        (folder / "0").mkdir(exist_ok=True)
        with Checkpoints(folder / "0", "this run", keep=2, resume=True) as checkpoints:
            found = checkpoints.restore(state)
        if found is None:
            return None
        epoch, restored, history = found
        assert _digest(restored) == _digest(at(epoch))
        assert history == [{"epoch": epoch, "loss": 0.5}]
        return "whole"

    return Kind("checkpoints", [_made(write)], read, sealed=True, share=0.005)


def _runs() -> list[Kind]:
    """A run's folder for the report, and for who looks for its models."""

    def write(folder: Path) -> None:
        write_run(folder, ("flange",), defects=("crack",), good=2, each=1)

    def report(folder: Path) -> None:
        page = Page(write_report(folder))
        page.check_self_contained()

    def documents(folder: Path) -> None:
        read_run(folder)

    files = _made(write)
    text = {name: content for name, content in files.items() if Path(name).suffix in TEXT}
    return [
        Kind("run's report", [files], report, share=0.003),
        Kind("run's documents", [text], documents, share=0.3),
    ]


def _metrics() -> list[Kind]:
    """Maps, masks and scores of any detector."""
    scores = points.XYZ[..., 2]
    mask = layouts.defect_mask(255)
    both = clouds.zipped([("a.npy", points.npy(scores)), ("b.npy", points.npy(scores))])
    truths = clouds.zipped([("a.npy", points.npy(mask)), ("b.npy", points.npy(mask))])
    stack = points.npy(np.stack([scores, scores]))

    def one(folder: Path) -> None:
        (path,) = folder.iterdir()
        assert read_map(File(path), LIMITS).ndim == 2

    def pair(folder: Path) -> None:
        maps = next(iter(folder.glob("maps.*")))
        for found in open_pair(maps, folder / "masks.npz"):
            for array in found:
                assert np.asarray(array).ndim >= 1

    def table(folder: Path) -> None:
        assert read_scores(folder / "scores.csv", ["a", "b"]).shape == (2,)

    sound = [
        ("a.npy", points.npy(scores)),
        ("a.png", encoded(mask, "PNG")),
        ("a.png", encoded(mask, "PNG", "RGB")),
        ("a.png", encoded(mask.astype(np.uint16), "PNG")),
        ("a.bmp", encoded(mask, "BMP")),
        ("a.tiff", encoded(scores, "TIFF")),
        ("a.tiff", encoded(scores, "TIFF", compression="tiff_lzw")),
        ("a.tiff", layouts.tiff_bytes(points.XYZ[..., 2:], "deflate", rows=5)),
    ]
    return [
        Kind("map or mask", [{name: content} for name, content in sound], one),
        Kind(
            "set of maps",
            [
                {"maps.npz": both, "masks.npz": truths},
                {"maps.npy": stack, "masks.npz": clouds.zipped([("a.npy", stack)])},
            ],
            pair,
            share=0.3,
        ),
        Kind("table of scores", [{"scores.csv": b"key,score\na,0.5\nb,1e-3\n"}], table, share=0.2),
    ]


def kinds() -> list[Kind]:
    """All kinds of our own files."""
    return [*_models(), _weights(), *_caches(), _checkpoints(), *_runs(), *_metrics()]
