"""`python -m tests.encoder.make_fixtures`: small networks of transformers with their answers.

Needs torch; the tests that read the files do not. One file per naming scheme and kind of block:
the weights in float16, as transformers writes them, and the raw patch tokens after each block.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pirn_jax.encoder.catalog import CATALOG, EncoderConfig

FOLDER = Path(__file__).parent / "fixtures"
SIZE, STORED_SIDE, BLOCKS = (12, 16), 20, 2


def small(name: str) -> EncoderConfig:
    """The network of this name, made small."""
    hidden = 64 if CATALOG[name].mlp == "swiglu" else 96  # 2/3 of 4 × 24, in eights
    return dataclasses.replace(
        CATALOG[name], width=24, heads=3, patch=4, hidden=hidden, depth=BLOCKS
    )


NAMES = ("dinov2-small", "dinov2-small-reg", "dinov2-giant-reg", "dino-vits16")


def images() -> np.ndarray:
    return np.random.RandomState(0).rand(2, *SIZE, 3).astype(np.float32)


def answers(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The weights, and the tokens (blocks, B, N, C) that transformers makes with them."""
    import torch

    from tests.encoder.published import hidden_states, random_model, save

    config = small(name)
    model = random_model(config, BLOCKS, STORED_SIDE)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.half().float())
    with tempfile.TemporaryDirectory() as folder:
        weights = load_file(save(model, Path(folder)))
    tokens = np.stack(hidden_states(model, images(), config))
    return {key: value.astype(np.float16) for key, value in weights.items()}, tokens


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for fixture in NAMES:
        weights, tokens = answers(fixture)
        save_file(weights, FOLDER / f"{fixture}.safetensors")
        np.save(FOLDER / f"{fixture}.npy", tokens)
