"""Points in place of pictures: what describes the geometry where it is not a map of its normals.

`PointFeatures` turn the points that a view shows into tokens on the grid of the photograph's:

| name                     | what a token is                                          | channels |
|--------------------------|----------------------------------------------------------|----------|
| `fpfh`                   | mean of its points' histograms (`geometry/fpfh.py`)      | 33       |
| `point-mae`              | mean of its points' features of a frozen network         | 1152     |
|                          | (`point_mae.py`)                                         |          |
| `point-mae-as-published` | the same, batch normalisation by the scan at hand        | 1152     |
| `points`                 | the points in it, every other row and column, as they    | 147 of   |
|                          | are: for methods that make patches of points themselves  | 14 x 14  |

An `EncoderWithPoints` is an encoder of photographs and one of these, and stands wherever an
`Encoder` does. Its tokens have the channels of the widest modality; the others' are filled up with
zeros, which change no distance, and `widths` says how many are a modality's own.

Differs from what is published: BTF, M3DM and CFM average a 3x3 window and then the cells of a fixed
    grid, background as zeros included; here a token is the mean over the points in its patch.

Dimension letters: M modalities, B images, h w pixels, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pirn_jax.encoder.blocks import Blocks
from pirn_jax.encoder.encoder import Encoder, Images
from pirn_jax.encoder.source import Source
from pirn_jax.geometry.fpfh import BINS, fpfh
from pirn_jax.geometry.normals import grid_normals


@runtime_checkable
class PointFeatures(Protocol):
    """Points to tokens.

    Attributes:
        name: as in the table above.
        channels: C of its tokens.
        parameters: the pure dict that a call takes.
        source: the file behind them; of no path where there is none.
    """

    name: str
    channels: int
    parameters: dict[str, Any]
    source: Source

    def __call__(
        self, parameters: dict[str, Any], points: Float[Array, "B h w 3"], grid: tuple[int, int]
    ) -> Float[Array, "B N C"]:
        """Tokens of points in metres, zeros where there are none; pure, each image by itself."""
        ...


class Fpfh:
    """Histograms of the angles between normals, which are fitted to the view's own points."""

    def __init__(self):
        self.name, self.channels = "fpfh", 3 * BINS
        self.parameters: dict[str, Any] = {}
        self.source = Source("", "")

    def __call__(
        self, parameters: dict[str, Any], points: Float[Array, "B h w 3"], grid: tuple[int, int]
    ) -> Float[Array, "B N C"]:
        """The mean histogram of the points in each patch."""
        del parameters

        def one(points: Float[Array, "h w 3"]) -> Float[Array, "N C"]:
            normals = grid_normals(points, jnp.any(points != 0, axis=-1))
            described = jnp.any(normals != 0, axis=-1)
            return patch_means(fpfh(points, normals), described, grid)

        return jax.lax.map(one, points)


class Points:
    """The points themselves, in metres: a token is those in its patch, one after the other.

    Args:
        patch: rows and columns of a patch, in pixels. Of both every other one is taken.
    """

    def __init__(self, patch: tuple[int, int]):
        self.taken = [
            (2 * np.arange(side // 2 or 1) + 1) * side // (2 * (side // 2 or 1)) for side in patch
        ]
        self.name, self.channels = "points", 3 * len(self.taken[0]) * len(self.taken[1])
        self.parameters: dict[str, Any] = {}
        self.source = Source("", "")

    def __call__(
        self, parameters: dict[str, Any], points: Float[Array, "B h w 3"], grid: tuple[int, int]
    ) -> Float[Array, "B N C"]:
        """The coordinates of each patch's points, row by row."""
        del parameters
        batch, (rows, columns) = len(points), grid
        down, across = self.taken
        cut = points.reshape(batch, rows, -1, columns, points.shape[2] // columns, 3)
        cut = cut[:, :, down][:, :, :, :, across].swapaxes(2, 3)
        return cut.reshape(batch, rows * columns, self.channels)


def patch_means(
    values: Float[Array, "h w C"], valid: Bool[Array, "h w"], grid: tuple[int, int]
) -> Float[Array, "N C"]:
    """The mean over each patch's valid pixels; zeros where there is none."""
    rows, columns = grid
    height, width = valid.shape[0] // rows, valid.shape[1] // columns

    def total(field: Float[Array, "h w D"]) -> Float[Array, "N D"]:
        cut = field.reshape(rows, height, columns, width, field.shape[-1])
        return cut.sum((1, 3)).reshape(rows * columns, field.shape[-1])

    weight = valid.astype(values.dtype)[..., None]
    return total(values * weight) / jnp.maximum(total(weight), 1.0)


class EncoderWithPoints(Encoder):
    """An encoder of photographs, with features of points for the geometry.

    What is not said here is that of the encoder of photographs.

    Args:
        pictures: of photographs.
        points: of the geometry.
        modalities: of what it is given, one after the other.
    """

    def __init__(self, pictures: Encoder, points: PointFeatures, modalities: Sequence[str]):
        self.pictures, self.points, self.modalities = pictures, points, tuple(modalities)
        self.features, self.tiles = points.name, pictures.tiles
        self.channels = max(self.widths(modalities))
        self.parameters = {"pictures": pictures.parameters, "points": points.parameters}
        self.packed = {"pictures": pictures.packed, "points": points.parameters}
        self._describe = jax.jit(lambda given, some: points(given, some, pictures.grid))

    def __getattr__(self, name: str) -> Any:
        if name == "pictures":  # not made yet
            raise AttributeError(name)
        return getattr(self.pictures, name)

    def read(self, blocks: Blocks) -> Encoder:
        """The same with photographs read otherwise."""
        pictures = self.pictures.read(blocks)
        if pictures is self.pictures:
            return self
        return EncoderWithPoints(pictures, self.points, self.modalities)

    def widths(self, modalities: Sequence[str]) -> tuple[int, ...]:
        """The channels of each modality's tokens; the rest of C is 0."""
        own = {"normals": self.points.channels}
        return tuple(own.get(name, self.pictures.channels) for name in modalities)

    def flops(self, pictures: int = 1) -> int:
        """Arithmetic of the photograph's network; what describes points is not counted."""
        return self.pictures.flops(pictures)

    def __call__(self, images: Images) -> Float[Array, "MB N C"]:
        """Tokens of photographs and points, as `tokens` has them."""
        streams = []
        for name, some in self._apart(images):
            if name == "normals":
                streams.append(self._describe(self.points.parameters, jnp.asarray(some)))
            else:
                streams.append(self.pictures(some))
        return self._together(streams)

    def tokens(self, parameters: dict[str, Any], images: Images) -> Float[Array, "MB N C"]:
        """What a call computes, as a pure function of parameters and pictures.

        Args:
            parameters: of both.
            images: of each modality the same number, in their order: colours in [0, 1], or points
                in metres.
        """
        streams = []
        for name, some in self._apart(images):
            if name == "normals":
                found = self.points(parameters["points"], jnp.asarray(some), self.grid)
            else:
                found = self.pictures.tokens(parameters["pictures"], some)
            streams.append(found)
        return self._together(streams)

    def _apart(self, images: Images) -> list[tuple[str, Images]]:
        each = images.shape[0] // len(self.modalities)
        return [
            (name, images[place * each : (place + 1) * each])
            for place, name in enumerate(self.modalities)
        ]

    def _together(self, streams: Sequence[Array]) -> Float[Array, "MB N C"]:
        return jnp.concatenate(
            [jnp.pad(x, ((0, 0), (0, 0), (0, self.channels - x.shape[-1]))) for x in streams]
        )
