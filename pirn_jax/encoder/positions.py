"""Position embeddings at another size, exactly as each family's original resizes them.

The references disagree by 0.25 to 1.6 on a unit-variance embedding, so the rule belongs to the
weights:

| rule | used by | bicubic call |
| --- | --- | --- |
| meta | Meta's DINO and DINOv2 | `scale_factor=(n + 0.1) / M`, no antialiasing |
| meta-registers | Meta's DINOv2 with registers | `size=`, antialiased |
| hf | transformers' ViT and DINOv2 | `size=`, no antialiasing |
| hf-registers | transformers' DINOv2 with registers | `size=`, antialiased |
| timm | timm | `size=`, antialiased |

Source: facebookresearch/dinov2 `hub/backbones.py` and `models/vision_transformer.py`; transformers
`modeling_dinov2.py`, `modeling_dinov2_with_registers.py`, `modeling_vit.py`; timm `pos_embed.py`.
PyTorch's bicubic kernel has a = -0.75 without antialiasing, where samples beyond the border repeat
it, and a = -0.5 with antialiasing, where they are left out and the weights renormalised.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pirn_jax.encoder.catalog import EncoderConfig, PositionRule
from pirn_jax.errors import ConfigError

_OFFSET = 0.1  # Meta's guard against a rounded-down output size, which also shifts the sampling


def position_rule(config: EncoderConfig, choice: str | None) -> PositionRule:
    """The rule for this encoder: the family's own (None), Meta's ("meta") or transformers' ("hf").

    Raises:
        ConfigError: an unknown choice, or "meta" for a network Meta never published.
    """
    if choice is None:
        return config.position_rule
    if choice == "hf":
        return "hf-registers" if config.registers else "hf"
    if choice != "meta":
        raise ConfigError(f"position_rule must be None, 'hf' or 'meta', got {choice!r}")
    if not config.position_rule.startswith("meta"):
        raise ConfigError(
            f"position_rule='meta' does not exist for {config.name}, whose original is timm's",
            "use position_rule=None or 'hf'",
        )
    return config.position_rule


def resize_positions(
    grid: Float[np.ndarray, "rows columns C"], size: tuple[int, int], rule: PositionRule
) -> Float[np.ndarray, "new_rows new_columns C"]:
    """Resize a grid of position embeddings; the grid itself where it already has that size.

    Args:
        grid: the stored embeddings of the patches, float32.
        size: rows and columns wanted.
        rule: see the module's table.
    """
    if size == grid.shape[:2]:
        return grid
    vertical, horizontal = (
        _bicubic(old, new, rule) for old, new in zip(grid.shape[:2], size, strict=True)
    )
    resized = np.einsum(
        "ri,ijc,sj->rsc", vertical, grid.astype(np.float64), horizontal, optimize=True
    )
    return resized.astype(np.float32)


def _bicubic(old: int, new: int, rule: PositionRule) -> Float[np.ndarray, "new old"]:
    """The matrix that resamples `old` values to `new`, by Keys' cubic convolution."""
    antialias = rule in ("meta-registers", "hf-registers", "timm")
    a = -0.5 if antialias else -0.75
    scale = np.float32(old / (new + _OFFSET) if rule == "meta" else old / new)
    # A fused multiply-add in float32, as PyTorch compiles it: at 37 positions the rounding moves a
    # sample by up to 2e-6, which a steep embedding shows.
    centre = (float(scale) * (np.arange(new) + 0.5) - 0.5).astype(np.float32)
    stretch = max(float(scale), 1.0) if antialias else 1.0
    reach = int(np.ceil(2 * stretch)) + 1
    taps = np.floor(centre)[:, None].astype(int) + np.arange(-reach, reach + 1)
    t = np.abs(taps - centre[:, None].astype(np.float64)) / stretch
    weights = np.where(
        t < 1,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        np.where(t < 2, (((t - 5) * t + 8) * t - 4) * a, 0.0),
    )
    if antialias:
        weights = np.where((taps >= 0) & (taps < old), weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], taps.clip(0, old - 1)), weights)
    return matrix
