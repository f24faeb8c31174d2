"""A trained detector in a folder: `config.json`, `model.safetensors` and the manifest of both.

The encoder is named, not copied. Nothing is executed and nothing unpickled on the way back, and
what the files claim is checked.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pirn_jax.config import Config
from pirn_jax.config_json import from_json, to_json
from pirn_jax.decoder import Params
from pirn_jax.detector.encoders import find_encoder, is_encoder_of, points_digest
from pirn_jax.detector.reference import Reference, read_reference, reference_shapes
from pirn_jax.encoder import Encoder
from pirn_jax.encoder.points import EncoderWithPoints
from pirn_jax.encoder.source import remember
from pirn_jax.errors import BadInputError, ConfigError, WeightsError
from pirn_jax.geometry.sight import SightLimits, read_sight
from pirn_jax.manifest import MANIFEST, digest_of, read_whole, write_manifest
from pirn_jax.scoring import Calibration, read_calibration
from pirn_jax.storage import (
    flatten,
    parse_object,
    parse_tensors,
    read_object,
    unflatten,
    whole_folder,
    write_json,
    write_tensors,
)

MODEL_FORMAT = "pirn_jax model 3"
_CONFIG, _TENSORS = "config.json", "model.safetensors"


class Stored(NamedTuple):
    """What a folder holds, and the encoder that it names."""

    config: Config
    encoder: Encoder
    calibration: Calibration | None
    sight: SightLimits | None
    reference: Reference | None
    origin: dict[str, object]
    parameters: Params
    statistics: Params


def save_model(stored: Stored, folder: str | os.PathLike[str]) -> Path:
    """Write a trained detector, whole or not at all; returns the folder.

    An older model there stays until the new one is whole. Files that are no model's stay beside it.
    """
    target, source = Path(folder), stored.encoder.source
    calibration = stored.calibration
    document = {
        "config": to_json(_resolved(stored.config, stored.encoder)),
        "encoder": {
            "name": stored.encoder.config.name,
            "weights": str(Path(source.path).resolve()) if source.path else "",
            "sha256": source.sha256,
            "layers": stored.encoder.layers,
            "about": source.about,
            "points": points_digest(stored.encoder),  # "": it has no weights for points
        },
        "calibration": None if calibration is None else calibration._asdict(),
        "sight": None if stored.sight is None else stored.sight._asdict(),
        "reference": None if stored.reference is None else stored.reference.document(),
        "origin": stored.origin,
    }
    tensors = flatten("parameters", stored.parameters)
    tensors |= flatten("statistics", stored.statistics)
    if stored.reference is not None:
        tensors |= flatten("reference", stored.reference.tensors())
    target.mkdir(parents=True, exist_ok=True)
    alone = {path.name for path in target.iterdir()} <= {_CONFIG, _TENSORS, MANIFEST}
    with whole_folder(target.resolve()) if alone else nullcontext(target) as place:
        write_tensors(place / _TENSORS, tensors)
        write_json(place / _CONFIG, document)
        write_manifest(place, MODEL_FORMAT, (_CONFIG, _TENSORS), _facts(document))
    remember(source)
    if isinstance(stored.encoder, EncoderWithPoints):
        remember(stored.encoder.points.source)
    return target


def _resolved(config: Config, encoder: Encoder) -> Config:
    """As `load_model` gives it, so that a model that is loaded and saved is the same model."""
    return replace(
        config,
        encoder=encoder.config.name,
        layers=encoder.layers,
        weights=None,
        points_weights=None,
    )


def is_model(folder: Path) -> bool:
    """Whether the folder is to be read as one that `save_model` wrote, whole or not."""
    return os.path.isfile(folder / _TENSORS)


def _facts(document: Mapping[str, Any]) -> dict[str, object]:
    """What makes a model what it is: the manifest says it beside the files' hashes."""
    facts = {
        "config": digest_of(document["config"]),
        "calibration": document["calibration"],
        "weights": document["encoder"]["sha256"],
    }
    if points := document["encoder"].get("points"):
        facts["points"] = points
    return facts


def model_id(folder: Path) -> str:
    """Sixteen hex digits that name a saved model, and nothing else that is trained.

    Of the SHA-256 of its config, its tensors and the encoder's weights; the threshold may be set
    anew without another model coming of it.
    """
    document = read_object(folder / MANIFEST)
    about = document["about"]
    return digest_of([about["config"], document["files"][_TENSORS], about["weights"]])[:16]


def load_model(
    folder: str | os.PathLike[str],
    *,
    weights: str | None = None,
    points_weights: str | None = None,
    encoder: Encoder | None = None,
    runtime: str | None = None,
    allow_code: Collection[str] = (),
) -> Stored:
    """What `save_model` wrote; the arguments are those of `PIRN.load`."""
    path = Path(folder) / _CONFIG
    if not os.path.isfile(Path(folder) / MANIFEST):
        raise BadInputError(
            f"no {MANIFEST}: not a saved model, or one of an older version",
            "give the model/ folder of a run, or train again",
            folder,
        )
    whole = read_whole(Path(folder), MODEL_FORMAT, (_CONFIG, _TENSORS))
    document = parse_object(whole.files[_CONFIG], path)
    try:
        for name, fact in _facts(document).items():
            if whole.about.get(name) != fact:
                raise BadInputError(f"{name}: not what the manifest says", "train again", path)
        about = document["encoder"]
        name, digest = str(about["name"]), str(about["sha256"])
        layers, lay = tuple(about["layers"]), str(about["weights"])
        points = str(about.get("points", ""))
        said = document["config"]
        older = {"own_level": 0.0}  # models of before judge without what they do not name
        if said.get("method") == "mixture":
            older |= {"pseudo_defects": "off"}
        settings = older | said["settings"]
        config = from_json(Config, said | {"settings": settings}, str(path), allow_code)
        threshold = document["calibration"]
        calibration = None if threshold is None else read_calibration(threshold)
        sight = read_sight(document.get("sight"))
        origin = dict(document.get("origin") or {})
        config = replace(
            config, encoder=name, layers=layers, weights=weights, points_weights=points_weights
        )
        if runtime is not None:
            config = replace(config, runtime=runtime)
        if encoder is None or not is_encoder_of(encoder, config, digest, points):
            encoder = find_encoder(config, digest, lay, points)
    except BadInputError as error:
        raise BadInputError(error.problem, "train again", path) from error
    except (ConfigError, WeightsError) as error:
        remedy, where = error.remedy or "train again", error.path or path
        raise type(error)(error.problem, remedy, where) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"not what was written: {error}", "train again", path) from error
    method = config.settings.create(config.modalities, encoder)
    parameters, statistics = method.abstract_params()
    file = Path(folder) / _TENSORS
    tensors = parse_tensors(whole.files[_TENSORS], file)
    reference = None
    if document.get("reference") is not None:  # older versions kept none
        shape = (len(config.modalities), encoder.channels)
        shapes = reference_shapes("reference.tilts" in tensors, shape)
        arrays = unflatten("reference", shapes, tensors, file)
        try:
            reference = read_reference(document["reference"], arrays)
        except BadInputError as error:
            raise BadInputError(error.problem, "train again", path) from error
    return Stored(
        config,
        encoder,
        calibration,
        sight,
        reference,
        origin,
        unflatten("parameters", parameters, tensors, file),
        unflatten("statistics", statistics, tensors, file),
    )
