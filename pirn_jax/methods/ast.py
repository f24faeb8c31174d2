"""AST, the asymmetric student and teacher: where a student misses what a flow makes of tokens.

    teacher: normalising flow t, trained on  -log p(x) / C  of the shots
    student: convolutional net s, then trained on  mean |s(x) - t(x)|²
    d(x) = |s(x) - t(x)|² / C

Both see the tokens of all modalities side by side, and the position. A flow is a bijection: what is
odd stays odd in its output, and a net of another kind has no way to guess it.

|                | published                                          | here                      |
|----------------|----------------------------------------------------|---------------------------|
| input          | 304 channels of EfficientNet-B5 at 768, and 8 x 8  | the encoder's tokens of   |
|                | depths of a cell: 24 x 24 x 368                    | all modalities            |
| scale          | raw; depth from its mean, in cm                    | `standardise`             |
| background     | depth 0, photograph as it is                       | tokens 0                  |
| teacher        | 4 couplings, nets of 64 channels, sides 3, 3, 3, 5 | the same                  |
| student        | 1024 channels, 4 residual blocks                   | the same, `width` 128:    |
|                |                                                    | 1024 is 75 M parameters   |
| position       | 32 channels of sines and cosines                   | the same                  |
| training       | Adam 2e-4 (L2 1e-5), 72 epochs of batches of 8     | `steps` of 4 images, for  |
|                | images each                                        | each                      |
| few shots      | no step: the last batch, of fewer than 8 images,   | all steps, of all shots   |
|                | is dropped                                         |                           |
| which epoch    | the best on the test set is printed beside the     | the last                  |
|                | last                                               |                           |
| modalities     | one net                                            | one net; each one's map   |
|                |                                                    | is its share of d         |

Source: Rudolph et al. 2023 (AST, arXiv 2210.07829) and its released code.

Dimension letters: M modalities, B images, N tokens, C channels of all modalities together, H W
grid, P channels of a position, T tokens of the shots.
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
from pirn_jax.errors import BadInputError
from pirn_jax.methods.ast_network import create_student, create_teacher, study, teach
from pirn_jax.methods.descent import DescentSettings, Items, Learner, Report, descend
from pirn_jax.methods.flow import positions, standard_normal
from pirn_jax.methods.scaling import scaled, statistics_shapes
from pirn_jax.training import TrainingJob

MEASURED = 64  # images, at most, that the student's moments are measured on


@dataclass(frozen=True)
class AstSettings(DescentSettings):
    """AST; the values are its authors' where the module's table does not say otherwise."""

    width: int = 128
    """Channels inside the student."""
    position_channels: int = 32
    """P, of the sines and cosines; a multiple of 4."""
    steps: int = 150
    """Gradient steps of the teacher, and then of the student, whatever the number of shots."""
    batch_size: int = 4
    """Images a step, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(width=1, position_channels=4)
        self.multiple_of_four("position_channels")

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Ast:
        """Student and teacher, for tokens of that encoder."""
        return Ast(self, len(modalities), encoder.grid, encoder.channels)


RECIPES = {"default": AstSettings()}


