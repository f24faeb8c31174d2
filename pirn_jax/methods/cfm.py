"""CFM: each modality's token is guessed from the other's; odd is what both fail to guess.

    d = |n(g(y)) - n(x)| · |n(f(x)) - n(y)|          n: brought to length 1

with x a token of the photograph, y the geometry's at the same place, and two small nets f: x → y
and g: y → x, trained by 1 - cos on the shots. The product is large only where both guesses fail,
which suppresses what is odd in one picture alone by chance, and with it a defect that one picture
alone shows but the other guesses well.

|                | published                                          | here                      |
|----------------|----------------------------------------------------|---------------------------|
| tokens         | DINO ViT-B/8 of the photograph, Point-MAE of the   | the encoder's, of the     |
|                | points, per pixel of 224 x 224                     | photograph and of the     |
|                |                                                    | normal map, per token; or |
|                |                                                    | Point-MAE: `features`     |
| scale          | raw, after the last LayerNorm                      | `standardise`             |
| nets           | two hidden layers of (C + D) / 2, GELU             | the same                  |
| training       | Adam 1e-3, 50 epochs (250 for the released         | Adam 1e-3, `steps` of     |
|                | weights) of batches of 4 images                    | `batch_size` tokens       |
| map            | product per pixel, box filters                     | product per token, then   |
|                |                                                    | as all methods here       |
| normalisation  | by each image's own mean, otherwise for AUPRO, for | none                      |
|                | P-AUROC and for the image score                    |                           |
| extractor      | BatchNorm and DropPath of Point-MAE in train mode  | nothing random; the scan's|
|                |                                                    | own BatchNorm: `features` |
|                |                                                    | point-mae-as-published    |
| modalities     | both                                               | both: each one's map is   |
|                |                                                    | half of the product       |

Source: Costanzino et al. 2024 (CFM, arXiv 2312.04521) and its released code; normal maps in place
of points as in CMDS-AD (arXiv 2606.20300).

The published pair of encoders: `--encoder dino-vitb8 --layers 12 --recipe.features point-mae`, with
the weights of both.

Dimension letters: M modalities, B images, N tokens, C channels (D of the other modality), T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from pirn_jax.decoder import Params, Tokens
from pirn_jax.decoder.distance import cosine_distance
from pirn_jax.encoder import Encoder
from pirn_jax.methods.descent import DescentSettings, Learner, Report, descend, tokens_of
from pirn_jax.methods.layers import create_linear, linear
from pirn_jax.methods.scaling import scaled, statistics_shapes
from pirn_jax.training import TrainingJob

LAYERS = ("enter", "inner", "leave")


@dataclass(frozen=True)
class CfmSettings(DescentSettings):
    """CFM; the values are its authors' where the module's table does not say otherwise."""

    needs_both: ClassVar[str | None] = "method cfm guesses one modality from the other"

    learning_rate: float = 1e-3
    """Of Adam."""

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Cfm:
        """The nets, for tokens of that encoder."""
        self.for_detector(modalities, "auto")
        first, second = encoder.widths(modalities)
        return Cfm(self, len(modalities), encoder.grid, encoder.channels, (first, second))


RECIPES = {"default": CfmSettings()}


def create(inputs: int, outputs: int, key: PRNGKeyArray) -> Params:
    """A net from one modality's channels to the other's."""
    inner = (inputs + outputs) // 2
    sizes = zip(LAYERS, ((inputs, inner), (inner, inner), (inner, outputs)), strict=True)
    keys = jax.random.split(key, len(LAYERS))
    return {name: create_linear(key, *size) for (name, size), key in zip(sizes, keys, strict=True)}


def guess(net: Params, x: Float[Array, "*batch C"]) -> Float[Array, "*batch D"]:
    """The other modality's tokens."""
    for name in LAYERS[:-1]:
        x = jax.nn.gelu(linear(net[name], x), approximate=False)
    return linear(net[LAYERS[-1]], x)


def failures(
    nets: Params, first: Float[Array, "*batch C"], second: Float[Array, "*batch D"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """1 - cos of each modality's tokens and what the other makes of them."""
    return (
        cosine_distance(guess(nets["first"], second), first),
        cosine_distance(guess(nets["second"], first), second),
    )


class Loss(NamedTuple):
    """Mean of 1 - cos both ways, with its optimizer."""

    learning_rate: float
    widths: tuple[int, int]

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The sum of both ways."""
        del statistics, key
        tokens = own_channels(batch["tokens"].swapaxes(0, 1), self.widths)
        first, second = failures(parameters, *tokens)
        return first.mean() + second.mean()

    def optimizer(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.learning_rate)


def own_channels(
    tokens: Float[Array, "M *batch C"], widths: tuple[int, int]
) -> tuple[Float[Array, "*batch C"], Float[Array, "*batch D"]]:
    """Each modality's tokens without the zeros that they are filled up with."""
    return tokens[0, ..., : widths[0]], tokens[1, ..., : widths[1]]


@dataclass(frozen=True)
class Cfm(Learner):
    """Two nets, named by the modality whose tokens they make.

    Attributes:
        widths: channels of each modality's tokens; the rest of C is 0. Other fields as of
            `Learner`.
    """

    settings: CfmSettings
    widths: tuple[int, int]

    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "M T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """Descent."""
        loss = Loss(self.settings.learning_rate, self.widths)
        items = tokens_of(job, tokens)
        return descend(loss, self._create(job.seed), {}, items, self.settings, job, report), {}

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """Half of the product for each modality, so that their sum is the product."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        # The distance of unit vectors is √(2 (1 - cos)): half of the product of two of them is
        # √((1 - cos)(1 - cos')).
        first, second = failures(parameters, *own_channels(x, self.widths))
        half = jnp.sqrt(first * second)
        return jnp.stack([half, half]), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        scale = statistics_shapes(self.settings.scale, self.modalities, self.channels)
        return jax.eval_shape(lambda: self._create(0)), scale

    def _create(self, seed: int) -> Params:
        return _create_nets(self.widths, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _create_nets(widths: tuple[int, int], key: PRNGKeyArray) -> Params:
    c, d = widths
    first, second = jax.random.split(key)
    return {"first": create(d, c, first), "second": create(c, d, second)}
