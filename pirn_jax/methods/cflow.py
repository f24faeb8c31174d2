"""CFlow: how likely a token is where it stands, by a normalising flow told the position.

    z, log|det J| = f(x; position)        a chain of K blocks
    log p(x) = log N(z; 0, I) + log|det J|
    loss = -mean log sigmoid(log p(x) / C)
    d(x) = max(0, -log p(x) / C - floor)

A block lets half of the channels be scaled and shifted by what a net reads from the other half and
the position, then scales and shifts every channel by itself, and rotates all of them by a fixed
matrix. `floor` is the least -log p / C of the shots' own tokens, so that a token that is as likely
as can be has distance 0.

|                | published                                          | here                      |
|----------------|----------------------------------------------------|---------------------------|
| tokens         | three stages of WideResNet-50, a flow each         | the encoder's, one flow   |
| scale          | raw                                                | `standardise`             |
| flow           | 8 blocks, nets of one hidden layer twice as wide   | the same                  |
|                | as their input, log-scales in ±1.9                 |                           |
| position       | 128 channels of sines and cosines                  | the same                  |
| training       | Adam, 25 x 8 epochs of steps of 256 tokens; rate   | `steps` of 256 tokens;    |
|                | 2e-4 after a warm-up of 2 in 25, then a cosine to  | the same rates over them  |
|                | a thousandth                                       |                           |
| few shots      | no step: the last batch, of fewer than 32 images,  | all steps                 |
|                | is dropped                                         |                           |
| which epoch    | the best on the test set                           | the last                  |
| map            | sum over stages of exp(log p / C), measured from   | -log p / C, each token by |
|                | the largest of the test set, turned round          | itself                    |
| modalities     | one                                                | a flow each, maps summed  |

Source: Gudovskiy et al. 2022 (CFLOW-AD, arXiv 2107.12571) and its released code; its blocks are
those of FrEIA (`AllInOneBlock`).

Dimension letters: M modalities, B images, N tokens, C channels, P channels of a position, K blocks,
T tokens.
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
from pirn_jax.methods.descent import DescentSettings, Learner, Report, descend, tokens_of
from pirn_jax.methods.flow import affine, clamp_tanh, positions, rotations, standard_normal
from pirn_jax.methods.layers import create_linear, linear, product
from pirn_jax.methods.scaling import check_widths, scaled, statistics_shapes
from pirn_jax.training import TrainingJob

MOST = 1.9  # of a log-scale
DAMPED = 0.1  # times what a net says, so that blocks start near the identity
SCALE_ONE = float(2 * np.log(np.expm1(5.0)))  # where `_positive` is 1
PIECE = 1024  # tokens judged at once where the floor is looked for


@dataclass(frozen=True)
class CFlowSettings(DescentSettings):
    """CFlow; the values are its authors' where the module's table does not say otherwise."""

    blocks: int = 8
    """K, of the flow."""
    position_channels: int = 128
    """P, of the sines and cosines; a multiple of 4."""
    batch_size: int = 256
    """Tokens a step."""
    learning_rate: float = 2e-4
    """Highest; up from a tenth in a twelfth of the steps, then a cosine to a thousandth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(blocks=1, position_channels=4)
        self.multiple_of_four("position_channels")

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> CFlow:
        """The flows, for tokens of that encoder.

        Raises:
            ConfigError: its modalities have different numbers of channels.
        """
        check_widths("cflow", modalities, encoder)
        return CFlow(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": CFlowSettings()}


def create(channels: int, blocks: int, position: int, key: PRNGKeyArray) -> Params:
    """A flow; every array leads with the block."""
    changed = channels // 2
    inputs = channels - changed + position

    def block(key: PRNGKeyArray) -> Params:
        one, two = jax.random.split(key)
        return {
            "fc1": create_linear(one, inputs, 2 * inputs),
            "fc2": create_linear(two, 2 * inputs, 2 * changed),
            "scale": jnp.full(channels, SCALE_ONE),
            "shift": jnp.zeros(channels),
        }

    return jax.vmap(block)(jax.random.split(key, blocks))


def forward(
    parameters: Params,
    turns: Float[Array, "K C C"],
    x: Float[Array, "T C"],
    position: Float[Array, "T P"],
) -> tuple[Float[Array, "T C"], Float[Array, " T"]]:
    """What the flow makes of tokens, and its log-determinant."""
    kept = x.shape[-1] - x.shape[-1] // 2

    def block(
        state: tuple[Array, Array], layer: tuple[Params, Array]
    ) -> tuple[tuple[Array, Array], None]:
        (x, before), (own, turn) = state, layer
        passive, active = x[:, :kept], x[:, kept:]
        hidden = jax.nn.relu(linear(own["fc1"], jnp.concatenate([passive, position], -1)))
        told = DAMPED * linear(own["fc2"], hidden)
        active, log_scale = affine(active, told, partial(clamp_tanh, most=MOST))
        scale = _positive(own["scale"])
        x = jnp.concatenate([passive, active], -1) * scale[None] + own["shift"][None]
        return (product(x, turn.T), before + log_scale + jnp.log(scale).sum()), None

    start = (x, jnp.zeros(len(x), x.dtype))
    return jax.lax.scan(block, start, (parameters, turns))[0]


def _positive(x: Array) -> Array:
    """A tenth of softplus with β = 1/2."""
    return 0.2 * jax.nn.softplus(0.5 * x)


def unlikelihood(
    parameters: Params,
    turns: Float[Array, "K C C"],
    x: Float[Array, "T C"],
    position: Float[Array, "T P"],
) -> Float[Array, " T"]:
    """-log p / C."""
    return -standard_normal(*forward(parameters, turns, x, position))


class Loss(NamedTuple):
    """The likelihood's loss, with its optimizer."""

    grid: tuple[int, int]
    position_channels: int
    learning_rate: float
    steps: int

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The sum over modalities: their flows do not meet."""
        del key
        position = jnp.asarray(positions(self.grid, self.position_channels))[batch["places"]]
        tokens = batch["tokens"].swapaxes(0, 1)
        unlikely = jax.vmap(unlikelihood, (0, None, 0, None))(
            parameters, statistics["rotations"], tokens, position
        )
        return jax.nn.softplus(unlikely).mean(-1).sum()

    def optimizer(self) -> optax.GradientTransformation:
        """Adam, its rate up in a line and down in a cosine."""
        high = self.learning_rate
        rate = optax.warmup_cosine_decay_schedule(
            high / 10, high, 2 * self.steps // 25, self.steps, high / 1000
        )
        return optax.adam(rate)


@dataclass(frozen=True)
class CFlow(Learner):
    """A conditional flow for each modality; fields as of `Learner`."""

    settings: CFlowSettings

    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "M T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """Descent, then the floor."""
        own = self.settings
        turns = jnp.asarray(rotations(job.seed, own.blocks, self.channels))
        loss = Loss(self.grid, own.position_channels, own.learning_rate, own.steps)
        items = tokens_of(job, tokens)
        parameters = self._create(job.seed)
        parameters = descend(loss, parameters, {"rotations": turns}, items, own, job, report)
        values = items.values["tokens"], items.values["places"]
        floors = [
            least(loss, parameters, turns, *(part[start : start + PIECE] for part in values))
            for start in range(0, len(values[1]), PIECE)
        ]
        return parameters, {"rotations": turns, "floor": np.min(floors, 0)}

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """How unlikely each token is where it stands, in nats a channel."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        m, b, n, c = x.shape
        position = jnp.asarray(positions(self.grid, self.settings.position_channels))
        everywhere = jnp.tile(position, (b, 1))
        unlikely = jax.vmap(unlikelihood, (0, None, 0, None))(
            parameters, jnp.asarray(statistics["rotations"]), x.reshape(m, b * n, c), everywhere
        )
        floor = jnp.asarray(statistics["floor"])[:, None, None]
        return jnp.maximum(unlikely.reshape(m, b, n) - floor, 0.0), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        m, c = self.modalities, self.channels
        more = {
            "rotations": jax.ShapeDtypeStruct((self.settings.blocks, c, c), jnp.float32),
            "floor": jax.ShapeDtypeStruct((m,), jnp.float32),
        }
        scale = statistics_shapes(self.settings.scale, m, c)
        return jax.eval_shape(lambda: self._create(0)), scale | more

    def _create(self, seed: int) -> Params:
        keys = jax.random.split(jax.random.key(seed), self.modalities)
        own = self.settings
        return _create_streams(self.channels, own.blocks, own.position_channels, keys)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _create_streams(channels: int, blocks: int, position: int, keys: Array) -> Params:
    return jax.vmap(partial(create, channels, blocks, position))(keys)


@partial(jax.jit, static_argnums=0)
def least(
    loss: Loss,
    parameters: Params,
    turns: Float[Array, "K C C"],
    tokens: Float[Array, "T M C"],
    places: Array,
) -> Float[Array, " M"]:
    """The least -log p / C of tokens, by modality."""
    position = jnp.asarray(positions(loss.grid, loss.position_channels))[places]
    judged = jax.vmap(unlikelihood, (0, None, 0, None))
    return judged(parameters, turns, tokens.swapaxes(0, 1), position).min(-1)
