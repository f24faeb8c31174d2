"""What runs an exported graph: ONNX Runtime, or OpenVINO. One call: inputs by name → outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pirn_jax.errors import BadInputError, MissingDependencyError

Engine = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
RUNTIMES = ("onnxruntime", "openvino")


def open_engine(
    content: bytes, path: Path, outputs: Sequence[str], runtime: str, threads: int | None
) -> Engine:
    """The graph, ready to run; for one thread at a time.

    Args:
        content: of the file.
        path: of the file, for messages.
        outputs: their names.
        runtime: one of `RUNTIMES`.
        threads: that it may use; None: as many as there are processors to run on.

    Raises:
        BadInputError: the runtime cannot read it.
        MissingDependencyError: the runtime's package is not installed.
    """
    count = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    build = _onnxruntime if runtime == "onnxruntime" else _openvino
    try:
        return build(content, outputs, count)
    except ImportError as error:
        raise MissingDependencyError(
            f"runtime {runtime} cannot be imported ({error})",
            f"pip install {runtime}",
        ) from error
    except Exception as error:  # each engine has errors of its own for what it cannot read
        reason = str(error).partition("\n")[0][:200]
        raise BadInputError(
            f"{runtime} cannot read it: {reason}", "export it again", path
        ) from error


def _onnxruntime(content: bytes, outputs: Sequence[str], threads: int | None) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = session.run(list(outputs), dict(inputs))
        return {name: np.asarray(one) for name, one in zip(outputs, found, strict=True)}

    return run


def _openvino(content: bytes, outputs: Sequence[str], threads: int | None) -> Engine:
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", settings)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = compiled(dict(inputs))
        return {name: np.array(found[name]) for name in outputs}  # copies: its memory is used again

    return run
