"""PIRN: tokens rebuilt from a few prototypes; what cannot be rebuilt is the defect.

`paper` is the literal reading of the equations, `default` what runs unless told otherwise; where
the two differ the comment says why, and docs/decisions.md has both beside each other.

Dimension letters: M modalities, B images, N tokens, C channels, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Unpack

from jax import Array
from jaxtyping import Float
from tyro.conf import Suppress

from pirn_jax.decoder import DISTANCES, Params, Tokens, abstract_params, merge
from pirn_jax.decoder.config import DecoderConfig, LossConfig
from pirn_jax.encoder import Encoder
from pirn_jax.geometry.augmentation import Augmentations, jitter, photometric
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.settings import MethodSettings
from pirn_jax.training import Trained, TrainingJob, train
from pirn_jax.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Recipe(TrainingRecipe, MethodSettings):
    """One way to build, train and use the decoder."""

    photometric: int = 0
    """Copies of each shot under another light to learn from as well."""
    jitter: int = 0
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""
    epochs_all: Annotated[int, Suppress] = 60
    """Passes where all good scans there are are learned from."""

    def __post_init__(self) -> None:
        TrainingRecipe.__post_init__(self)
        MethodSettings.__post_init__(self)
        self.at_least(photometric=0, jitter=0, epochs_all=1)

    def for_detector(self, modalities: tuple[str, ...], solver: str) -> Recipe:
        """The decoder is built for the detector's streams and solver."""
        return replace(self, decoder=replace(self.decoder, modalities=modalities, solver=solver))

    def for_shots(self, shots: int) -> dict[str, object]:
        """Fewer epochs with all shots."""
        return {} if shots else {"epochs": self.epochs_all}

    def augmentations(self) -> Augmentations:
        """Copies under another light, then jittered ones."""
        return photometric(self.photometric) + jitter(self.jitter)

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Pirn:
        """The decoder, for tokens of that encoder."""
        return Pirn(self.for_detector(modalities, self.decoder.solver), encoder.config.width)


@dataclass(frozen=True)
class Pirn:
    """The prototype decoder.

    Attributes:
        recipe: how it is built and trained; only what it is built as is part of how it judges.
        channels: C of the tokens.
    """

    recipe: Recipe = field(compare=False)
    channels: int
    decoder: DecoderConfig = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", self.recipe.decoder)

    def learn(self, jobs: Sequence[TrainingJob], **options: Unpack[LearnOptions]) -> list[Trained]:
        """Train a decoder for each job."""
        return train(jobs, self.recipe, **options)

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"]]:
        """The decoder's distance of each token to what it makes of it."""
        graph, _, _ = abstract_params(self.decoder, self.channels)
        rebuilt = merge(graph, parameters, statistics)(tokens)
        distance = DISTANCES[self.decoder.distance]
        return distance(rebuilt.target, rebuilt.values), rebuilt.diagnostics.usage[-1]

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        _, parameters, statistics = abstract_params(self.decoder, self.channels)
        return parameters, statistics


# The reasons in `default` are measured: experiments/results/recipe.md.
RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        foreground="all",
        view="frame",
        encoder="dinov2-base",
        geometry="open3d",
        epochs_all=8,
    ),
    "default": Recipe(
        decoder=DecoderConfig(
            # Each image on its own mean (its light is not its defect), each channel at its own
            # scale: raw ViT outputs share a strong mean and a few outlier channels.
            token_scale="standardise_image",
            # The length of a token says much of what is odd: cosines lose it.
            distance="squared",
            prototype_init="kmeans++",
            attention=True,
            heads=0,
            mlp_ratio=4,
            update_bias=2.0,
            # The whole of Z' copies anomalies through; none of it rebuilds too little.
            mnc_residual="bottleneck",
            # 5 parts are too few to find from nothing what a subspace finds in closed form.
            bottleneck_init="principal",
        ),
        loss=LossConfig(form="mean", exponent=0.0),
        learning_rate=2e-3,
        schedule="cosine",
        # As strong as the tokens themselves. The best denoiser gives their mean weighed by
        # nearness, a soft nearest neighbour; training from so few moves towards it.
        noise=1.0,
        # No part lies twice in the same place. Copies under another light gained nothing.
        jitter=4,
        top=0.01,
    ),
}
