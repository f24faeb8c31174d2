"""Point-MAE: a frozen transformer over groups of points, without compiled operators.

1. G centres by furthest point sampling: the first point, then always the one that is farthest from
   all before. 2. The K nearest points of each, as differences to it. 3. A mini-PointNet makes a
   token of each group: two maps with batch normalisation, the largest value of each channel, beside
   every point's own, two more maps, the largest again. 4. Twelve blocks, to each of which an
   embedding of the centre is added. 5. After blocks 4, 8 and 12 a LayerNorm that they share; side
   by side these are the group's features. 6. A point's are those of its three nearest centres,
   weighed by 1 / d². 7. A patch token's are the mean of the points in it.

Steps 6 and 7 are one matrix (N, G): no feature of a single point is ever kept.

|                | published detectors                             | here                          |
|----------------|-------------------------------------------------|-------------------------------|
| normalisation  | the network is left in training mode: batches   | stored statistics; those of   |
|                | are normalised by the scan at hand, and blocks  | the scan as an option, and no |
|                | are dropped at random, also when judging        | block is ever dropped         |
| points         | those of which no coordinate is 0               | those of which any is not     |
| few points     | fail where there are fewer than K               | the nearest stands in         |

Neither centres nor scales the points, as published: metres, in the camera's frame.

Source: Pang et al. 2022 (Point-MAE, arXiv 2203.06604) and its released network; taps and
    interpolation: M3DM (arXiv 2303.00601), CFM (arXiv 2312.04521).

Dimension letters: B scans, h w pixels, P = h·w of them, G groups, K points of one, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.point_mae_weights import read_point_mae, seeded_point_mae
from pirn_jax.encoder.source import Source, sha256_of
from pirn_jax.encoder.vit import Block, Projection
from pirn_jax.errors import ConfigError
from pirn_jax.geometry.patches import furthest_points, nearest_points

NAME = "point-mae"
URL = "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/pretrain.pth"
_AT_ONCE = 64  # groups, of which all points' channels are held
_EXACT = jnp.dtype("float32")


@dataclass(frozen=True)
class PointMaeSize:
    """How large the network is; the published one by default.

    Attributes:
        width: channels of a group's token.
        depth: blocks.
        heads: of their attention.
        inner: channels of the mini-PointNet: first, second, and inside the second pair of maps.
        groups: G.
        neighbours: K.
        taps: blocks, counted from 1, whose outputs are the features.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    inner: tuple[int, int, int] = (128, 256, 512)
    groups: int = 1024
    neighbours: int = 128
    taps: tuple[int, ...] = (4, 8, 12)

    @property
    def channels(self) -> int:
        """Of the features."""
        return len(self.taps) * self.width


PUBLISHED = PointMaeSize()


class BatchStatistics(nnx.Module):
    """Batch normalisation, by stored statistics or given ones."""

    def __init__(self, width: int):
        self.scale, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))
        self.mean, self.variance = nnx.Param(jnp.zeros(width)), nnx.Param(jnp.ones(width))

    def __call__(
        self, x: Float[Array, "G K C"], of_scan: tuple[Array, Array] | None
    ) -> Float[Array, "G K C"]:
        """Normalised, scaled and shifted; `of_scan` in place of the stored mean and variance."""
        mean, variance = (self.mean[...], self.variance[...]) if of_scan is None else of_scan
        factor = self.scale[...] * jax.lax.rsqrt(variance + 1e-5)
        return (x - mean[None, None]) * factor[None, None] + self.bias[...][None, None]


