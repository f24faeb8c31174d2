"""A trained detector in a folder: `config.json` and `model.safetensors`; the encoder is named.

Nothing is executed and nothing unpickled on the way back, and what the files claim is checked.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pirn_jax.config import Config
from pirn_jax.config_json import from_json, to_json
from pirn_jax.decoder import Params
from pirn_jax.detector.encoders import find_encoder, is_encoder_of
from pirn_jax.encoder import Encoder
from pirn_jax.encoder.source import remember
from pirn_jax.errors import BadInputError
from pirn_jax.scoring import Calibration
from pirn_jax.storage import (
    flatten,
    read_object,
    read_tensors,
    unflatten,
    write_json,
    write_tensors,
)

MODEL_FORMAT = "pirn_jax model 2"


class Stored(NamedTuple):
    """What a folder holds, and the encoder that it names."""

    config: Config
    encoder: Encoder
    calibration: Calibration | None
    origin: dict[str, object]
    parameters: Params
    statistics: Params


def save_model(stored: Stored, folder: str | os.PathLike[str]) -> Path:
    """Write a trained detector; returns the folder."""
    target, source = Path(folder), stored.encoder.source
    calibration = stored.calibration
    document = {
        "format": MODEL_FORMAT,
        "config": to_json(stored.config),
        "encoder": {
            "name": stored.encoder.config.name,
            "weights": str(Path(source.path).resolve()) if source.path else "",
            "sha256": source.sha256,
            "layers": stored.encoder.layers,
            "about": source.about,
        },
        "calibration": None if calibration is None else calibration._asdict(),
        "origin": stored.origin,
    }
    tensors = flatten("parameters", stored.parameters)
    tensors |= flatten("statistics", stored.statistics)
    write_tensors(target / "model.safetensors", tensors)
    write_json(target / "config.json", document)
    remember(source)
    return target


def is_model(folder: Path) -> bool:
    """Whether the folder is one that `save_model` wrote."""
    path = folder / "config.json"
    return path.is_file() and read_object(path).get("format") == MODEL_FORMAT


def load_model(
    folder: str | os.PathLike[str],
    *,
    weights: str | None = None,
    encoder: Encoder | None = None,
    runtime: str | None = None,
    allow_code: Collection[str] = (),
) -> Stored:
    """What `save_model` wrote; the arguments are those of `PIRN.load`."""
    path = Path(folder) / "config.json"
    document = read_object(path)
    if document.get("format") != MODEL_FORMAT:
        raise BadInputError(
            f"expected a {MODEL_FORMAT!r}, got {document.get('format')!r}",
            "give the model/ folder of a run; train again where an older version wrote it",
            path=folder,
        )
    try:
        about = document["encoder"]
        name, digest = str(about["name"]), str(about["sha256"])
        layers, lay = tuple(about["layers"]), str(about["weights"])
        config = from_json(Config, document["config"], str(path), allow_code)
        threshold = document["calibration"]
        calibration = None if threshold is None else Calibration(**threshold)
        origin = dict(document.get("origin") or {})
    except (KeyError, TypeError) as error:
        raise BadInputError(f"not what was written: {error}", "train again", path) from error
    config = replace(config, encoder=name, layers=layers, weights=weights)
    if runtime is not None:
        config = replace(config, runtime=runtime)
    if encoder is None or not is_encoder_of(encoder, config, digest):
        encoder = find_encoder(config, digest, lay)
    method = config.settings.create(config.modalities, encoder)
    parameters, statistics = method.abstract_params()
    file = Path(folder) / "model.safetensors"
    tensors = read_tensors(file)
    return Stored(
        config,
        encoder,
        calibration,
        origin,
        unflatten("parameters", parameters, tensors, file),
        unflatten("statistics", statistics, tensors, file),
    )
