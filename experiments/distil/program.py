"""The compiled programs of a run, its batches spread over the local devices.

A training step is one program: augmentation, the frozen teacher, the student's loss and gradient,
and AdamW. Parameters lie on every device, a batch is cut among them (`jax.jit` over named
shardings), and what a step draws at random depends on its number alone, so the steps are the same
on any number of devices, up to rounding.

Dimension letters: B pictures of a batch, m pictures, S side in pixels, C channels of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8

from distil.augmentation import augmented
from distil.loss import Losses, Statistics, distillation_loss
from distil.student import Network, Parameters
from pirn_jax.encoder.encoder import Encoder
from pirn_jax.errors import ConfigError
from pirn_jax.training.step import State

AXIS = "pictures"
LEAST_DEVIATION = 1e-3


class Optimization(NamedTuple):
    """What a step does with a gradient, but for its rate.

    Attributes:
        weight_decay: of matrices; vectors do not decay.
        longest_gradient: over all parameters; a longer one is shortened to it.
        second_moment: decay of Adam's second moments.
        direction_weight, relation_weight: of the loss's terms.
    """

    weight_decay: float = 0.05
    longest_gradient: float = 1.0
    second_moment: float = 0.98
    direction_weight: float = 1.0
    relation_weight: float = 4.0

    def transformation(self) -> optax.GradientTransformation:
        """AdamW without its rate, which comes with each step."""

        def matrices(parameters: Parameters) -> dict[str, bool]:
            return {path: path.endswith(".kernel") for path in parameters}

        return optax.chain(
            optax.clip_by_global_norm(self.longest_gradient),
            optax.scale_by_adam(b2=self.second_moment),
            optax.add_decayed_weights(self.weight_decay, mask=matrices),
        )


class Comparison(NamedTuple):
    """How a student's tokens lie to its teacher's, a number a picture.

    Attributes:
        cosine: between tokens less the teacher's mean, averaged over the picture.
        cosine_in_picture: the same, each less its own mean over the picture.
        error: squared differences, summed over tokens and channels.
        squares: of the teacher's tokens less its mean, summed alike.
        tokens: the teacher's less its mean, summed over the picture.
    """

    cosine: Float[Array | np.ndarray, " m"]
    cosine_in_picture: Float[Array | np.ndarray, " m"]
    error: Float[Array | np.ndarray, " m"]
    squares: Float[Array | np.ndarray, " m"]
    tokens: Float[Array | np.ndarray, "m C"]


class Program:
    """The steps of one run.

    Args:
        network: of the student.
        teacher: frozen, for pictures of the same size.
        optimization: see there.
        batch: pictures of a step, divisible by the number of devices.
        seed: of what is drawn at random on the device.
        device_count: so many of the local devices; None: all of them.

    Raises:
        ConfigError: a batch that cannot be cut among the devices.
    """

    def __init__(
        self,
        network: Network,
        teacher: Encoder,
        optimization: Optimization,
        batch: int,
        seed: int,
        device_count: int | None = None,
    ):
        devices = tuple(jax.local_devices()[:device_count])
        if batch < 1 or batch % len(devices):
            raise ConfigError(
                f"a batch of {batch} cannot be cut among {len(devices)} devices",
                f"give a multiple of {len(devices)}",
            )
        self.network, self.teacher, self.batch = network, teacher, batch
        self._optimization, self._seed = optimization, seed
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._spread = NamedSharding(mesh, PartitionSpec(AXIS))
        self._teacher = jax.device_put(teacher.parameters, self._whole)
        self._optimizer = optimization.transformation()
        self._jitted = jax.jit(
            self._whole_step, donate_argnums=0, out_shardings=(self._whole, self._whole)
        )
        self._step: Callable[..., tuple[State, Losses]] = self._jitted
        self._update = jax.jit(
            self._one_update, donate_argnums=0, out_shardings=(self._whole, self._whole)
        )
        self._moments = jax.jit(self._teacher_moments, out_shardings=self._whole)
        self._compare = jax.jit(self._comparison, out_shardings=self._whole)

    # --- state ------------------------------------------------------------------------------------

    def initial(self, parameters: dict[str, np.ndarray], statistics: Statistics) -> State:
        """The state before the first step, on the host."""
        with jax.numpy_dtype_promotion("standard"):
            optimizer = self._optimizer.init(parameters)
        return State(parameters, optimizer, statistics._asdict())

    def place(self, state: State) -> State:
        """A state on the host, to all devices."""
        return jax.device_put(state, self._whole)

    @staticmethod
    def fetch(state: State) -> State:
        """Copies on the host: a step uses its state up."""
        return jax.tree.map(np.array, state)

    # --- programs ---------------------------------------------------------------------------------

    def compile(self, state: State) -> None:
        """Compile the training step before its first call."""
        side = self.network.config.native_size
        crops = jax.ShapeDtypeStruct((self.batch, side, side, 3), jnp.uint8, sharding=self._spread)
        number, rate = self._scalars(0, 0.0)
        self._step = self._jitted.lower(state, self._teacher, crops, number, rate).compile()

    def step(
        self, state: State, crops: UInt8[np.ndarray, "B S S 3"], number: int, rate: float
    ) -> tuple[State, Losses]:
        """Augment a batch, ask the teacher, and learn.

        Args:
            state: from `place` or the last step; it is used up.
            crops: of this step.
            number: of the step, from 0.
            rate: of learning.
        """
        crops = jax.device_put(crops, self._spread)
        return self._step(state, self._teacher, crops, *self._scalars(number, rate))

    def update(
        self, state: State, images: Float[Array, "B S S 3"], rate: float
    ) -> tuple[State, Losses]:
        """Learn from pictures as they are, in [0, 1]."""
        images = jax.device_put(images, self._spread)
        return self._update(state, self._teacher, images, self._scalars(0, rate)[1])

    def statistics(self, batches: Iterable[UInt8[np.ndarray, "B S S 3"]]) -> Statistics:
        """Of the teacher's tokens over augmented batches."""
        total, squares, count = 0.0, 0.0, 0
        for number, crops in enumerate(batches):
            placed = jax.device_put(crops, self._spread)
            # Other pictures than any step's: numbers are counted down from the largest.
            own = self._scalars(2**32 - 1 - number, 0.0)[0]
            sums = self._moments(self._teacher, placed, own)
            total = total + np.asarray(sums[0], np.float64)
            squares = squares + np.asarray(sums[1], np.float64)
            count += 1
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, LEAST_DEVIATION**2))
        return Statistics(*(np.asarray(x, np.float32) for x in (mean, deviation)))

    def compare(self, state: State, pictures: UInt8[np.ndarray, "m S S 3"]) -> Comparison:
        """Student and teacher on pictures that are only normalised, a batch at a time."""
        found = []
        for first in range(0, len(pictures), self.batch):
            part = pictures[first : first + self.batch]
            padding = np.repeat(part[-1:], self.batch - len(part), axis=0)
            placed = jax.device_put(np.concatenate([part, padding]), self._spread)
            result = self._compare(state, self._teacher, placed)
            found.append([np.asarray(value)[: len(part)] for value in result])
        return Comparison(*(np.concatenate(values) for values in zip(*found, strict=True)))

    # --- what is compiled -------------------------------------------------------------------------

    def _scalars(self, number: int, rate: float) -> tuple[Array, Array]:
        values = (np.uint32(number), np.float32(rate))
        return jax.device_put(values, self._whole)

    def _augmented(self, crops: UInt8[Array, "B S S 3"], number: Array) -> Float[Array, "B S S 3"]:
        key = jax.random.fold_in(jax.random.key(self._seed), number)
        return jax.lax.with_sharding_constraint(augmented(key, crops), self._spread)

    def _whole_step(
        self, state: State, teacher: dict, crops: Array, number: Array, rate: Array
    ) -> tuple[State, Losses]:
        return self._one_update(state, teacher, self._augmented(crops, number), rate)

    def _one_update(
        self, state: State, teacher: dict, images: Array, rate: Array
    ) -> tuple[State, Losses]:
        tokens = jax.lax.stop_gradient(self.teacher.tokens(teacher, images))
        statistics = Statistics(**state.statistics)

        def objective(parameters: Parameters) -> tuple[Array, Losses]:
            losses = distillation_loss(
                self.network.predict(parameters, images),
                tokens,
                statistics,
                direction_weight=self._optimization.direction_weight,
                relation_weight=self._optimization.relation_weight,
            )
            return losses.total, losses

        gradient, losses = jax.grad(objective, has_aux=True)(state.parameters)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            change, moments = self._optimizer.update(gradient, state.optimizer, state.parameters)
        change = jax.tree.map(lambda x: -rate * x, change)
        parameters = cast(Parameters, optax.apply_updates(state.parameters, change))
        return State(parameters, moments, state.statistics), losses

    def _teacher_moments(self, teacher: dict, crops: Array, number: Array) -> tuple[Array, Array]:
        tokens = self.teacher.tokens(teacher, self._augmented(crops, number))
        return tokens.mean(axis=(0, 1)), jnp.square(tokens).mean(axis=(0, 1))

    def _comparison(self, state: State, teacher: dict, pictures: Array) -> Comparison:
        images = pictures.astype(jnp.float32) / 255
        statistics = Statistics(**state.statistics)
        given = self.network.predict(state.parameters, images) * statistics.deviation[None, None]
        wanted = self.teacher.tokens(teacher, images) - statistics.mean[None, None]
        within = [x - x.mean(axis=1, keepdims=True) for x in (given, wanted)]
        return Comparison(
            _cosines(given, wanted),
            _cosines(*within),
            jnp.square(given - wanted).sum(axis=(1, 2)),
            jnp.square(wanted).sum(axis=(1, 2)),
            wanted.sum(axis=1),
        )


def _cosines(a: Float[Array, "m N C"], b: Float[Array, "m N C"]) -> Float[Array, " m"]:
    product = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return ((a * b).sum(axis=-1) / jnp.maximum(product, 1e-8)).mean(axis=1)
