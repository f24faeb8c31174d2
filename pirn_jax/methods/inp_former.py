"""INP-Former, one for each modality, trained as its authors train it.

The network is in `inp_former_network`. The loss is the soft mining loss of `pirn_jax.decoder.loss`
averaged over both groups of layers, plus 0.2 of the mean distance of tokens to their nearest
prototype (coherence).

|                | published (few-shot)                             | here                         |
|----------------|--------------------------------------------------|------------------------------|
| encoder layers | 3-10 of 12, 5, 7, … 19 of 24, in two groups      | the same; that share of      |
|                |                                                  | another depth, or `--layers` |
| copies         | 22 of each shot (turned, shifted, mirrored, grey)| the same; normals' vectors   |
|                |                                                  | turn with the picture        |
| training       | 200 epochs of batches of 16, one model for all   | the same, one per category;  |
|                | categories; StableAdamW, AMSGrad, decay 1e-4,    | a batch of all where there   |
|                | gradients clipped to 0.1, rate 0 → 1e-3 in 100   | are fewer than 16            |
|                | steps, then a cosine to 1e-4                     |                              |
| initialisation | N(0, 0.01) cut at 3 sigma, prototypes N(0, 1)    | the same                     |
| map            | groups averaged, bilinear with corners aligned,  | groups averaged, then as all |
|                | resized to 256, 5x5 box of a Gaussian            | methods here                 |
| image score    | mean of the largest 1 %                          | the same (`top`)             |
| pictures       | 448, centre 392                                  | as all methods here          |
| background     | part of the image                                | the same in training; 0 in   |
|                |                                                  | the map, as in all methods   |

`augment=False` trains on the shots alone. The steps are one compiled `lax.scan`, the modalities
side by side, job after job: on a CPU the products of matrices are all the time there is, so that
stacking jobs would not shorten it. Nothing is checkpointed, and one device does it.

Source: Luo et al. 2025 (INP-Former, arXiv 2503.02424) and its released few-shot code; PIRN, Table 1
(two streams, maps summed).

Dimension letters: M modalities, S images, N tokens, C channels of a group, G groups, T steps, B
images of a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import KeyPath
from jaxtyping import Float, Int

from pirn_jax.decoder import Params, Tokens
from pirn_jax.decoder.config import LossConfig
from pirn_jax.decoder.distance import cosine_distance
from pirn_jax.decoder.loss import stream_loss
from pirn_jax.encoder import Blocks, Encoder
from pirn_jax.errors import ConfigError, PirnError
from pirn_jax.geometry.augmentation import Augmentation, Augmentations
from pirn_jax.methods.inp_former_network import GROUPS, Size, create_streams, forward
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.settings import MethodSettings
from pirn_jax.training import HistoryLine, Trained, TrainingJob
from pirn_jax.training.batches import stretches

LARGEST_GRADIENT = 0.1
DECAY, MOMENT1, MOMENT2, SMALLEST = 1e-4, 0.9, 0.999, 1e-10  # of StableAdamW
LAST_RATE = 0.1  # of the highest


@dataclass(frozen=True)
class InpFormerSettings(MethodSettings):
    """INP-Former; the values are its authors'."""

    top: float = 0.01
    """Image score: mean of this share of the map's largest values; 0: the largest."""
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
        super().__post_init__()
        self.at_least(prototypes=1, blocks=2, warm_up=0, epochs=1, batch_size=1)
        if self.blocks % 2:
            raise ConfigError(f"blocks: expected an even number, got {self.blocks}", "use 8")
        for name in ("mining", "coherence"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate: expected above 0, got {self.learning_rate}")

    def encoder_layers(self) -> Blocks:
        """Eight blocks in two groups."""
        return Blocks(layers_of, GROUPS)

    def augmentations(self) -> Augmentations:
        """The 21 copies beside each shot, or none."""
        return authors_augmentations() if self.augment else ()

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> InpFormer:
        """The networks, for tokens of that encoder."""
        return InpFormer(len(modalities), encoder.config.width, encoder.config.heads, self)


RECIPES = {"default": InpFormerSettings()}


def layers_of(depth: int) -> tuple[int, ...]:
    """The encoder's layers, counted from 1: published for 12 and 24, that share of other depths."""
    if depth == 24:
        return tuple(range(5, 20, 2))
    return tuple(round(layer * depth / 12) for layer in range(3, 11))


def authors_augmentations() -> Augmentations:
    """The 21 copies that INP-Former trains on beside each shot."""
    sixteenth = 180 / 16
    steps = (-4, -3, -2, -1, 1, 2, 3, 4)
    turned = [Augmentation("move", sixteenth * n, reflect=True) for n in steps]
    shifted = [
        Augmentation("move", shift=(down, right), reflect=True)
        for size in (0.2, 0.1)
        for down, right in itertools.product((size, -size), repeat=2)
    ]
    quarters = [Augmentation("move", 90.0 * n) for n in (1, 2, 3)]
    mirrored = Augmentation("move", mirror=True)
    return (*turned, *shifted, mirrored, Augmentation("grey"), *quarters)


class Moments(NamedTuple):
    """StableAdamW's memory, of the shape of the parameters."""

    mean: Params
    square: Params
    largest: Params


def stable_adamw(
    parameter: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    largest: Array,
    rate: Array,
    step: Array,
) -> tuple[Array, Array, Array, Array]:
    """AdamW with AMSGrad for one tensor, its step shortened where the gradient surprises.

    The step is divided by the root mean square of gradient / denominator where that is above 1.

    Args:
        parameter: the tensor.
        gradient: of it.
        mean: of gradients so far.
        square: mean of their squares.
        largest: AMSGrad's, the largest of these means.
        rate: of this step.
        step: counted from 1.

    Returns:
        The tensor and the three moments after the step.
    """
    parameter = parameter * (1 - rate * DECAY)
    mean = MOMENT1 * mean + (1 - MOMENT1) * gradient
    square = MOMENT2 * square + (1 - MOMENT2) * gradient * gradient
    largest = jnp.maximum(largest, square)
    denominator = jnp.sqrt(largest) / jnp.sqrt(1 - MOMENT2**step) + SMALLEST
    surprise = jnp.sqrt(jnp.mean((gradient / denominator) ** 2))
    size = rate / (1 - MOMENT1**step) / jnp.maximum(1.0, surprise)
    return parameter - size * mean / denominator, mean, square, largest


def clipped(gradient: Params) -> Params:
    """Scaled down to the largest norm allowed, of all tensors together."""
    norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(gradient)))
    factor = jnp.minimum(1.0, LARGEST_GRADIENT / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradient)


