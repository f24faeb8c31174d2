"""Which blocks of a Vision Transformer are read as tokens, and how."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.errors import ConfigError

Layers = Sequence[int] | Callable[[int], Sequence[int]]
"""Blocks, counted from 1; or a function from how many there are to them."""


class Blocks(NamedTuple):
    """Which blocks' tokens an encoder gives, and how.

    Attributes:
        layers: 1-based blocks that are averaged; None for the network's own.
        groups: of the layers, the first ones first, averaged apart; their means lie side by side on
            the channel axis.
        normalised: each block's tokens are normalised (mean 0, variance 1 over channels) first, so
            that late blocks, whose tokens are longer, do not outweigh early ones.
    """

    layers: Layers | None = None
    groups: int = 1
    normalised: bool = False


Decided = tuple[tuple[int, ...], int, bool]
"""`Blocks` with their layers decided."""


def checked_blocks(config: EncoderConfig, blocks: Blocks, runtime: str) -> Decided:
    """The blocks of a network, its own where none are named.

    Raises:
        ConfigError: what the network or the runtime does not have.
    """
    layers, groups, normalised = blocks
    if layers is None:
        layers = config.own_layers(normalised)
    wanted = checked_layers(config, layers(config.depth) if callable(layers) else layers)
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"layers must differ from one another, got {wanted}")
    if groups < 1 or len(wanted) % groups:
        raise ConfigError(
            f"{len(wanted)} layers {wanted} do not make {groups} groups of equal size",
            f"give a multiple of {groups} layers",
        )
    if runtime != "jax" and groups > 1:
        raise ConfigError(
            f"runtime {runtime} averages all layers together, and {groups} groups were asked for",
            "use runtime jax",
        )
    return wanted, groups, normalised


def checked_layers(config: EncoderConfig, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers as numbers.

    Raises:
        ConfigError: what the network does not have.
    """
    if not isinstance(layers, Iterable) or isinstance(layers, str):
        raise ConfigError(f"layers must be a sequence of 1-based blocks, got {layers!r}")
    wanted = tuple(whole(layer, "layers") for layer in layers)
    if not wanted or min(wanted) < 1 or max(wanted) > config.depth:
        raise ConfigError(
            f"layers must lie in 1 to {config.depth} for {config.name} (1-based), got {wanted}"
        )
    return wanted


def whole(number: Any, what: str) -> int:
    """A whole number of any type.

    Raises:
        ConfigError: another kind of number, or none; the message says of what.
    """
    try:
        return operator.index(number)
    except TypeError:
        raise ConfigError(f"{what} must be whole numbers, got {number!r}") from None