class Grids(NamedTuple):
    """How tokens become grids.

    Attributes:
        grid: H, W.
        position_channels: P.
    """

    grid: tuple[int, int]
    position_channels: int

    @property
    def position(self) -> Float[np.ndarray, "H W P"]:
        """Of each cell."""
        return positions(self.grid, self.position_channels).reshape(*self.grid, -1)

    def of(
        self, x: Float[Array, "M B N c"], counted: Float[Array, "B N"]
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W"]]:
        """Tokens of all modalities side by side, 0 where they do not count; and whether they do."""
        b, (height, width) = x.shape[1], self.grid
        together = x.transpose(1, 2, 0, 3).reshape(b, height, width, -1)
        where = counted.reshape(b, height, width)
        return together * where[..., None], where


class TeacherLoss(NamedTuple):
    """How unlikely tokens are, with the optimizer of both networks."""

    grids: Grids
    learning_rate: float

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """-log p / C, the mean of the tokens that count."""
        del statistics, key
        x, where = batch["x"], batch["where"]
        unlikely = -standard_normal(*teach(parameters, x, self.grids.position))
        return mean_where(unlikely, where)

    def optimizer(self) -> optax.GradientTransformation:
        """Adam with L2."""
        return optax.chain(optax.add_decayed_weights(1e-5), optax.adam(self.learning_rate))


class StudentLoss(NamedTuple):
    """How far the student is from the teacher, whose parameters are the statistics."""

    grids: Grids
    learning_rate: float

    def __call__(
        self, parameters: Params, statistics: Params, batch: Params, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """Mean square, of the tokens that count."""
        del key
        x, where = batch["x"], batch["where"]
        taught, _ = teach(statistics, x, self.grids.position)
        studied, _ = study(parameters, x, self.grids.position)
        return mean_where(((studied - taught) ** 2).mean(-1), where)

    def optimizer(self) -> optax.GradientTransformation:
        """The teacher's."""
        return TeacherLoss(*self).optimizer()


def mean_where(value: Float[Array, "B H W"], where: Float[Array, "B H W"]) -> Float[Array, ""]:
    """The mean over what counts; 0 where nothing does."""
    return (value * where).sum() / jnp.maximum(where.sum(), 1.0)


@dataclass(frozen=True)
class Ast(Learner):
    """A student and a teacher for all modalities; fields as of `Learner`."""

    settings: AstSettings

    descents = 2

    def train(
        self,
        job: TrainingJob,
        statistics: Params,
        tokens: Float[np.ndarray, "M T C"],
        report: Report,
    ) -> tuple[Params, Params]:
        """The teacher's descent, the student's, then the moments that judging normalises by."""
        if not tokens.shape[1]:
            raise BadInputError(f"{job.name}: no token of the shots shows the part")
        own, grids = self.settings, self._grids
        x, where = self._prepared(jax.tree.map(jnp.asarray, statistics), job.shots)
        items = Items({"x": x, "where": where}, len(x))
        start = self._create(job.seed)
        loss = TeacherLoss(grids, own.learning_rate)
        teacher = descend(loss, start["teacher"], {}, items, own, job, report)
        loss = StudentLoss(grids, own.learning_rate)
        student = descend(loss, start["student"], teacher, items, own, job, report, own.steps)
        return {"teacher": teacher, "student": student}, measure(grids, student, x[:MEASURED])

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """Each modality's share of the mean square between student and teacher."""
        x, _ = self._prepared(statistics, tokens)
        taught, _ = teach(parameters["teacher"], x, self._grids.position)
        studied, _ = study(parameters["student"], x, self._grids.position, statistics["moments"])
        missed = ((studied - taught) ** 2).mean(-1).reshape(len(x), -1) / self.modalities
        return jnp.broadcast_to(missed[None], (self.modalities, *missed.shape)), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics."""
        parameters = jax.eval_shape(lambda: self._create(0))
        grid = jax.ShapeDtypeStruct((1, *self.grid, self.modalities * self.channels), jnp.float32)
        moments = jax.eval_shape(partial(measure, self._grids), parameters["student"], grid)
        scale = statistics_shapes(self.settings.scale, self.modalities, self.channels)
        return parameters, scale | moments

    @property
    def _grids(self) -> Grids:
        return Grids(self.grid, self.settings.position_channels)

    def _prepared(
        self, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W"]]:
        x = scaled(self.settings, self.grid, statistics, tokens)
        return self._grids.of(x, jnp.asarray(tokens.valid).astype(x.dtype))

    def _create(self, seed: int) -> Params:
        channels, own = self.modalities * self.channels, self.settings
        key = jax.random.key(seed)
        return _create_both(channels, own.position_channels, own.width, key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _create_both(channels: int, position: int, width: int, key: PRNGKeyArray) -> Params:
    for_teacher, for_student = jax.random.split(key)
    return {
        "teacher": create_teacher(channels, position, for_teacher),
        "student": create_student(channels, position, width, for_student),
    }


@partial(jax.jit, static_argnums=0)
def measure(grids: Grids, student: Params, x: Float[Array, "B H W C"]) -> Params:
    """The moments inside the trained student."""
    return {"moments": study(student, x, grids.position)[1]}
