"""What memory and subspace share: which tokens they learn from, pooled, centred and scaled.

Dimension letters: M modalities, B images, N tokens on a grid of g_h x g_w, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.decoder.tokens import apply_scale, fit_scale
from pirn_jax.encoder import Blocks, Encoder
from pirn_jax.errors import ConfigError
from pirn_jax.geometry.augmentation import Augmentations, jitter, photometric, rotations
from pirn_jax.methods.settings import Features, Geometry, MethodSettings


@dataclass(frozen=True)
class TokenSettings(MethodSettings):
    """What is learned from, and what is done to its tokens, in this order."""

    features: Features = "normals"
    """What describes the geometry: normals (the encoder's tokens of a picture of them), or features
    of the points in place of these: fpfh (histograms of the angles between normals), point-mae (a
    network; see --points-weights), point-mae-as-published (its batch normalisation by the scan at
    hand, as released detectors leave it)."""
    photometric: int = 0
    """Copies of each shot under another light to learn from as well."""
    jitter: int = 0
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""
    rotations: int = 1
    """Positions each shot is turned to, in equal steps; 1: its own, 8: every 45 degrees; 0: 8 in
    place of the jittered copies where the shots' silhouettes say that parts lie at any angle, else
    1."""
    normalised: bool = False
    """Each encoder block's tokens are normalised before the blocks are averaged, so that late
    blocks, whose tokens are longer, do not outweigh early ones."""
    pool: bool = False
    """Each token becomes the mean of the valid ones among it and its 8 neighbours."""
    centre_image: bool = False
    """Each image's tokens are taken from their own mean."""
    scale: Literal["none", "centre", "standardise", "whiten"] = "none"
    """Then, by statistics of all the shots' tokens: none, centre, standardise (per channel),
    whiten."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(photometric=0, jitter=0, rotations=0)

    def geometry_features(self) -> Geometry:
        """`features`."""
        return self.features

    def augmentations(self) -> Augmentations:
        """Copies under another light, then jittered and turned ones."""
        return photometric(self.photometric) + jitter(self.jitter) + rotations(self.rotations or 1)

    def encoder_layers(self) -> Blocks:
        """The network's own blocks, normalised or not."""
        return Blocks(normalised=self.normalised)

    def for_parts(self, any_angle: bool, apart: bool) -> dict[str, object]:
        """How often each shot is turned, where the shots were to decide."""
        del apart
        if self.rotations:
            return {}
        return {"rotations": 8, "jitter": 0} if any_angle else {"rotations": 1}


def check_widths(method: str, modalities: tuple[str, ...], encoder: Encoder) -> None:
    """Refuse tokens of which some channels are filled up with zeros: they have no density.

    Raises:
        ConfigError: the encoder's modalities have different numbers of channels.
    """
    widths = encoder.widths(modalities)
    if set(widths) != {encoder.channels}:
        raise ConfigError(
            f"{method} takes tokens of one width, not {' and '.join(map(str, widths))} channels",
            "leave out recipe.features, or use method memory, subspace, m3dm or btf",
        )


def prepare(
    settings: TokenSettings,
    grid: tuple[int, int],
    tokens: Float[Array, "M B N C"],
    valid: Bool[Array, "B N"],
) -> Float[Array, "M B N C"]:
    """Pooled and centred as the settings say; each image by itself."""
    mass = valid.astype(tokens.dtype)
    if settings.pool:
        tokens = pool(tokens, mass, grid)
    return apply_scale("centre_image", {}, tokens, mass) if settings.centre_image else tokens


def pool(
    tokens: Float[Array, "M B N C"], mass: Float[Array, "B N"], grid: tuple[int, int]
) -> Float[Array, "M B N C"]:
    """The mean over 3x3 neighbours, of those there are and that count; alone, a token stays."""
    m, b, n, c = tokens.shape

    def total(field: Float[Array, "_ N D"]) -> Float[Array, "_ N D"]:
        square = field.reshape(-1, *grid, field.shape[-1])
        padded = jnp.pad(square, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]).reshape(field.shape)

    weighed = (tokens * mass[None, :, :, None]).reshape(m * b, n, c)
    count = total(mass[..., None])[None]
    mean = total(weighed).reshape(tokens.shape) / jnp.maximum(count, 1.0)
    return jnp.where(count > 0, mean, tokens)


def fit(
    settings: TokenSettings, grid: tuple[int, int], shots: Tokens
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "M T C"]]:
    """The scale's statistics, and the scaled tokens of all shots that count, one after the other.

    Args:
        settings: how.
        grid: of the tokens.
        shots: tokens of the shots and their copies, all of them with `valid`.
    """
    assert shots.valid is not None
    given = jnp.asarray(shots.values), jnp.asarray(shots.valid)
    statistics, found = _fit(settings, grid, *given)
    known = {name: np.asarray(value) for name, value in statistics.items()}
    return known, np.asarray(found)[:, np.asarray(shots.valid)]


@jax.jit(static_argnums=(0, 1))
def _fit(
    settings: TokenSettings,
    grid: tuple[int, int],
    tokens: Float[Array, "M B N C"],
    valid: Bool[Array, "B N"],
) -> tuple[Params, Float[Array, "M B N C"]]:
    prepared = prepare(settings, grid, tokens, valid)
    mass = valid.astype(tokens.dtype)
    statistics = fit_scale(settings.scale, prepared, mass)
    return statistics, apply_scale(settings.scale, statistics, prepared, mass)


def scaled(
    settings: TokenSettings, grid: tuple[int, int], statistics: Params, tokens: Tokens
) -> Float[Array, "M B N C"]:
    """Tokens of new images, as those of the shots were prepared."""
    values = jnp.asarray(tokens.values)
    assert tokens.valid is not None
    valid = jnp.asarray(tokens.valid)
    prepared = prepare(settings, grid, values, valid)
    return apply_scale(settings.scale, statistics, prepared, valid.astype(values.dtype))


def statistics_shapes(scale: str, modalities: int, channels: int) -> Params:
    """What `fit_scale` would give, as shapes."""
    tokens = jax.ShapeDtypeStruct((modalities, 1, 1, channels), jnp.float32)
    return jax.eval_shape(lambda x: fit_scale(scale, x), tokens)
