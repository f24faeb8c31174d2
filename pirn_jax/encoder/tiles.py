"""Pictures larger than the network's own, in overlapping tiles: finer tokens, and no seam.

A picture is cut into n x n tiles of the network's size, and neighbours share a quarter of their
side. Each tile goes through the network as a picture does; then the tiles' tokens are joined on one
grid, that of a picture of the whole side. Where tiles overlap, a token is a weighted mean of
theirs:

    E[r, c] = Σ_ij w_i[r] w_j[c] E_ij[r - o_i, c - o_j],   Σ_i w_i[r] = 1 for every row r

with o_i the first row of tile i. Along each axis a tile's weight falls as cos² over what it shares,
and the next one's rises as sin²: they add up to 1, and a tile counts least at its border, where the
network sees least of what is around.

It is tokens that are joined, and not maps: to methods, maps, scores and files a picture in tiles is
a picture of finer tokens, and each method learns from it as it does from any. The price is one pass
of the network for every tile.

Differs from the paper: it has one picture a scan.

Dimension letters: B pictures, h w their pixels, N tokens, C channels, n tiles a side, G rows (or
columns) of the joined grid, g of a tile's; nn B, gg: n n times B, g times g.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from pirn_jax.encoder.blocks import Blocks
from pirn_jax.encoder.encoder import Encoder, Images
from pirn_jax.encoder.packed import Packed
from pirn_jax.errors import ConfigError

SHARED = 4
"""Neighbours share one part of so many of their side."""


def tiled_side(tile: int, tiles: int) -> int:
    """The side that so many tiles cover, in the unit of a tile's own side: pixels, or tokens."""
    return tile + (tiles - 1) * (tile - tile // SHARED)


def tile_side(whole: int, tiles: int) -> int:
    """The side of each of the tiles that cover `whole`: `tiled_side` undone."""
    return whole * SHARED // tiled_side(SHARED, tiles)


@functools.lru_cache(maxsize=32)
def joining(tokens: int, tiles: int) -> Float32[np.ndarray, "n G g"]:
    """How much each token of each tile counts in each token of the joined grid, along one axis.

    Args:
        tokens: g, of a tile.
        tiles: n.
    """
    shared, step = tokens // SHARED, tokens - tokens // SHARED
    rising = np.sin((np.arange(shared) + 0.5) / shared * np.pi / 2) ** 2
    weights = np.zeros((tiles, tiled_side(tokens, tiles), tokens))
    for tile in range(tiles):
        own = np.ones(tokens)
        if tile > 0:
            own[:shared] = rising
        if tile < tiles - 1:
            own[tokens - shared :] = 1 - rising
        weights[tile, tile * step + np.arange(tokens), np.arange(tokens)] = own
    return weights.astype(np.float32)


class TiledEncoder(Encoder):
    """An encoder of pictures that are cut into tiles for another; stands wherever one does.

    What is not said here is that of the encoder of a tile. It runs on all tiles of a call at once.

    Args:
        tile: encoder of one tile.
        tiles: n, along each side.

    Raises:
        ConfigError: a quarter of a tile is not a whole number of tokens.
    """

    def __init__(self, tile: Encoder, tiles: int):
        self.tile, self.tiles = tile, tiles
        if any(tokens % SHARED for tokens in tile.grid):
            unit = SHARED * tile.config.patch
            near = [max(1, round(side / unit)) * unit for side in tile.image_size]
            raise ConfigError(
                f"tiles share a quarter of their side, which is no whole number of "
                f"{tile.config.name}'s patches of {tile.config.patch} pixels in tiles of "
                f"{' × '.join(map(str, tile.image_size))}",
                f"nearest image_size: {' × '.join(map(str, near))}",
            )
        height, width = (tiled_side(side, tiles) for side in tile.image_size)
        rows, columns = (tiled_side(tokens, tiles) for tokens in tile.grid)
        self.image_size, self.grid = (height, width), (rows, columns)
        self._run = jax.jit(self.tokens) if tile.runtime == "jax" else self._in_two
        self._joined = jax.jit(self._join)
        self._others: dict[Encoder, TiledEncoder] = {tile: self}  # shared by all of them

    def __getattr__(self, name: str) -> Any:
        if name == "tile":  # not made yet
            raise AttributeError(name)
        return getattr(self.tile, name)

    def read(self, blocks: Blocks) -> Encoder:
        """The same with tiles read otherwise."""
        tile = self.tile.read(blocks)
        if tile not in self._others:
            other = TiledEncoder(tile, self.tiles)
            other._others = self._others
            self._others[tile] = other
        return self._others[tile]

    def tokens(self, parameters: dict[str, Any] | Packed, images: Images) -> Float[Array, "B N C"]:
        """What a call computes, as a pure function of the tile's parameters and pictures."""
        self._check_shape(images)
        return self._join(self.tile.tokens(parameters, self._cut(images)))

    def widths(self, modalities: Sequence[str]) -> tuple[int, ...]:
        """The channels of each modality's tokens: the tile's."""
        return self.tile.widths(modalities)

    def hidden_states(self, images: Images, layers: Sequence[int]) -> list[Float[Array, "B N C"]]:
        """Raw outputs of single blocks, joined; see `Encoder.hidden_states`."""
        states = self.tile.hidden_states(self._cut(self._checked(images)), layers)
        return [self._joined(state) for state in states]

    def flops(self, pictures: int = 2) -> int:
        """Arithmetic of a call in matrix products: that of all its tiles."""
        return self.tile.flops(self.tiles**2 * pictures)

    def _in_two(self, _: dict[str, Any] | Packed, images: Images) -> Float[Array, "B N C"]:
        """A call where another runtime computes the tiles."""
        return self._joined(self.tile(self._cut(images)))

    def _cut(self, images: Images) -> Float[Array, "nnB h w 3"]:
        """The tiles of all pictures: the first one of each, then the second one of each."""
        (height, width), many = self.tile.image_size, range(self.tiles)
        down, across = (side - side // SHARED for side in (height, width))
        starts = [(row * down, column * across) for row in many for column in many]
        return jnp.concatenate(
            [images[:, top : top + height, left : left + width] for top, left in starts]
        )

    def _join(self, tokens: Float[Array, "nnB gg C"]) -> Float[Array, "B N C"]:
        """The tiles' tokens on one grid."""
        n, (rows, columns) = self.tiles, self.tile.grid
        down, across = (jnp.asarray(joining(tokens, n)) for tokens in (rows, columns))
        tiles = tokens.reshape(n, n, -1, rows, columns, tokens.shape[-1])
        precise = jax.lax.Precision.HIGHEST
        wide = jnp.einsum("jWw,ijbhwc->ibhWc", across, tiles, precision=precise)
        whole = jnp.einsum("iHh,ibhWc->bHWc", down, wide, precision=precise)
        return whole.reshape(-1, self.grid[0] * self.grid[1], tokens.shape[-1])

    def __repr__(self) -> str:
        return f"{self.tile!r} in {self.tiles}×{self.tiles} tiles"


def in_tiles(encoder: Encoder, tiles: int) -> Encoder:
    """The encoder for pictures of so many tiles a side; itself for 1.

    Raises:
        ConfigError: see `TiledEncoder`.
    """
    return encoder if tiles == 1 else TiledEncoder(encoder, tiles)
