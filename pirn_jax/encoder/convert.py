"""`python -m pirn_jax.encoder.convert IN.pth OUT.safetensors`: checkpoints of PyTorch, made safe.

The only place that opens PyTorch's format; it is read as data (`pytorch.py`), and nothing in it
runs. PyTorch is not needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from pirn_jax.command import Console, run
from pirn_jax.encoder.point_mae import load_point_mae
from pirn_jax.encoder.point_mae_weights import is_point_mae
from pirn_jax.encoder.pytorch import read_checkpoint
from pirn_jax.encoder.weights import identify
from pirn_jax.encoder.wide_resnet import is_wide_resnet, load_wide_resnet
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.storage import write_tensors


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
    write_tensors(out, tensors)
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


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by their plain names."""
    content = read_checkpoint(path)
    for wrapper in ("teacher", "model", "state_dict", "base_model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise BadInputError(f"holds a {type(content).__name__}, not named tensors", path=path)
    tensors: dict[str, np.ndarray] = {}
    for key, value in content.items():
        if not isinstance(value, np.ndarray) or re.match(
            r"(module\.)?(dino|ibot)_head\.", str(key)
        ):
            continue
        plain = re.sub(r"^(module\.)?(backbone\.)?", "", str(key))
        plain = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", plain)  # blocks in chunks
        if plain in tensors:
            raise BadInputError(f"holds two tensors called {plain}", path=path)
        tensors[plain] = value
    return tensors


if __name__ == "__main__":
    run(main)
