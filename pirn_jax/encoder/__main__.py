"""`python -m pirn_jax.encoder [PICTURE]`: look at a picture as the encoder sees it.

Writes the picture beside the first three principal components of its patch tokens, shown as red,
green and blue: what the network takes for alike has one colour.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float
from PIL import Image, ImageOps

from pirn_jax.command import Console, run
from pirn_jax.encoder import Encoder, load_encoder
from pirn_jax.errors import BadInputError, MissingDependencyError
from pirn_jax.places import check_apart


def main(
    picture: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")] = None,
    encoder: str = "auto",
    weights: str | None = None,
    image_size: int = 448,
    out: Path = Path("tokens.png"),
) -> None:
    """Show a picture's patch tokens as colours.

    Args:
        picture: PNG, JPEG, TIFF or BMP; a photograph that comes with scikit-learn if left out.
        encoder: dinov2-small, dinov2-base, …, vit-tiny-16, pirn-tiny; auto takes what can be
            had.
        weights: a .safetensors file of the encoder, or "random".
        image_size: side in pixels, a multiple of the encoder's patch.
        out: the PNG to write.
    """
    console = Console()
    check_apart(out, picture)
    photograph = _read(picture)
    network = load_encoder(encoder, weights, image_size)
    height, width = network.image_size
    fitted = ImageOps.fit(photograph, (width, height), Image.Resampling.BICUBIC)
    image = np.asarray(fitted, np.float32) / 255
    start = time.perf_counter()
    network(image[None]).block_until_ready()
    compiled = time.perf_counter()
    tokens = np.asarray(network(image[None]))[0]
    end = time.perf_counter()
    _draw(image, tokens, network, out)
    console.print(network, highlight=False)
    if network.source.about:
        console.print(network.source.about, highlight=False)
    if not network.source.path:
        console.print(
            "[bold red]random weights,[/] which know nothing; --weights FILE or a network "
            "connection brings real ones"
        )
    console.print(
        f"{tokens.shape[0]} tokens of {tokens.shape[1]} channels, "
        f"{network.flops(pictures=1) / 1e9:.1f} GFLOP in {1e3 * (end - compiled):.0f} ms "
        f"(first call {compiled - start:.1f} s) → {out}"
    )


def _read(path: Path | None) -> Image.Image:
    """The picture, upright; the one that comes with scikit-learn where none is named."""
    if path is None:
        try:
            from sklearn.datasets import load_sample_image
        except ImportError as error:
            raise MissingDependencyError(
                "without a picture the one of scikit-learn is shown, which is not installed",
                "name a picture, or pip install scikit-learn",
            ) from error
        return Image.fromarray(load_sample_image("flower.jpg"))
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP")) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise BadInputError(f"is no picture that can be read: {error}", path=path) from error


def _draw(
    image: Float[np.ndarray, "h w 3"],
    tokens: Float[np.ndarray, "N C"],
    network: Encoder,
    out: Path,
) -> None:
    from matplotlib.figure import Figure

    centred = tokens - tokens.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = (centred @ axes[:3].T).reshape(*network.grid, 3)
    low, high = np.quantile(components, (0.02, 0.98), axis=(0, 1))
    colours = ((components - low) / (high - low)).clip(0, 1)
    figure = Figure(figsize=(8, 4.3), layout="constrained")
    for place, shown, title in zip(
        figure.subplots(1, 2),
        (image, colours),
        (
            "picture",
            f"tokens of {network.config.name}{'' if network.source.path else ', random weights'}",
        ),
        strict=True,
    ):
        place.imshow(shown)
        place.set_title(title)
        place.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    run(main)
