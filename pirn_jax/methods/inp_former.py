"""INP-Former, one for each modality: the decoder may only use what the image's own tokens share.

A few prototypes gather what is common to an image's tokens x (cross-attention, once per image); a
decoder then rebuilds the tokens from these prototypes alone. With h heads and LayerNorm LN:

    P   = aggregate(learned prototypes, x)            softmax cross-attention and MLP, residual
    x_0 = MLP(x)                                       the bottleneck
    y   = relu(s_h cos(q(LN x_i), k(LN P))) v(LN P)    no softmax, and no residual: no way round P
    x_i+1 = y + MLP(LN y)

The encoder's layers are compared in two groups, with the decoder's blocks in reverse: the mean of
the earlier half of the layers with that of the later half of the blocks. The loss is the soft
mining loss of `pirn_jax.decoder.loss` averaged over both, plus 0.2 of the mean distance of tokens
to their nearest prototype (coherence).

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
| image score    | mean of the largest 1 %                          | the same (`--top 0.01`)      |
| pictures       | 448, centre 392                                  | as all methods here          |
| background     | part of the image                                | the same in training; 0 in   |
|                |                                                  | the map, as in all methods   |

`augment=False` trains on the shots alone. The steps are one compiled `lax.scan`, the modalities
side by side, job after job: on a CPU the products of matrices are all the time there is, so that
stacking jobs would not shorten it. Nothing is checkpointed, and one device does it.

Source: Luo et al. 2025 (INP-Former, arXiv 2503.02424) and its released few-shot code; PIRN, Table 1
(two streams, maps summed).

Dimension letters: M modalities, S images, N tokens, C channels of a group, G groups, K prototypes,
T steps, B images of a step, H heads, D channels per head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from pirn_jax.decoder.loss import stream_loss
from pirn_jax.errors import PirnError
from pirn_jax.recipes import InpFormerRecipe, LossConfig
from pirn_jax.scoring import token_distance
from pirn_jax.training import Job, Trained
from pirn_jax.training.loop import stretches

GROUPS = 2
NORM_EPSILON = 1e-8
LARGEST_GRADIENT = 0.1
DECAY, MOMENT1, MOMENT2, SMALLEST = 1e-4, 0.9, 0.999, 1e-10  # of StableAdamW
LAST_RATE = 0.1  # of the highest

Parameters = dict[str, Any]


def layers_of(depth: int) -> tuple[int, ...]:
    """The encoder's layers, counted from 1: published for 12 and 24, that share of other depths."""
    if depth == 24:
        return tuple(range(5, 20, 2))
    return tuple(round(layer * depth / 12) for layer in range(3, 11))


# The network


class Size(NamedTuple):
    """Of a network: K, the decoder's blocks, C and H."""

    prototypes: int
    blocks: int
    channels: int
    heads: int


def create(size: Size, key: PRNGKeyArray) -> Parameters:
    """Parameters before training; those of the decoder's blocks lead with the block."""
    c, keys = size.channels, iter(jax.random.split(key, 16))

    def linear(inputs: int, outputs: int, *lead: int) -> Parameters:
        drawn = jax.random.truncated_normal(next(keys), -3.0, 3.0, (*lead, inputs, outputs))
        return {"kernel": 0.01 * drawn, "bias": jnp.zeros((*lead, outputs))}

    def norm(*lead: int) -> Parameters:
        return {"scale": jnp.ones((*lead, c)), "bias": jnp.zeros((*lead, c))}

    def block(*lead: int) -> Parameters:
        return {
            "norm1": norm(*lead),
            "query": linear(c, c, *lead),
            "key_value": linear(c, 2 * c, *lead),
            "out": linear(c, c, *lead),
            "norm2": norm(*lead),
            "enter": linear(c, 4 * c, *lead),
            "leave": linear(4 * c, c, *lead),
        }

    return {
        "prototypes": jax.random.normal(next(keys), (size.prototypes, c)),
        "aggregation": block(),
        "bottleneck": {"enter": linear(c, 4 * c), "leave": linear(4 * c, c)},
        "decoder": block(size.blocks) | {"sharpness": jnp.ones((size.blocks, size.heads))},
    }


@partial(jax.jit, static_argnums=0)
def create_streams(size: Size, keys: Array) -> Parameters:
    """`create` for each key; every leaf leads with it."""
    return jax.vmap(partial(create, size))(keys)