def rates(recipe: InpFormerSettings, steps: int) -> Float[np.ndarray, " T"]:
    """The learning rate of each step: from 0 up in a line, then down along a cosine."""
    high, low = recipe.learning_rate, LAST_RATE * recipe.learning_rate
    rest = max(0, steps - recipe.warm_up)
    fall = low + 0.5 * (high - low) * (1 + np.cos(np.pi * np.arange(rest) / max(1, rest)))
    rise = np.linspace(0, high, recipe.warm_up)
    return np.concatenate([rise, fall])[:steps].astype(np.float32)


class Loss(NamedTuple):
    """All that a step's program depends on: two fields of the recipe, and the heads."""

    mining: float
    coherence: float
    heads: int

    def __call__(self, parameters: Params, tokens: Float[Array, "B N GC"]) -> Array:
        """Soft mining, averaged over the groups, and coherence."""
        targets, rebuilt, coherence = forward(parameters, tokens, self.heads)
        mining = LossConfig("flattened", self.mining)
        each = [stream_loss(targets[g], rebuilt[g], mining) for g in range(GROUPS)]
        return sum(each[1:], start=each[0]) / GROUPS + self.coherence * coherence


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_steps(
    loss: Loss,
    state: tuple[Params, Moments],
    tokens: Float[Array, "M S N GC"],
    indices: Int[Array, "T B"],
    rate: Float[Array, " T"],
    step: Float[Array, " T"],
) -> tuple[tuple[Params, Moments], Float[Array, "T M"]]:
    """Many steps of the modalities' networks: the state after, and each loss before each step."""

    def update(
        state: tuple[Params, Moments], images: Array, rate: Array, step: Array
    ) -> tuple[tuple[Params, Moments], Array]:
        parameters, moments = state
        value, gradient = jax.value_and_grad(loss)(parameters, images)

        def each(path: KeyPath, *tensors: Array) -> tuple[Array, ...]:
            change = partial(stable_adamw, rate=rate, step=step)
            # Blocks are tensors of their own, though they lie stacked.
            return (jax.vmap(change) if path[0].key == "decoder" else change)(*tensors)

        new = jax.tree.map_with_path(each, parameters, clipped(gradient), *moments)
        changed, *moved = jax.tree.transpose(jax.tree.structure(parameters), None, new)
        return (changed, Moments(*moved)), value

    def take(
        state: tuple[Params, Moments], chosen: tuple[Array, Array, Array]
    ) -> tuple[tuple[Params, Moments], Array]:
        places, rate, step = chosen
        return jax.vmap(update, (0, 0, None, None))(state, tokens[:, places], rate, step)

    return jax.lax.scan(take, state, (indices, rate, step))


