"""A saved model → a file: loaded, described, written."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pirn_jax import __version__
from pirn_jax.config_json import to_json
from pirn_jax.deploy.description import Description, Stored
from pirn_jax.deploy.files import write_onnx, write_stablehlo
from pirn_jax.deploy.program import build_program
from pirn_jax.detector import PIRN
from pirn_jax.detector.preprocessing import looking_of
from pirn_jax.detector.saving import model_id

_APACHE = ("dinov2", "dino", "vit", "pirn")
"""Families of encoders whose weights are published under the Apache License 2.0."""


def export_model(
    folder: Path,
    out: Path,
    *,
    kind: Literal["onnx", "stablehlo"] = "onnx",
    batch: int | None = None,
    stored: Stored = "float32",
    weights: str | None = None,
    threshold: float | None = None,
) -> Description:
    """Write a saved model as one file, whole or not at all.

    Args:
        folder: of the model, as `PIRN.save` wrote it.
        out: the file.
        kind: onnx, or stablehlo.
        batch: scans a call; None: any number.
        stored: how the encoder's matrices (with int8 also the method's largest, in half precision)
            lie in an ONNX file; computed with in float32.
        weights: the encoder's file, where it has moved.
        threshold: instead of the model's own.

    Returns:
        What the file says of itself.

    Raises:
        ConfigError: the method or number type cannot be exported.
        MissingDependencyError: the package `onnx` is not installed.
    """
    model = PIRN.load(folder, weights=weights, runtime="jax")
    if threshold is not None:
        model.set_fixed_threshold(threshold)
    source, config = model.encoder.source, model.config
    name = model.encoder.config.name
    data = model.origin.get("data")
    reading = model.origin.get("reading")
    description = Description(
        version=__version__,
        model=model_id(folder),
        weights=source.sha256,
        licence="Apache-2.0" if source.path and name.split("-")[0] in _APACHE else "",
        encoder=name,
        about=source.about or (source.repository and f"{source.repository} {source.revision}"),
        random_weights=model.random_weights,
        looking=looking_of(config),
        sight=model.sight,
        batch=batch,
        stored=stored,
        calibration=model.calibration,
        reading=dict(reading) if isinstance(reading, dict) else {},
        trained_on=None if data is None else str(data),
        config={**to_json(config), "weights": None},
    )
    program = build_program(model, batch)
    document = description.document()
    if kind == "onnx":
        write_onnx(out, program, document, stored)
    else:
        write_stablehlo(out, program, document)
    return description