def forward(
    parameters: Parameters, tokens: Float[Array, "B N GC"], heads: int
) -> tuple[Float[Array, "G B N C"], Float[Array, "G B N C"], Float[Array, ""]]:
    """The tokens of each group, what the decoder makes of them, and the coherence loss."""
    targets = jnp.stack(jnp.split(tokens, GROUPS, axis=-1))
    mean = targets.mean(0)
    prototypes = jnp.broadcast_to(
        parameters["prototypes"][None], (len(mean), *parameters["prototypes"].shape)
    )
    prototypes = aggregate(parameters["aggregation"], prototypes, mean, heads)
    coherence = (1.0 - unit(mean) @ unit(prototypes).swapaxes(-1, -2)).min(-1).mean()
    bottleneck = parameters["bottleneck"]

    def decode(x: Array, block: Parameters) -> tuple[Array, Array]:
        x = rebuild(block, x, prototypes, heads)
        return x, x

    _, outputs = jax.lax.scan(decode, mlp(bottleneck, mean), parameters["decoder"])
    reverse = outputs[::-1]
    rebuilt = reverse.reshape(GROUPS, -1, *reverse.shape[1:]).mean(1)
    return targets, rebuilt, coherence


def aggregate(
    block: Parameters, prototypes: Float[Array, "B K C"], x: Float[Array, "B N C"], heads: int
) -> Float[Array, "B K C"]:
    """Prototypes that gather what the tokens share."""
    q, k, v = attend(block, prototypes, x, heads)
    weight = jax.nn.softmax(jnp.einsum("bkhd,bnhd->bhkn", q, k) * q.shape[-1] ** -0.5, axis=-1)
    prototypes = prototypes + linear(block["out"], merged(weight, v))
    return prototypes + mlp(block, normalised(block["norm2"], prototypes))


def rebuild(
    block: Parameters, x: Float[Array, "B N C"], prototypes: Float[Array, "B K C"], heads: int
) -> Float[Array, "B N C"]:
    """Tokens made of prototypes, the nearer ones weighing more."""
    q, k, v = attend(block, x, prototypes, heads)
    cosine = jnp.einsum("bnhd,bkhd->bhnk", unit(q), unit(k))
    weight = jax.nn.relu(cosine * block["sharpness"][None, :, None, None])
    y = linear(block["out"], merged(weight, v))
    return y + mlp(block, normalised(block["norm2"], y))


def attend(
    block: Parameters, x: Float[Array, "B X C"], y: Float[Array, "B Y C"], heads: int
) -> tuple[Float[Array, "B X H D"], Float[Array, "B Y H D"], Float[Array, "B Y H D"]]:
    """Queries of x, keys and values of y, both after one and the same LayerNorm."""
    q = linear(block["query"], normalised(block["norm1"], x))
    kv = linear(block["key_value"], normalised(block["norm1"], y))
    k, v = jnp.split(kv, 2, axis=-1)
    q, k, v = (z.reshape(*z.shape[:2], heads, -1) for z in (q, k, v))
    return q, k, v


def merged(weight: Float[Array, "B H X Y"], v: Float[Array, "B Y H D"]) -> Float[Array, "B X C"]:
    """Weighted values, the heads side by side again."""
    mixed = jnp.einsum("bhxy,byhd->bxhd", weight, v)
    return mixed.reshape(*mixed.shape[:2], -1)


def linear(layer: Parameters, x: Float[Array, "B X _"]) -> Float[Array, "B X _"]:
    """X W + b, as one product of matrices."""
    kernel = layer["kernel"]
    flat = x.reshape(-1, x.shape[-1]) @ kernel
    return flat.reshape(*x.shape[:2], -1) + layer["bias"][None, None]


def mlp(layers: Parameters, x: Float[Array, "B X C"]) -> Float[Array, "B X C"]:
    """Two layers around an exact GELU."""
    return linear(layers["leave"], jax.nn.gelu(linear(layers["enter"], x), approximate=False))


def normalised(layer: Parameters, x: Float[Array, "B X C"]) -> Float[Array, "B X C"]:
    """LayerNorm."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
    return scaled * layer["scale"][None, None] + layer["bias"][None, None]


def unit(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """Brought to length 1; its gradient is finite at 0."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-24))


# Training


class Moments(NamedTuple):
    """StableAdamW's memory, of the shape of the parameters."""

    mean: Any
    square: Any
    largest: Any


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


def clipped(gradient: Parameters) -> Parameters:
    """Scaled down to the largest norm allowed, of all tensors together."""
    norm = jnp.sqrt(sum((g * g).sum() for g in jax.tree.leaves(gradient)))
    factor = jnp.minimum(1.0, LARGEST_GRADIENT / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradient)


