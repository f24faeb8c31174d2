"""`python -m pirn_jax.export RUN --out part.onnx`: a trained model as one file.

From pictures to maps and score, weights and threshold inside: judged with by `pirn_runtime`, which
needs no JAX, or by whatever reads ONNX. docs/deploy.md has the file's inputs, outputs and
description. `--format stablehlo` is for JAX itself: `jax.export.deserialize`.

Exit code: 0; 2 if the model cannot be read; 3 for wrong usage or a model that cannot be exported;
4 where the machine is at fault (see `pirn_jax.command`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pirn_jax.command import Console, run
from pirn_jax.errors import ConfigError, check_choices


@dataclass(frozen=True)
class Arguments:
    """Write a trained model as one file that is judged with without JAX."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or the model/ folder of one model."""
    out: Path
    """The file."""
    format: Literal["onnx", "stablehlo"] = "onnx"
    """onnx: for every runtime; stablehlo: for JAX."""
    batch: str = "dynamic"
    """Scans a call, or dynamic: any number."""
    stored: Literal["float32", "float16", "int8"] = "float32"
    """How the encoder's matrices lie in an ONNX file, with int8 also the method's largest, in half
    precision; what that costs, docs/deploy.md says. All is computed with in float32."""
    category: str | None = None
    """Which model, where a run holds several."""
    seed: int | None = None
    """Which seed's model; without it the first."""
    weights: str | None = None
    """The encoder's file, where it has moved."""
    threshold: float | None = None
    """Scores above it are called defective, instead of the model's own threshold."""
    overwrite: bool = False
    """Replace the file where there is one."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.batch != "dynamic" and not (self.batch.isdecimal() and int(self.batch) > 0):
            raise ConfigError(f"batch: expected dynamic or 1 and more, got {self.batch!r}")
        if self.format == "stablehlo" and self.stored != "float32":
            raise ConfigError(f"stored {self.stored} is for ONNX files", "leave it out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: instead of the process's own.
    """
    run(export, Arguments, arguments)


def export(arguments: Arguments) -> None:
    """Do what the flags say."""
    from pirn_jax.deploy.export import export_model
    from pirn_jax.runs.predictions import find_model

    if arguments.out.exists() and not arguments.overwrite:
        raise ConfigError("there is such a file", "--overwrite replaces it", arguments.out)
    found = export_model(
        find_model(arguments.run, arguments.category, arguments.seed),
        arguments.out,
        kind=arguments.format,
        batch=None if arguments.batch == "dynamic" else int(arguments.batch),
        stored=arguments.stored,
        weights=arguments.weights,
        threshold=arguments.threshold,
    )
    size = arguments.out.stat().st_size
    Console(soft_wrap=True, highlight=False).print(
        f"{arguments.out}: {size / 1e6:.1f} MB, model {found.model}, encoder {found.encoder} "
        f"({found.licence or 'licence unknown'})",
        markup=False,
    )


if __name__ == "__main__":
    main()
