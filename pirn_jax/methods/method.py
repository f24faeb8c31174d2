"""Detection methods behind one interface, PIRN among them.

A method learns from features of shots, and gives new tokens distances; what lies before (pictures →
tokens) and after (distances → maps → scores) is the same for all. Methods are frozen and compare
equal when they judge alike, so that programs compiled for one serve the other.

Dimension letters: M modalities, B batch, N tokens, C channels, K prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from pirn_jax.baselines import InpFormer, Memory, Subspace, inp_former
from pirn_jax.config import Config
from pirn_jax.decoder import Tokens, merge
from pirn_jax.decoder.layer import squared_distance
from pirn_jax.encoder import Encoder
from pirn_jax.errors import ConfigError
from pirn_jax.geometry.augmentation import Plan, inp_former_copies, nudges, photometric, rotations
from pirn_jax.recipes import DecoderConfig, InpFormerRecipe, MemoryRecipe, Recipe, SubspaceRecipe
from pirn_jax.scoring import token_distance
from pirn_jax.training import Job, Trained, train
from pirn_jax.training.step import skeleton


@runtime_checkable
class Method(Protocol):
    """What a detector needs of a method."""

    def learn(
        self,
        jobs: Sequence[Job],
        *,
        parallel: str = "none",
        checkpoints: Any = None,
        resume: bool = False,
        save_seconds: float = 60.0,
        progress: Callable[[int, int, dict[str, Any]], None] | None = None,
    ) -> list[Trained]:
        """Learn every job, each by itself; see `pirn_jax.training.train`.

        Parameters and statistics are trees of dicts of arrays.
        """
        ...

    def distances(
        self, parameters: Any, statistics: Any, tokens: Float[Array, "M B N C"], valid: Any
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"] | None]:
        """How odd each token is, >= 0, and the share of the tokens each prototype answers for.

        Pure, and each image by itself. Distances of tokens that are not valid are not looked at.
        """
        ...

    def skeleton(self) -> tuple[Any, Any]:
        """Parameters and statistics as shapes, in which -1 is any size."""
        ...


@dataclass(frozen=True)
class Prototypes:
    """PIRN.

    Attributes:
        decoder: see DecoderConfig.
        channels: C of the tokens.
        recipe: how the decoder is trained; no part of how it judges.
    """

    decoder: DecoderConfig
    channels: int
    recipe: Recipe = field(compare=False)

    def learn(self, jobs: Sequence[Job], **options: Any) -> list[Trained]:
        """Train a decoder for each job."""
        return train(jobs, self.recipe, **options)

    def distances(
        self,
        parameters: Any,
        statistics: Any,
        tokens: Float[Array, "M B N C"],
        valid: Bool[Array, "B N"],
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"]]:
        """The decoder's distance of each token to what it makes of it."""
        graph, _, _ = skeleton(self.decoder, self.channels)
        names = self.decoder.modalities
        given = Tokens(**{name: tokens[place] for place, name in enumerate(names)})
        rebuilt = merge(graph, parameters, statistics)(given, valid)
        compare = token_distance if self.decoder.distance == "cosine" else squared_distance
        each = [compare(getattr(rebuilt.target, n), getattr(rebuilt, n)) for n in names]
        return jnp.stack(each), rebuilt.diagnostics.usage[-1]

    def skeleton(self) -> tuple[Any, Any]:
        """Shapes of parameters and statistics."""
        _, parameters, statistics = skeleton(self.decoder, self.channels)
        return parameters, statistics


def find_method(config: Config, encoder: Encoder) -> Method:
    """The method of a config, for tokens of that encoder.

    Raises:
        ConfigError: the encoder's layers are grouped as another method needs them.
    """
    recipe, names, channels = config.resolved_recipe(), config.modalities, encoder.config.width
    if encoder.groups != layers_of(config)[1]:
        raise ConfigError(
            f"method {config.method} with an encoder of {encoder.groups} groups of layers",
            "load it with open_encoder(config)",
        )
    if isinstance(recipe, InpFormerRecipe):
        return InpFormer(names, channels, encoder.config.heads, recipe)
    if isinstance(recipe, MemoryRecipe):
        return Memory(recipe, names, encoder.grid, channels)
    if isinstance(recipe, SubspaceRecipe):
        return Subspace(recipe, names, encoder.grid, channels)
    return Prototypes(recipe.decoder, channels, recipe)


def layers_of(config: Config) -> tuple[Any, int]:
    """The encoder's layers as `load_encoder` takes them, and in how many groups."""
    if config.method != "inp_former":
        return config.layers, 1
    return config.layers or inp_former.layers_of, inp_former.GROUPS


def plan_of(config: Config) -> Plan:
    """Which copies of the shots a config learns from, beside the shots themselves."""
    recipe = config.resolved_recipe()
    if isinstance(recipe, InpFormerRecipe):
        return inp_former_copies() if recipe.augment else ()
    plan = photometric(recipe.copies) + nudges(recipe.nudges)
    return plan if isinstance(recipe, Recipe) else plan + rotations(recipe.rotations)
