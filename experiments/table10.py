"""Table 10: the frozen encoder.

    python experiments/table10.py --dataset mvtec3d --data-root ROOT
    python experiments/table10.py --dataset mvtec3d --data-root ROOT --encoder NAME --weights FILE
    python experiments/table10.py --quick

Claim: DINOv2 ViT-B/14 is better than DINO ViT-B/8, ViT-L/14 a little better still. The three are
run where their weights are in the local cache or can be downloaded; a further encoder by its flags.
Random weights say nothing about a backbone: without weights no accuracy is printed, only what each
encoder is.
Expected (paper, MVTec 3D-AD, 10 shots, I-AUROC): 0.892, 0.923, 0.928.
Cost: 3 encoders x 2 recipes x 10 categories x 5 draws; ViT-B/8 has four times the tokens.
"""

from harness.encoders import encoder_of
from harness.options import Options
from harness.table import Table, TableRow, run_table
from paper import TABLE10
from pirn_jax.encoder import encoder_config
from pirn_jax.encoder.hub import Unavailable, cached_weights, download_weights

_NAMES = {
    "DINO ViT-B/8": "dino-vitb8",
    "DINOv2 ViT-B/14": "dinov2-base",
    "DINOv2 ViT-L/14": "dinov2-large",
}


def at_hand(name: str, download: bool) -> bool:
    """Whether the network's weights are in the local cache, or now get there."""
    config = encoder_config(name)
    if cached_weights(config) is not None:
        return True
    try:
        return download and bool(download_weights(config))
    except Unavailable:
        return False


def choose(options: Options) -> Table:
    """The rows whose weights can be had, measured; the others as published."""
    rows, notes = [], []
    size = options.image_size or 224
    for label, name in _NAMES.items():
        there = at_hand(name, download=not (options.quick or options.dry_run))
        cited = "" if there else "cited; weights not at hand"
        rows.append(TableRow(label, paper=TABLE10[label], encoder=name, cited=cited))
        notes.append(f"{label}: {described(name, size)}")
    given = options.config(options.recipes[0], shots=10)
    named = options.encoder is not None or options.weights is not None
    if named and encoder_of(given).source.path:
        name = encoder_of(given).config.name
        rows.append(TableRow(name))
        notes.append(f"{name}: {described(name, given.image_size)}")
    return Table(10, "backbones", tuple(rows), notes=tuple(notes))


def described(name: str, size: int) -> str:
    """What an encoder is, in numbers."""
    config = encoder_config(name)
    side = size // config.patch
    pixels = side * config.patch
    giga = 2 * config.flops((pixels, pixels), max(config.layers)) / 1e9
    return (
        f"{config.width} channels, {side * side} tokens at {pixels} px, blocks "
        f"{config.layers[0]} to {config.layers[-1]} of {config.depth}, {giga:.1f} GFLOPs a pair of "
        "pictures"
    )


if __name__ == "__main__":
    run_table(choose)