def rates(recipe: InpFormerRecipe, steps: int) -> Float[np.ndarray, " T"]:
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

    def __call__(self, parameters: Parameters, tokens: Float[Array, "B N GC"]) -> Array:
        """Soft mining, averaged over the groups, and coherence."""
        targets, rebuilt, coherence = forward(parameters, tokens, self.heads)
        mining = LossConfig("flattened", self.mining)
        each = [stream_loss(targets[g], rebuilt[g], mining) for g in range(GROUPS)]
        return sum(each[1:], start=each[0]) / GROUPS + self.coherence * coherence


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_steps(
    loss: Loss,
    state: tuple[Parameters, Moments],
    tokens: Float[Array, "M S N GC"],
    indices: Int[Array, "T B"],
    rate: Float[Array, " T"],
    step: Float[Array, " T"],
) -> tuple[tuple[Parameters, Moments], Float[Array, "T M"]]:
    """Many steps of the modalities' networks: the state after, and each loss before each step."""

    def update(
        state: tuple[Parameters, Moments], images: Array, rate: Array, step: Array
    ) -> tuple[tuple[Parameters, Moments], Array]:
        parameters, moments = state
        value, gradient = jax.value_and_grad(loss)(parameters, images)

        def each(path: Any, *tensors: Array) -> tuple[Array, ...]:
            change = partial(stable_adamw, rate=rate, step=step)
            # Blocks are tensors of their own, though they lie stacked.
            return (jax.vmap(change) if path[0].key == "decoder" else change)(*tensors)

        new = jax.tree.map_with_path(each, parameters, clipped(gradient), *moments)
        changed, *moved = jax.tree.transpose(jax.tree.structure(parameters), None, new)
        return (changed, Moments(*moved)), value

    def take(state: Any, chosen: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        places, rate, step = chosen
        return jax.vmap(update, (0, 0, None, None))(state, tokens[:, places], rate, step)

    return jax.lax.scan(take, state, (indices, rate, step))


@dataclass(frozen=True)
class InpFormer:
    """An INP-Former for each modality.

    Attributes:
        modalities: which streams, in the order of M.
        channels: C of a group; tokens have those of all groups side by side.
        heads: of all attentions: the encoder's.
        recipe: of training; no part of how it judges.
    """

    modalities: tuple[str, ...]
    channels: int
    heads: int
    recipe: InpFormerRecipe = field(compare=False)

    def learn(
        self,
        jobs: Sequence[Job],
        *,
        progress: Callable[[int, int, dict[str, Any]], None] | None = None,
        **_: Any,
    ) -> list[Trained]:
        """Train each job's networks, one job after the other.

        Args:
            jobs: what a job becomes does not depend on the others.
            progress: see `pirn_jax.training.train`.

        Raises:
            PirnError: a loss that is not finite.
        """
        # Filled up to one number of images, so that one program serves all.
        most = max(len(job.shots.valid) for job in jobs)
        trained = []
        for job in jobs:

            def report(
                line: dict[str, Any], before: int = len(trained) * self.recipe.epochs
            ) -> None:
                if progress is not None:
                    total = self.recipe.epochs * len(jobs)
                    progress(before + line["epoch"], total, {line["job"]: line})

            trained.append(self._train(job, most, report))
        return trained

    def distances(
        self,
        parameters: Parameters,
        statistics: Parameters,
        tokens: Float[Array, "M B N GC"],
        valid: Bool[Array, "B N"],
    ) -> tuple[Float[Array, "M B N"], None]:
        """1 - cos of tokens and what was made of them, the mean of the groups."""
        del statistics, valid

        def stream(parameters: Parameters, tokens: Array) -> Array:
            targets, rebuilt, _ = forward(parameters, tokens, self.heads)
            return jax.vmap(token_distance)(targets, rebuilt).mean(0)

        return jax.vmap(stream)(parameters, tokens), None

    def skeleton(self) -> tuple[Parameters, Parameters]:
        """Shapes of parameters and statistics."""
        return jax.eval_shape(lambda: self._create(0)), {}

    def _create(self, seed: int) -> Parameters:
        keys = jax.random.split(jax.random.key(seed), len(self.modalities))
        size = Size(self.recipe.prototypes, self.recipe.blocks, self.channels, self.heads)
        return create_streams(size, keys)

    def _train(self, job: Job, most: int, report: Callable[[dict[str, Any]], None]) -> Trained:
        recipe = self.recipe
        streams = np.stack([np.asarray(getattr(job.shots, name)) for name in self.modalities])
        images = streams.shape[1]
        tokens = jnp.asarray(streams[:, np.arange(most) % images])
        size = min(images, recipe.batch_size)
        steps = images // size  # of an epoch
        rate = rates(recipe, recipe.epochs * steps)
        parameters = self._create(job.seed)
        state = (parameters, Moments(*(jax.tree.map(jnp.zeros_like, parameters) for _ in range(3))))
        history: list[dict[str, Any]] = []
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
                line = {"job": job.name, "epoch": epoch, "step": epoch * steps}
                history.append(line | {"loss": float(loss)})
            report(history[-1])
        return Trained(job.name, None, jax.tree.map(np.array, state[0]), {}, history)


def _order(seed: int, epoch: int, images: int, size: int) -> Int[np.ndarray, "T B"]:
    """The images of each step of an epoch; what is left over is dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(images)
    return order[: images // size * size].reshape(-1, size)
