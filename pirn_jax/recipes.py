"""The baselines' knobs, as frozen dataclasses; `--change name=value` reaches them.

The text under each field says what it is; `pirn_jax.baselines` says what the authors published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pirn_jax.errors import ConfigError

_SCALES = ("none", "centre", "standardise", "whiten")
_DISTANCES = ("cosine", "euclidean")


@dataclass(frozen=True)
class TokenOptions:
    """What is learned from, and what is done to its tokens, in this order."""

    copies: int = 0
    """Photometric copies of each shot to learn from as well."""
    nudges: int = 0
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""
    rotations: int = 1
    """Positions each shot is turned to, in equal steps; 1: its own, 8: every 45 degrees."""
    pool: bool = False
    """Each token becomes the mean of the valid ones among it and its 8 neighbours."""
    centre_image: bool = False
    """Each image's tokens are taken from their own mean."""
    scale: str = "none"
    """Then, by statistics of all the shots' tokens: none, centre, standardise (per channel),
    whiten."""

    def __post_init__(self) -> None:
        _check(
            self,
            {"copies": 0, "nudges": 0, "rotations": 1},
            {"scale": _SCALES, "distance": _DISTANCES},
        )


@dataclass(frozen=True)
class MemoryRecipe(TokenOptions):
    """The memory of the shots' tokens (`pirn_jax.baselines.memory`)."""

    distance: str = "cosine"
    """To the nearest token: cosine (1 - cos), or euclidean."""


@dataclass(frozen=True)
class SubspaceRecipe(TokenOptions):
    """Principal components of the shots' tokens (`pirn_jax.baselines.subspace`)."""

    variance: float = 0.99
    """Share of the variance that the components kept explain."""
    distance: str = "euclidean"
    """Token to its projection: euclidean (the squared length of what is missing), or cosine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance <= 1:
            raise ConfigError(
                f"variance: expected a share in (0, 1], got {self.variance}", "use 0.99"
            )


@dataclass(frozen=True)
class InpFormerRecipe:
    """INP-Former (`pirn_jax.baselines.inp_former`); the values are its authors'."""

    augment: bool = True
    """Train on 22 copies of each shot."""
    prototypes: int = 6
    """Intrinsic normal prototypes per image."""
    blocks: int = 8
    """Of the decoder; even, as they are compared in two halves."""
    mining: float = 3.0
    """Power of the soft mining weights."""
    coherence: float = 0.2
    """Weight of the loss that draws prototypes to the image's tokens."""
    learning_rate: float = 1e-3
    """Highest; reached after the warm-up, then a cosine to a tenth of it."""
    warm_up: int = 100
    """Steps of it."""
    epochs: int = 200
    """Passes over the shots and their copies."""
    batch_size: int = 16
    """Images a step; the last, smaller batch of an epoch is dropped, unless it is the only one."""

    def __post_init__(self) -> None:
        least = {"prototypes": 1, "blocks": 2, "warm_up": 0, "epochs": 1, "batch_size": 1}
        _check(self, least, {})
        if self.blocks % 2:
            raise ConfigError(f"blocks: expected an even number, got {self.blocks}", "use 8")
        for name in ("mining", "coherence"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate: expected above 0, got {self.learning_rate}")


def _check(recipe: Any, least: dict[str, int], choices: dict[str, tuple[str, ...]]) -> None:
    for name, lowest in least.items():
        if getattr(recipe, name) < lowest:
            raise ConfigError(f"{name}: expected {lowest} or more, got {getattr(recipe, name)}")
    for name, known in choices.items():
        value = getattr(recipe, name, known[0])
        if value not in known:
            raise ConfigError(f"{name}: expected one of {', '.join(known)}; got {value!r}")


BASELINES: dict[str, MemoryRecipe | SubspaceRecipe | InpFormerRecipe] = {
    "memory": MemoryRecipe(),
    "subspace": SubspaceRecipe(),
    "inp_former": InpFormerRecipe(),
}