class PointMaeNetwork(nnx.Module):
    """The network from groups of points to their features; laid out by `point_mae_weights.py`."""

    def __init__(self, size: PointMaeSize, rngs: nnx.Rngs):
        first, second, third = size.inner
        self.size = size
        self.point1 = Projection(3, first, _EXACT)
        self.statistics1 = BatchStatistics(first)
        self.point2 = Projection(first, second, _EXACT)
        self.joint1 = Projection(2 * second, third, _EXACT)
        self.statistics2 = BatchStatistics(third)
        self.joint2 = Projection(third, size.width, _EXACT)
        self.position1 = Projection(3, first, _EXACT)
        self.position2 = Projection(first, size.width, _EXACT)
        block = EncoderConfig(
            name=NAME,
            width=size.width,
            depth=size.depth,
            heads=size.heads,
            patch=1,
            layers=size.taps,
            normalised_layers=size.taps,
            hidden=4 * size.width,
            epsilon=1e-5,
        )
        self.blocks = nnx.List([Block(block, _EXACT, rngs) for _ in range(size.depth)])
        self.norm = nnx.LayerNorm(size.width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(
        self, groups: Float[Array, "G K 3"], centres: Float[Array, "G 3"], by_scan: bool
    ) -> Float[Array, "G C"]:
        """Features of the groups.

        Args:
            groups: points, as differences to their centres.
            centres: in metres.
            by_scan: normalise by the statistics of these very groups.
        """
        tokens = self.embed(groups, by_scan)
        inner = jax.nn.gelu(self.position1(centres), approximate=False)
        position = self.position2(inner)[None]
        x, taps = tokens[None], []
        for number, block in enumerate(self.blocks, 1):
            x = block(x + position)
            if number in self.size.taps:
                taps.append(self.norm(x)[0])
        return jnp.concatenate(taps, axis=-1)

    def embed(self, groups: Float[Array, "G K 3"], by_scan: bool) -> Float[Array, "G C"]:
        """The mini-PointNet, some groups at a time."""
        first = self._statistics(self.point1, groups) if by_scan else None

        def points(some: Float[Array, "g K 3"]) -> Float[Array, "g K D"]:
            own = self.point2(jax.nn.relu(self.statistics1(self.point1(some), first)))
            shared = jnp.broadcast_to(own.max(1, keepdims=True), own.shape)
            return self.joint1(jnp.concatenate([shared, own], axis=-1))

        second = self._statistics(points, groups) if by_scan else None

        def token(some: Float[Array, "g K 3"]) -> Float[Array, "g C"]:
            return self.joint2(jax.nn.relu(self.statistics2(points(some), second))).max(1)

        return _in_pieces(token, groups).reshape(len(groups), -1)

    def _statistics(self, layer: Any, groups: Float[Array, "G K 3"]) -> tuple[Array, Array]:
        """Mean and variance of what a layer makes of all points."""

        def moments(some: Float[Array, "g K 3"]) -> Float[Array, "2 C"]:
            x = layer(some)
            return jnp.stack([x.mean((0, 1)), x.var((0, 1))])

        each = _in_pieces(moments, groups)
        means, variances = each[:, 0], each[:, 1]
        return means.mean(0), variances.mean(0) + means.var(0)


def _in_pieces(function: Any, groups: Float[Array, "G K 3"]) -> Array:
    """What a function makes of some groups after the others, stacked; pieces are equally large."""
    size = max(n for n in range(1, min(_AT_ONCE, len(groups)) + 1) if len(groups) % n == 0)
    return jax.lax.map(function, groups.reshape(-1, size, *groups.shape[1:]))


def group(
    points: Float[Array, "P 3"],
    valid: Bool[Array, " P"],
    centres: Float[Array, "G 3"],
    neighbours: int,
) -> Float[Array, "G K 3"]:
    """The nearest points of each centre, as differences to it."""
    return points[nearest_points(points, valid, centres, neighbours)] - centres[:, None]


def spread(
    points: Float[Array, "h w 3"],
    valid: Bool[Array, "h w"],
    centres: Float[Array, "G 3"],
    grid: tuple[int, int],
) -> Float[Array, "N G"]:
    """What share each group has in each patch token; rows sum to 1, or 0 without a point."""
    rows, columns = grid
    height, width = valid.shape[0] // rows, valid.shape[1] // columns
    nearest = min(3, len(centres))

    def patch(given: tuple[Float[Array, "p 3"], Bool[Array, " p"]]) -> Float[Array, " G"]:
        some, counted = given
        away = ((some[:, None] - centres[None]) ** 2).sum(-1)
        near, places = jax.lax.top_k(-away, nearest)
        weight = 1 / (1e-8 - near)
        weight = jnp.where(counted[:, None], weight / weight.sum(-1, keepdims=True), 0.0)
        total = jnp.zeros(len(centres)).at[places].add(weight)
        return total / jnp.maximum(counted.sum(dtype=jnp.float32), 1.0)

    def cut(field: Array) -> Array:
        tiles = field.reshape(rows, height, columns, width, *field.shape[2:]).swapaxes(1, 2)
        return tiles.reshape(rows * columns, height * width, *field.shape[2:])

    return jax.lax.map(patch, (cut(points), cut(valid)))


class PointMae:
    """Point-MAE as `PointFeatures`; made by `load_point_mae`.

    Args:
        size: of the network.
        parameters: nested, as `PointMaeNetwork` has them.
        source: the file behind them.
        by_scan: batch normalisation by the statistics of the scan at hand.
    """

    def __init__(
        self, size: PointMaeSize, parameters: dict[str, Any], source: Source, by_scan: bool
    ):
        self.size, self.source, self.by_scan = size, source, by_scan
        self.name = f"{NAME}-as-published" if by_scan else NAME
        self.channels = size.channels
        self._graph, abstract = skeleton(size)
        self.parameters = jax.tree.map(
            lambda leaf, value: jnp.asarray(value, leaf.dtype), abstract, parameters
        )

    def __call__(
        self, parameters: dict[str, Any], points: Float[Array, "B h w 3"], grid: tuple[int, int]
    ) -> Float[Array, "B N C"]:
        """The mean features of the points in each patch."""

        def one(points: Float[Array, "h w 3"]) -> Float[Array, "N C"]:
            network = nnx.merge(self._graph, parameters)
            flat = points.reshape(-1, 3)
            valid = jnp.any(flat != 0, axis=-1)
            centres = flat[furthest_points(flat, valid, self.size.groups)]
            groups = group(flat, valid, centres, self.size.neighbours)
            features = network(groups, centres, self.by_scan)
            shares = spread(points, valid.reshape(points.shape[:2]), centres, grid)
            return shares @ features

        with jax.default_matmul_precision("highest"):
            return jax.lax.map(one, points)


def skeleton(size: PointMaeSize) -> tuple[Any, dict[str, Any]]:
    """The network's graph, and its parameters as shapes."""
    graph, state = nnx.split(nnx.eval_shape(lambda: PointMaeNetwork(size, nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def load_point_mae(
    weights: str | Path | None, extractor_mode: str = "eval", size: PointMaeSize = PUBLISHED
) -> PointMae:
    """Point-MAE with parameters from a file.

    Args:
        weights: the safetensors file that `python -m pirn_jax.encoder.convert` makes of the
            published checkpoint; or "random": seeded numbers, for benchmarks and tests.
        extractor_mode: "eval": batch normalisation by stored statistics; "as_published": by those
            of the scan at hand.
        size: of the network.

    Raises:
        ConfigError: no weights named, or no such mode.
        WeightsError: the file is missing, damaged, or another network's.
    """
    if extractor_mode not in ("eval", "as_published"):
        raise ConfigError(f"extractor_mode must be eval or as_published, got {extractor_mode!r}")
    if weights is None:
        raise ConfigError(
            "Point-MAE comes without weights",
            f"download {URL}, convert it (python -m pirn_jax.encoder.convert pretrain.pth "
            "point_mae.safetensors), and give that file: --points-weights",
        )
    _, abstract = skeleton(size)
    if weights == "random":
        parameters, source = seeded_point_mae(abstract), Source("", "")
    else:
        path = Path(weights)
        parameters, source = read_point_mae(path, abstract), Source(str(path), sha256_of(path))
    return PointMae(size, parameters, source, extractor_mode == "as_published")
