"""SimpleNet: a small net learns to tell the shots' tokens from the same tokens with noise on them.

    a = W x + b                                          the adaptor
    D(a) = v · leaky(norm(U a + u))                      the discriminator; leaky: 0.2 below 0
    loss = mean max(0, m - D(a)) + mean max(0, m + D(a + ε)),  ε ~ N(0, σ²),  m = 0.5
    d(x) = max(0, ceiling - D(a))

Both losses are truncated: what is told apart by the margin m is left alone. `ceiling` is the
largest D of the shots' own tokens, so that a token that is as normal as can be has distance 0.

|                | published                                          | here                      |
|----------------|----------------------------------------------------|---------------------------|
| tokens         | 3x3 means of two stages of WideResNet-50, 1536     | the encoder's, `pool` for |
|                | channels                                           | 3x3 means                 |
| scale          | raw                                                | `standardise`: a ViT's    |
|                |                                                    | channels differ a hundred |
|                |                                                    | times; noise is per one   |
| noise          | σ = 0.015 on features as they are                  | 0.4 on standardised ones: |
|                |                                                    | with 0.015 nothing is     |
|                |                                                    | learned (docs/methods.md) |
| networks       | C → C linear; C → 1024 → 1, BatchNorm, LeakyReLU   | the same                  |
| optimizers     | AdamW 1e-4 (decay 0.01) of the adaptor, Adam 2e-4  | the same; L2 as published |
|                | (L2 1e-5) of the discriminator                     |                           |
| training       | 40 x 4 epochs of batches of 8 images               | `steps` of `batch_size`   |
|                |                                                    | tokens                    |
| which epoch    | the best on the test set                           | the last                  |
| score          | scaled to [0, 1] by the test set's least and       | each image by itself      |
|                | largest                                            |                           |
| modalities     | one                                                | a net each, maps summed   |

Source: Liu et al. 2023 (SimpleNet, arXiv 2303.15140) and its released code.

Dimension letters: M modalities, B images, N tokens, C channels, H hidden channels, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params, Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.errors import ConfigError
from pirn_jax.methods.descent import DescentSettings, Learner, Report, descend, tokens_of
from pirn_jax.methods.layers import (
    Moments,
    batch_norm,
    create_linear,
    create_norm,
    linear,
    moments_of,
    product,
)
from pirn_jax.methods.scaling import scaled, statistics_shapes
from pirn_jax.training import TrainingJob

MARGIN = 0.5
SLOPE = 0.2  # of LeakyReLU below 0
MEASURED = 8192  # tokens that moments are measured on, and that are judged at once for the ceiling


@dataclass(frozen=True)
class SimpleNetSettings(DescentSettings):
    """SimpleNet; the values are its authors' where the module's table does not say otherwise."""

    noise: float = 0.4
    """Standard deviation of the noise on adapted tokens."""
    hidden: int = 1024
    """Channels inside the discriminator."""
    learning_rate: float = 2e-4
    """Of the discriminator; the adaptor has half of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(hidden=1)
        if not self.noise > 0:
            raise ConfigError(f"noise: expected above 0, got {self.noise}", "use 0.4")

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> SimpleNet:
        """The networks, for tokens of that encoder."""
        return SimpleNet(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": SimpleNetSettings()}


def create(channels: int, hidden: int, key: PRNGKeyArray) -> Params:
    """One stream's networks; kernels as Glorot's normal, as published."""
    keys = jax.random.split(key, 5)
    glorot = jax.nn.initializers.glorot_normal()
    adaptor, inner = (
        create_linear(keys[0], channels, channels),
        create_linear(keys[1], channels, hidden),
    )
    return {
        "adaptor": adaptor | {"kernel": glorot(keys[2], (channels, channels))},
        "inner": inner | {"kernel": glorot(keys[3], (channels, hidden))},
        "norm": create_norm(hidden),
        "tail": glorot(keys[4], (hidden, 1))[:, 0],
    }


def inner(parameters: Params, adapted: Float[Array, "T C"]) -> Float[Array, "T H"]:
    """What the discriminator normalises."""
    return linear(parameters["inner"], adapted)


def discriminate(
    parameters: Params, adapted: Float[Array, "T C"], known: Moments | None = None
) -> Float[Array, " T"]:
    """D: large for normal tokens; normalised by these moments, or by the batch's own."""
    hidden = inner(parameters, adapted)
    hidden = batch_norm(parameters["norm"], hidden, moments_of(hidden) if known is None else known)
    return product(jax.nn.leaky_relu(hidden, SLOPE), parameters["tail"][:, None])[:, 0]


class Loss(NamedTuple):
    """The truncated loss, with its optimizers."""

    noise: float
    learning_rate: float

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The sum over modalities: their networks do not meet."""
        del statistics
        tokens = batch["tokens"].swapaxes(0, 1)
        return jax.vmap(self.stream)(parameters, tokens, jax.random.split(key, len(tokens))).sum()

    def stream(
        self, parameters: Params, x: Float[Array, "T C"], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """Of one modality; real and noisy tokens are normalised together."""
        both = real_and_noisy(parameters, x, self.noise, key)
        real, noisy = jnp.split(discriminate(parameters, both), 2)
        return jnp.maximum(0, MARGIN - real).mean() + jnp.maximum(0, MARGIN + noisy).mean()

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW of the adaptor, Adam with L2 of the rest."""
        rest = optax.chain(optax.add_decayed_weights(1e-5), optax.adam(self.learning_rate))
        adaptor = optax.adamw(self.learning_rate / 2, weight_decay=1e-2)
        return optax.partition(
            {"adaptor": adaptor, "rest": rest},
            lambda parameters: {
                name: "adaptor" if name == "adaptor" else "rest" for name in parameters
            },
        )


def real_and_noisy(
    parameters: Params, x: Float[Array, "T C"], noise: float, key: PRNGKeyArray
) -> Float[Array, "TT C"]:
    """Adapted tokens, and behind them the same with noise."""
    real = linear(parameters["adaptor"], x)
    return jnp.concatenate([real, real + noise * jax.random.normal(key, real.shape, real.dtype)])


@dataclass(frozen=True)
class SimpleNet(Learner):
    """An adaptor and a discriminator for each modality; fields as of `Learner`."""

    settings: SimpleNetSettings

    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "M T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """Descent, then the moments that judging normalises by, and the ceiling."""
        own = self.settings
        loss = Loss(own.noise, own.learning_rate)
        parameters = self._create(job.seed)
        parameters = descend(loss, parameters, {}, tokens_of(job, tokens), own, job, report)
        # Filled up, so that one program serves all: the same tokens, nearly equally often.
        count = tokens.shape[1]
        order = np.random.default_rng(job.seed).permutation(count)
        some, *others = np.resize(order, (-(-count // MEASURED), MEASURED))
        known = measure(own.noise, parameters, jnp.asarray(tokens[:, some]))
        ceiling = known["ceiling"]
        for places in others:
            highest = largest(parameters, known, jnp.asarray(tokens[:, places]))
            ceiling = jnp.maximum(ceiling, highest)
        return parameters, known | {"ceiling": ceiling}

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """How much less normal each token looks than the most normal one of the shots."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        m, b, n, c = x.shape
        normal = jax.vmap(judge)(parameters, statistics, x.reshape(m, b * n, c))
        ceiling = jnp.asarray(statistics["ceiling"])[:, None, None]
        return jnp.maximum(ceiling - normal.reshape(m, b, n), 0.0), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        m, hidden = self.modalities, self.settings.hidden
        shapes = {"hidden_mean": (m, hidden), "hidden_variance": (m, hidden), "ceiling": (m,)}
        statistics = {
            name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()
        }
        scale = statistics_shapes(self.settings.scale, m, self.channels)
        return jax.eval_shape(lambda: self._create(0)), scale | statistics

    def _create(self, seed: int) -> Params:
        keys = jax.random.split(jax.random.key(seed), self.modalities)
        return _create_streams(self.channels, self.settings.hidden, keys)


@partial(jax.jit, static_argnums=(0, 1))
def _create_streams(channels: int, hidden: int, keys: Array) -> Params:
    return jax.vmap(partial(create, channels, hidden))(keys)


def judge(parameters: Params, statistics: Params, x: Float[Array, "T C"]) -> Float[Array, " T"]:
    """D of one modality's tokens, by the shots' moments."""
    known = Moments(statistics["hidden_mean"], statistics["hidden_variance"])
    return discriminate(parameters, linear(parameters["adaptor"], x), known)


@partial(jax.jit, static_argnums=0)
def measure(noise: float, parameters: Params, tokens: Float[Array, "M T C"]) -> Params:
    """Moments of real and noisy tokens inside the trained discriminator, and the largest D."""

    def stream(parameters: Params, x: Array) -> Params:
        both = real_and_noisy(parameters, x, noise, jax.random.key(0))
        mean, variance = moments_of(inner(parameters, both))
        known = {"hidden_mean": mean, "hidden_variance": variance}
        return known | {"ceiling": judge(parameters, known, x).max()}

    return jax.vmap(stream)(parameters, tokens)


@jax.jit
def largest(
    parameters: Params, statistics: Params, tokens: Float[Array, "M T C"]
) -> Float[Array, " M"]:
    """The largest D of each modality's tokens."""
    return jax.vmap(judge)(parameters, statistics, tokens).max(-1)
