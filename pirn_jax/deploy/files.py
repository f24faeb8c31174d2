"""A program as a file: ONNX, or JAX's own StableHLO.

An ONNX file is the model and its description in one. The other is a zip of two members, stored:
`description.json`, and `program.bin`, which `jax.export.deserialize` opens.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export

from pirn_jax.deploy.conversion import convert
from pirn_jax.deploy.description import ENTRY, Stored
from pirn_jax.deploy.graph import Graph, fingerprint
from pirn_jax.deploy.program import Program
from pirn_jax.errors import MissingDependencyError
from pirn_jax.storage import write_whole

PLATFORMS = ("cpu", "cuda")
_DESCRIPTION, _PROGRAM = "description.json", "program.bin"


def write_onnx(
    path: Path, program: Program, description: Mapping[str, Any], stored: Stored = "float32"
) -> None:
    """Write a program as ONNX, whole or not at all.

    Args:
        path: of the file.
        program: what is written.
        description: plain JSON values.
        stored: how the encoder's matrices lie in it; all else is in float32, but with int8 what the
            method has of 2^18 numbers or more, which has half precision.

    Raises:
        ConfigError: a step of the method that ONNX has no counterpart of here.
        MissingDependencyError: the package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX needs the package onnx, which cannot be imported ({error})",
            "pip install 'pirn-jax[export]'",
        ) from error

    graph = Graph(stored, [fingerprint(matrix) for matrix in program.matrices])
    given = [graph.input(name, spec.shape, spec.dtype) for name, spec in program.inputs.items()]
    traced = jax.make_jaxpr(program.run)(*program.inputs.values())
    found = dict(zip(program.outputs, convert(graph, traced, given), strict=True))
    model = graph.finish(found, "part", {ENTRY: json.dumps(description)})
    onnx.checker.check_model(model)
    write_whole(path, model.SerializeToString())


def write_stablehlo(path: Path, program: Program, description: Mapping[str, Any]) -> None:
    """Write a program as JAX's serialised StableHLO, for CPU and CUDA, with its description."""
    exported = export.export(jax.jit(program.run), platforms=PLATFORMS)(*program.inputs.values())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: weights do not shrink
        archive.writestr(zipfile.ZipInfo(_DESCRIPTION), json.dumps(description, indent=2))
        archive.writestr(zipfile.ZipInfo(_PROGRAM), bytes(exported.serialize()))
    write_whole(path, buffer.getvalue())
