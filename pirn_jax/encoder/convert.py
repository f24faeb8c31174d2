"""`python -m pirn_jax.encoder.convert IN.pth OUT.safetensors`: Meta's checkpoints, made safe.

The only place that opens PyTorch's format, in a process of its own, by PyTorch's restricted reader
(tensors only), which is sound since PyTorch 2.10. Needs the extra: `pip install pirn-jax[convert]`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from pirn_jax.command import run
from pirn_jax.encoder.weights import identify
from pirn_jax.errors import BadInputError, MissingDependencyError


def main(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN.pth")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.safetensors")],
) -> None:
    """Convert a DINO or DINOv2 checkpoint into the safetensors file that pirn_jax reads.

    Args:
        checkpoint: a .pth or .bin file of tensors, e.g. dinov2_vitb14_pretrain.pth.
        out: the .safetensors file to write; an existing one is not touched.
    """
    if out.exists():
        raise BadInputError("exists already", "name another file", out)
    tensors = _read(checkpoint)
    _write(tensors, out)
    try:
        name = identify(out)
    except ValueError:
        out.unlink()
        raise
    Console().print(f"{name}: {len(tensors)} tensors → {out}", highlight=False)


def _read(path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by Meta's plain names."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "reading a .pth file needs PyTorch", "pip install 'pirn-jax[convert]'"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds; each means the same to the user
        first = str(error).splitlines()[0]
        raise BadInputError(
            f"is no checkpoint of plain tensors ({type(error).__name__}: {first})",
            "only weights can be converted; nothing else in the file was run",
            path,
        ) from error
    for wrapper in ("teacher", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise BadInputError(f"holds a {type(content).__name__}, not named tensors", path=path)
    tensors = {}
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            plain = re.sub(r"^(module\.)?(backbone\.)?", "", key)
            plain = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", plain)  # blocks in chunks
            if not plain.startswith(("dino_head.", "ibot_head.")):
                tensors[plain] = value.detach().clone().contiguous()
    return tensors


def _write(tensors: dict[str, Any], out: Path) -> None:
    from safetensors.torch import save_file

    partial = out.with_name(out.name + ".partial")
    save_file(tensors, partial)
    os.replace(partial, out)  # whole or not at all


if __name__ == "__main__":
    run(main)