@dataclass(frozen=True)
class InpFormer:
    """An INP-Former for each modality.

    Attributes:
        modalities: M, how many streams.
        channels: C of a group; tokens have those of all groups side by side.
        heads: of all attentions: the encoder's.
        settings: of training; no part of how it judges.
    """

    modalities: int
    channels: int
    heads: int
    settings: InpFormerSettings = field(compare=False)

    def learn(self, jobs: Sequence[TrainingJob], **options: Unpack[LearnOptions]) -> list[Trained]:
        """Train each job's networks, one job after the other.

        Raises:
            PirnError: a loss that is not finite.
        """
        # Filled up to one number of images, so that one program serves all.
        most = max(job.shots.values.shape[1] for job in jobs)
        progress, epochs = options.get("progress"), self.settings.epochs
        trained: list[Trained] = []
        for job in jobs:

            def report(line: HistoryLine, before: int = len(trained) * epochs) -> None:
                if progress is not None:
                    progress(before + line["epoch"], epochs * len(jobs), {line["job"]: line})

            trained.append(self._train(job, most, report))
        return trained

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """1 - cos of tokens and what was made of them, the mean of the groups."""
        del statistics

        def stream(parameters: Params, tokens: Array) -> Array:
            targets, rebuilt, _ = forward(parameters, tokens, self.heads)
            return jax.vmap(cosine_distance)(targets, rebuilt).mean(0)

        return jax.vmap(stream)(parameters, jnp.asarray(tokens.values)), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        return jax.eval_shape(lambda: self._create(0)), {}

    def _create(self, seed: int) -> Params:
        keys = jax.random.split(jax.random.key(seed), self.modalities)
        size = Size(self.settings.prototypes, self.settings.blocks, self.channels, self.heads)
        return create_streams(size, keys)

    def _train(self, job: TrainingJob, most: int, report: Callable[[HistoryLine], None]) -> Trained:
        recipe = self.settings
        streams = np.asarray(job.shots.values)
        images = streams.shape[1]
        tokens = jnp.asarray(streams[:, np.arange(most) % images])
        size = min(images, recipe.batch_size)
        steps = images // size  # of an epoch
        rate = rates(recipe, recipe.epochs * steps)
        parameters = self._create(job.seed)
        state = (parameters, Moments(*(jax.tree.map(jnp.zeros_like, parameters) for _ in range(3))))
        history: list[HistoryLine] = []
        for start, stop in stretches(recipe.epochs):
            orders = [_order(job.seed, epoch, images, size) for epoch in range(start, stop)]
            taken = np.arange(start * steps, stop * steps)
            state, losses = run_steps(
                Loss(recipe.mining, recipe.coherence, self.heads),
                state,
                tokens,
                jnp.asarray(np.concatenate(orders), jnp.int32),
                jnp.asarray(rate[taken]),
                jnp.asarray(taken + 1, jnp.float32),
            )
            means = np.asarray(losses).reshape(stop - start, -1).mean(1)
            for epoch, loss in enumerate(means, start + 1):
                if not np.isfinite(loss):
                    raise PirnError(
                        f"{job.name}: the loss of epoch {epoch} is {loss}",
                        "lower the learning rate",
                    )
                history.append(
                    HistoryLine(job=job.name, epoch=epoch, step=epoch * steps, loss=float(loss))
                )
            report(history[-1])
        return Trained(job.name, jax.tree.map(np.array, state[0]), {}, history)


def _order(seed: int, epoch: int, images: int, size: int) -> Int[np.ndarray, "T B"]:
    """The images of each step of an epoch; what is left over is dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(images)
    return order[: images // size * size].reshape(-1, size)
