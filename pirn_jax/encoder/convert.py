"""`python -m pirn_jax.encoder.convert IN.pth OUT.safetensors`: checkpoints of PyTorch, made safe.

The only place that opens PyTorch's format, in a process of its own, by PyTorch's restricted reader
(tensors only), which is sound since PyTorch 2.10. Needs the extra: `pip install pirn-jax[convert]`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from pirn_jax.command import Console, run
from pirn_jax.encoder.point_mae import load_point_mae
from pirn_jax.encoder.point_mae_weights import is_point_mae
from pirn_jax.encoder.weights import identify
from pirn_jax.encoder.wide_resnet import is_wide_resnet, load_wide_resnet
from pirn_jax.errors import BadInputError, ConfigError, MissingDependencyError


def main(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN.pth")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.safetensors")],
) -> None:
    """Convert a checkpoint of PyTorch into the safetensors file that pirn_jax reads.

    Of DINO, DINOv2, Point-MAE and WideResNet.

    Args:
        checkpoint: a .pth or .bin file of tensors, e.g. dinov2_vitb14_pretrain.pth, or
            Point-MAE's pretrain.pth.
        out: the .safetensors file to write; an existing one is not touched.
    """
    if out.exists():
        raise ConfigError("exists already", "name another file", out)
    if not checkpoint.is_file():
        raise BadInputError("no such file", "give the .pth file", checkpoint)
    tensors = _read(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(tensors, out)
    try:
        if is_point_mae(tensors):
            name = load_point_mae(out).name
        elif is_wide_resnet(tensors):
            name = load_wide_resnet(out).config.name
        else:
            name = identify(out)
    except ValueError:
        out.unlink()
        raise
    Console().print(f"{name}: {len(tensors)} tensors → {out}", highlight=False)


def _read(path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by their plain names."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "reading a .pth file needs PyTorch", "pip install 'pirn-jax[convert]'"
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
        raise MissingDependencyError(
            f"PyTorch {torch.__version__} reads tensors less safely than 2.10 and later",
            "pip install 'pirn-jax[convert]'",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds; each means the same to the user
        first = str(error).partition("\n")[0]
        raise BadInputError(
            f"is no checkpoint of plain tensors ({type(error).__name__}: {first})",
            "only weights can be converted; nothing else in the file was run",
            path,
        ) from error
    for wrapper in ("teacher", "model", "state_dict", "base_model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise BadInputError(f"holds a {type(content).__name__}, not named tensors", path=path)
    tensors = {}
    for key, value in content.items():
        if not isinstance(value, torch.Tensor) or re.match(
            r"(module\.)?(dino|ibot)_head\.", str(key)
        ):
            continue
        plain = re.sub(r"^(module\.)?(backbone\.)?", "", str(key))
        plain = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", plain)  # blocks in chunks
        if plain in tensors:
            raise BadInputError(f"holds two tensors called {plain}", path=path)
        tensors[plain] = value.detach().to_dense().clone().contiguous()
    return tensors


def _write(tensors: dict[str, Any], out: Path) -> None:
    from safetensors.torch import save_file

    partial = out.with_name(out.name + ".partial")
    save_file(tensors, partial)
    os.replace(partial, out)  # whole or not at all


if __name__ == "__main__":
    run(main)
