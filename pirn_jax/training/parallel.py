"""Where stacked jobs run: on one device, or over several by `jax.pmap` or `jax.jit` and shardings.

What is spread depends on how many jobs there are. With at least one per device the jobs are (task
parallel: nothing is exchanged); with fewer, each step's scans are (data parallel: gradients, losses
and the mean of the mining are those of all devices). Either way the steps are the same as on one
device: what does not divide evenly is padded, and the padding does not count.

    none      one device
    pmap      the local devices, `jax.pmap`, collectives written out
    sharding  all devices of all processes, `jax.jit` over named shardings, collectives by XLA
    auto      pmap where there is more than one local device, sharding where there are several
              processes, else none

Several processes hold the same shots each; see `processes.py`.

Dimension letters: D devices, J jobs, T steps, B scans of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from pirn_jax.decoder import Tokens, abstract_params
from pirn_jax.errors import ConfigError
from pirn_jax.training.compilation import collector_paused
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.step import Arrays, Batches, State, run_steps

PARALLEL = ("none", "pmap", "sharding", "auto")
AXIS = "devices"
Tree = TypeVar("Tree")


class Layout(NamedTuple):
    """How jobs are laid out.

    Attributes:
        kind: none, pmap or sharding.
        devices: that take part.
        spread: "jobs" or "scans".
    """

    kind: str
    devices: tuple[Any, ...]
    spread: str

    def sharding(self, *spec: str | None) -> NamedSharding:
        """Axes named AXIS are cut among the devices, the others whole on each."""
        mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        return NamedSharding(mesh, PartitionSpec(*spec))

    def padded_jobs(self, jobs: int) -> int:
        """So many are stacked: a multiple of the devices where jobs are spread."""
        return _up(jobs, len(self.devices)) if self.spread == "jobs" else jobs

    def padded_scans(self, scans: int) -> int:
        """So many places a step has: a multiple of the devices where scans are spread."""
        return _up(scans, len(self.devices)) if self.spread == "scans" else scans


def choose_layout(parallel: str, jobs: int) -> Layout:
    """The layout of so many stacked jobs.

    Raises:
        ConfigError: an unknown name, or pmap with several processes.
    """
    if parallel not in PARALLEL:
        raise ConfigError(
            f"parallel: expected one of {', '.join(PARALLEL)}; got {parallel!r}", "use auto"
        )
    several = jax.process_count() > 1
    if parallel == "auto":
        parallel = "sharding" if several else "pmap" if jax.local_device_count() > 1 else "none"
    if several and parallel != "sharding":
        raise ConfigError(
            f"parallel {parallel} with {jax.process_count()} processes",
            "use parallel sharding, which runs over the devices of all of them",
        )
    devices = tuple(jax.devices() if parallel == "sharding" else jax.local_devices())
    if parallel == "none":
        devices = devices[:1]
    return Layout(parallel, devices, "jobs" if jobs >= len(devices) else "scans")


class Program:
    """The training steps of stacked jobs, laid out over devices.

    The compiled steps outlive it: another program of the same layout, recipe and shapes, such as
    the next run of leave-one-out, does not compile again.

    Args:
        layout: from `choose_layout`.
        recipe: decoder, loss and optimizer.
        shots: of the stacked jobs, J a multiple as `Layout.padded_jobs` says.
    """

    def __init__(self, layout: Layout, recipe: TrainingRecipe, shots: Tokens):
        self.layout = layout
        jobs, pmap = layout.spread == "jobs", layout.kind == "pmap"
        self._state = layout.sharding(AXIS) if jobs else layout.sharding()
        if pmap:
            self._batches = layout.sharding(AXIS)
        else:
            self._batches = layout.sharding(*([None, AXIS] if jobs else [None, None, AXIS]))
        self._stacked = pmap and jobs
        # Neither epochs, nor batch size, nor rate is part of the program.
        same = replace(recipe, epochs=1, batch_size=1, learning_rate=1.0, schedule="constant")
        self._run = _compiled(layout, same, shots.values.shape[-1])
        self._shots = self._place(self._cut(shots), self._state)

    def place(self, state: State) -> State:
        """A state on the host, leading with J, to where the steps want it."""
        return self._place(self._cut(state), self._state)

    def fetch(self, state: State) -> State:
        """`place` undone: numpy arrays, the same on every process."""
        if jax.process_count() > 1 and self.layout.spread == "jobs":
            from jax.experimental import multihost_utils

            return multihost_utils.process_allgather(state, tiled=True)
        state = jax.tree.map(np.asarray, state)
        if self._stacked:
            state = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), state)
        return state

    def run(self, state: State, batches: Batches) -> tuple[State, Float[np.ndarray, "T J"]]:
        """Take the steps.

        Args:
            state: from `place` or the last call; it is used up.
            batches: on the host, B a multiple as `Layout.padded_scans` says.

        Returns:
            The new state, and the loss of each step and job.
        """
        if self.layout.kind == "pmap":
            axis, count = (1 if self._stacked else 2), len(self.layout.devices)
            batches = jax.tree.map(lambda x: np.stack(np.split(x, count, axis)), batches)
        with collector_paused():
            state, losses = self._run(state, self._shots, self._place(batches, self._batches))
        losses = np.asarray(losses)
        if self._stacked:  # (D, T, J/D)
            losses = np.moveaxis(losses, 0, 1).reshape(losses.shape[1], -1)
        return state, losses

    def _cut(self, tree: Tree) -> Tree:
        """Stacked jobs in D parts, where the program takes them so."""
        if not self._stacked:
            return tree
        count = len(self.layout.devices)
        return jax.tree.map(lambda x: np.asarray(x).reshape(count, -1, *x.shape[1:]), tree)

    @staticmethod
    def _place(tree: Tree, sharding: NamedSharding) -> Tree:
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def put(x: np.ndarray | jax.Array) -> jax.Array:
            host = np.asarray(x)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(put, tree)


@lru_cache(maxsize=16)
def _compiled(
    layout: Layout, recipe: TrainingRecipe, channels: int
) -> Callable[[State, Tokens, Batches], tuple[State, jax.Array]]:
    """`run_steps` of the decoder; compiled when first called with given shapes."""
    graph, _, _ = abstract_params(recipe.decoder, channels)
    steps = partial(run_steps, graph, recipe)
    jobs = layout.spread == "jobs"
    if layout.kind == "pmap":
        return jax.pmap(
            partial(steps, axis_name=None if jobs else AXIS),
            AXIS,
            in_axes=(0, 0, 0) if jobs else (None, None, 0),
            out_axes=0 if jobs else None,
            devices=layout.devices,
            donate_argnums=0,
        )

    def constrain(x: Arrays, axis: int) -> Arrays:
        split = layout.sharding(*[None] * axis, AXIS)
        return x if jobs else jax.lax.with_sharding_constraint(x, split)

    return jax.jit(
        partial(steps, constrain=constrain),
        out_shardings=(layout.sharding(AXIS) if jobs else layout.sharding(), layout.sharding()),
        donate_argnums=0,
    )


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
