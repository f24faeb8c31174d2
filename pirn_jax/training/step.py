"""One optimiser step, for a stack of jobs at once, and many steps as one compiled program.

Jobs of equal shape are stacked on a leading axis and step together under `jax.vmap`; the steps of a
stretch of epochs are one `lax.scan`. Which scans make up a step is decided outside (`loop.py`) and
comes in as indices, so the same program serves every epoch and every order.

Dimension letters: J jobs, S shots, N tokens, C channels, T steps, B scans of a step.
Source: paper, "Training and Inference"; DECISIONS 14 (Adam).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, UInt32

from pirn_jax.decoder import Decoder, Tokens, create_decoder, merge, reconstruction_loss, split
from pirn_jax.decoder.config import DecoderConfig
from pirn_jax.training.recipe import TrainingRecipe

Arrays = Array | np.ndarray  # on the device, or on the host on their way there


class State(NamedTuple):
    """What changes from step to step, and what must be saved to go on; each leaf leads with J.

    Attributes:
        parameters: plain dict, as from `pirn_jax.decoder.split`.
        optimizer: optax's state.
        statistics: taken from the shots, never trained.
    """

    parameters: dict[str, Any]
    optimizer: Any
    statistics: dict[str, Any]


class Shots(NamedTuple):
    """Frozen features of stacked jobs.

    Attributes:
        tokens: (J, S, N, C) per modality.
        valid: (J, S, N), False on tokens that do not count; None: all do.
    """

    tokens: tuple[Float[Arrays, "J S N C"] | None, Float[Arrays, "J S N C"] | None]
    valid: Bool[Arrays, "J S N"] | None


class Batches(NamedTuple):
    """Which scans each step takes.

    Attributes:
        indices: (T, J, B), into the shots.
        weights: (T, J, B), 1, or 0 for padding; None where nothing is padded.
        rates: (T, J, B), the learning rate, the same for all scans of a step.
        seeds: (T, J, B), of what each scan's input loses; None where it stays whole.
    """

    indices: Int[Arrays, "T J B"]
    weights: Float[Arrays, "T J B"] | None
    rates: Float[Arrays, "T J B"]
    seeds: UInt32[Arrays, "T J B"] | None


def skeleton(config: DecoderConfig, channels: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The decoder's graph, and its parameters and statistics as shapes; nothing is computed.

    With arrays of those shapes `pirn_jax.decoder.merge` makes the decoder.
    """
    return split(nnx.eval_shape(lambda: Decoder(config, channels, nnx.Rngs(0))))


@partial(jax.jit, static_argnums=0)
def create_states(recipe: TrainingRecipe, shots: Shots, seeds: UInt32[Arrays, " J"]) -> State:
    """The jobs before their first step.

    Args:
        recipe: the decoder.
        shots: of the stacked jobs.
        seeds: a job starts from its own, whatever it is stacked with.
    """

    def create(tokens: tuple, valid: Any, seed: Any) -> State:
        decoder = create_decoder(recipe.decoder, Tokens(*tokens), jax.random.key(seed), valid)
        _, parameters, statistics = split(decoder)
        state = State(parameters, OPTIMIZER.init(parameters), statistics)
        # Strongly typed, as the steps return them: the first step's program is that of the others.
        return jax.tree.map(lambda x: x.astype(x.dtype), state)

    return jax.vmap(create)(shots.tokens, shots.valid, seeds)


OPTIMIZER = optax.scale_by_adam()
"""Adam but for its rate, which comes with each step."""


def corrupted(
    tokens: Float[Array, "M B N C"], seeds: UInt32[Arrays, " B"], recipe: TrainingRecipe
) -> Float[Array, "M B N C"]:
    """Tokens after dropout and with noise, each scan by its own seed."""

    def one(scan: Array, seed: Any) -> Array:
        for_dropout, for_noise = jax.random.split(jax.random.key(seed))
        if recipe.dropout:
            stays = jax.random.bernoulli(for_dropout, 1.0 - recipe.dropout, scan.shape)
            scan = scan * (stays.astype(scan.dtype) / (1.0 - recipe.dropout))
        if recipe.noise:
            scan = scan + recipe.noise * jax.random.normal(for_noise, scan.shape, scan.dtype)
        return scan

    return jax.vmap(one, in_axes=(1, 0), out_axes=1)(tokens, seeds)


def run_steps(
    graph: Any,
    recipe: TrainingRecipe,
    state: State,
    shots: Shots,
    batches: Batches,
    *,
    axis_name: str | None = None,
    constrain: Callable[[Array], Array] = lambda x: x,
) -> tuple[State, Float[Array, "T J"]]:
    """All steps of `batches`, one after the other; to be compiled.

    Args:
        graph: of the decoder, from `skeleton`.
        recipe: loss and optimizer.
        state: before.
        shots: on every device whole; a step takes its scans from them.
        batches: of this device.
        axis_name: of a mapped axis of devices that share each step's scans: gradients, losses and
            the mean of the mining are then those of all of them.
        constrain: applied to each step's (J, B, …) arrays: says how a compiler that partitions by
            itself shall split them.

    Returns:
        The state after, and the loss of each step and job before its update.
    """

    def update(state: State, tokens: tuple, valid: Any, batch: Any) -> Any:
        counted, weight = valid, batch.weights
        corrupt = None
        if batch.seeds is not None:
            corrupt = partial(corrupted, seeds=batch.seeds, recipe=recipe)
        if weight is not None:
            everywhere = jnp.ones(_leading(tokens), weight.dtype)
            counted = weight[:, None] * (
                everywhere if valid is None else valid.astype(weight.dtype)
            )

        def objective(parameters: dict[str, Any]) -> Array:
            # Padding repeats a scan: the decoder sees it whole, and the loss leaves it out.
            rebuilt = merge(graph, parameters, state.statistics)(Tokens(*tokens), valid, corrupt)
            return reconstruction_loss(
                rebuilt, recipe.loss, counted, axis_name, recipe.decoder.distance
            )

        loss, gradient = jax.value_and_grad(objective)(state.parameters)
        if axis_name is not None:
            loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            change, moments = OPTIMIZER.update(gradient, state.optimizer, state.parameters)
            change = jax.tree.map(lambda x: -batch.rates[0] * x, change)
        parameters: Any = optax.apply_updates(state.parameters, change)
        return State(parameters, moments, state.statistics), loss

    def step(state: State, batch: Batches) -> tuple[State, Array]:
        taken = jax.vmap(lambda x, index: x[index])
        tokens, valid = jax.tree.map(lambda x: constrain(taken(x, batch.indices)), tuple(shots))
        return jax.vmap(update)(state, tokens, valid, jax.tree.map(constrain, batch))

    return jax.lax.scan(step, state, batches)


def _leading(tokens: tuple) -> tuple[int, int]:
    return next(x.shape[:2] for x in tokens if x is not None)
