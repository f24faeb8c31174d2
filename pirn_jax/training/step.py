"""One optimiser step, for a stack of jobs at once, and many steps as one compiled program.

Jobs of equal shape are stacked on a leading axis and step together under `jax.vmap`; the steps of a
stretch of epochs are one `lax.scan`. Which scans make up a step is decided outside (`loop.py`) and
comes in as indices, so the same program serves every epoch and every order.

Dimension letters: J jobs, M modalities, S shots, N tokens, C channels, T steps, B scans of a step.
Source: paper, "Training and Inference"; docs/decisions.md, 14 (Adam).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, UInt32

from pirn_jax.decoder import (
    Params,
    Tokens,
    create_decoder,
    merge,
    reconstruction_loss,
    select_scans,
    split,
)
from pirn_jax.training.recipe import TrainingRecipe

Arrays = Array | np.ndarray  # on the device, or on the host on their way there


class State(NamedTuple):
    """What changes from step to step, and what must be saved to go on; each leaf leads with J.

    Attributes:
        parameters: as from `pirn_jax.decoder.split`.
        optimizer: Adam's state; () once it is not needed any more.
        statistics: taken from the shots, never trained.
    """

    parameters: Params
    optimizer: optax.OptState
    statistics: Params


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


@partial(jax.jit, static_argnums=0)
def create_states(recipe: TrainingRecipe, shots: Tokens, seeds: UInt32[Arrays, " J"]) -> State:
    """The jobs before their first step.

    Args:
        recipe: the decoder.
        shots: of the stacked jobs, values (J, M, S, N, C).
        seeds: a job starts from its own, whatever it is stacked with.
    """

    def create(own: Tokens, seed: Arrays) -> State:
        decoder = create_decoder(recipe.decoder, own, jax.random.key(seed))
        _, parameters, statistics = split(decoder)
        state = State(parameters, OPTIMIZER.init(parameters), statistics)
        # Strongly typed, as the steps return them: the first step's program is that of the others.
        return jax.tree.map(lambda x: x.astype(x.dtype), state)

    return jax.vmap(create)(shots, seeds)


OPTIMIZER = optax.scale_by_adam()
"""Adam but for its rate, which comes with each step."""


def corrupted(
    tokens: Float[Array, "M B N C"], seeds: UInt32[Arrays, " B"], recipe: TrainingRecipe
) -> Float[Array, "M B N C"]:
    """Tokens after dropout and with noise, each scan by its own seed."""

    def one(scan: Array, seed: Arrays) -> Array:
        for_dropout, for_noise = jax.random.split(jax.random.key(seed))
        if recipe.dropout:
            stays = jax.random.bernoulli(for_dropout, 1.0 - recipe.dropout, scan.shape)
            scan = scan * (stays.astype(scan.dtype) / (1.0 - recipe.dropout))
        if recipe.noise:
            scan = scan + recipe.noise * jax.random.normal(for_noise, scan.shape, scan.dtype)
        return scan

    return jax.vmap(one, in_axes=(1, 0), out_axes=1)(tokens, seeds)


def run_steps(
    graph: nnx.GraphDef,
    recipe: TrainingRecipe,
    state: State,
    shots: Tokens,
    batches: Batches,
    *,
    axis_name: str | None = None,
    constrain: Callable[[Arrays, int], Arrays] = lambda x, axis: x,
) -> tuple[State, Float[Array, "T J"]]:
    """All steps of `batches`, one after the other; to be compiled.

    Args:
        graph: of the decoder, from `abstract_params`.
        recipe: loss and optimizer.
        state: before.
        shots: values (J, M, S, N, C), on every device whole; a step takes its scans from them.
        batches: of this device.
        axis_name: of a mapped axis of devices that share each step's scans: gradients, losses and
            the mean of the mining are then those of all of them.
        constrain: applied to each array of a step, with the axis that its scans lie on: says how a
            compiler that partitions by itself shall split it.

    Returns:
        The state after, and the loss of each step and job before its update.
    """

    def update(state: State, tokens: Tokens, batch: Batches) -> tuple[State, Array]:
        counted, weight, seeds = tokens.valid, batch.weights, batch.seeds
        corrupt = None if seeds is None else partial(corrupted, seeds=seeds, recipe=recipe)
        if weight is not None:
            everywhere = jnp.ones(tokens.values.shape[1:3], weight.dtype)
            counted = weight[:, None] * (
                everywhere if tokens.valid is None else tokens.valid.astype(weight.dtype)
            )

        def objective(parameters: Params) -> Array:
            # Padding repeats a scan: the decoder sees it whole, and the loss leaves it out.
            rebuilt = merge(graph, parameters, state.statistics)(tokens, corrupt)
            return reconstruction_loss(
                rebuilt, recipe.loss, counted, axis_name, recipe.decoder.distance
            )

        loss, gradient = jax.value_and_grad(objective)(state.parameters)
        if axis_name is not None:
            loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            change, moments = OPTIMIZER.update(gradient, state.optimizer, state.parameters)
        change = jax.tree.map(lambda x: -batch.rates[0] * x, change)
        parameters = optax.apply_updates(state.parameters, change)
        return State(cast(Params, parameters), moments, state.statistics), loss

    def step(state: State, batch: Batches) -> tuple[State, Array]:
        values, valid = jax.vmap(select_scans)(shots, batch.indices)
        tokens = Tokens(constrain(values, 2), None if valid is None else constrain(valid, 1))
        return jax.vmap(update)(state, tokens, jax.tree.map(lambda x: constrain(x, 1), batch))

    return jax.lax.scan(step, state, batches)
