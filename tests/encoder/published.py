"""Randomly initialised transformers networks, the oracle of the encoder tests (needs torch)."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

from pirn_jax.encoder.catalog import EncoderConfig


def random_model(config: EncoderConfig, blocks: int, side: int, seed: int = 0):
    """A transformers network of this shape with every parameter random, also norms and scales.

    Args:
        config: the catalog's entry.
        blocks: how many blocks to build.
        side: of the pictures its position embedding belongs to, in pixels.
        seed: of torch.
    """
    shape = {
        "hidden_size": config.width,
        "num_hidden_layers": blocks,
        "num_attention_heads": config.heads,
        "image_size": side,
        "patch_size": config.patch,
    }
    if config.layer_scale:
        shape["use_swiglu_ffn"] = config.mlp == "swiglu"
        if config.registers:
            settings = Dinov2WithRegistersConfig(num_register_tokens=config.registers, **shape)
            model = Dinov2WithRegistersModel(settings)
        else:
            model = Dinov2Model(Dinov2Config(**shape))
    else:
        model = ViTModel(ViTConfig(intermediate_size=config.hidden, **shape))
    generator = torch.Generator().manual_seed(seed)
    spread = 0.04 * (384 / config.width) ** 0.5  # activations of one size at every width
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lambda1" in name:
                value.uniform_(0.1, 1.0, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                value.normal_(1.0, 0.1, generator=generator)
            else:
                value.normal_(0.0, spread, generator=generator)
    return model.eval()


def hidden_states(model, images: np.ndarray, config: EncoderConfig) -> list[np.ndarray]:
    """Raw patch tokens after each block, caught by hooks, for pictures (B, h, w, 3) in [0, 1]."""
    mean, std = (np.asarray(v, np.float32) for v in (config.mean, config.std))
    pixels = torch.from_numpy(((images - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    caught: list[np.ndarray] = []

    def catch(_, __, output):
        tokens = output[0] if isinstance(output, tuple) else output
        caught.append(tokens[:, 1 + config.registers :].numpy())

    layers = next(
        module for _, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)
    )
    hooks = [layer.register_forward_hook(catch) for layer in layers]
    options = {} if config.layer_scale else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        model(pixels, **options)
    for hook in hooks:
        hook.remove()
    return caught


def save(model, folder: Path) -> Path:
    """The file as transformers writes it."""
    model.save_pretrained(folder)
    return folder / "model.safetensors"
