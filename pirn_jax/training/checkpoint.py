"""Checkpoints of training, by orbax: written whole or not at all, the newest few kept.

A checkpoint holds the jobs' state as it is on the host, without a trace of the devices it was
computed on, so that a run may go on with more or fewer of them. Beside it lie the loss history and
what the run was (jobs, seeds, recipe, a digest of the tokens): a checkpoint of another run is
refused, not loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pirn_jax.decoder import Tokens
from pirn_jax.errors import ConfigError
from pirn_jax.training.processes import broadcast, from_first
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.step import State


def identity(
    names: Sequence[str], seeds: Sequence[int], recipe: TrainingRecipe, shots: Tokens
) -> str:
    """What makes two runs the same, as a digest."""
    digest = hashlib.sha256()
    about = {"names": list(names), "seeds": list(seeds), "recipe": dataclasses.asdict(recipe)}
    digest.update(json.dumps(about, sort_keys=True).encode())
    for leaf in jax.tree.leaves(shots):
        digest.update(np.ascontiguousarray(leaf[: len(names)]).data)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one stack of jobs; leaving the context waits for the last to be written.

    Args:
        folder: made when needed. Of several processes the first alone reads and writes it.
        run: from `identity`.
        keep: so many, the newest.
        resume: whether checkpoints that are there already may be gone on from.

    Raises:
        ConfigError: the folder holds checkpoints and `resume` is False.
    """

    def __init__(self, folder: Path, run: str, keep: int, resume: bool):
        self.folder, self.run = folder, run
        self._manager: Any = None
        from_first(lambda: self._open(keep, resume))

    def _open(self, keep: int, resume: bool) -> None:
        import orbax.checkpoint as ocp

        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=False, multiprocessing_options=alone
        )
        self.folder.mkdir(parents=True, exist_ok=True)  # a manager of one of several does not
        self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)
        if not resume and self._manager.latest_step() is not None:
            self._manager.close()
            raise ConfigError(
                f"{self.folder} holds checkpoints of an earlier run",
                "resume it, or give another folder",
            )

    def save(self, epoch: int, state: State, history: list[Any]) -> None:
        """Begin to write; training goes on meanwhile.

        Args:
            epoch: epochs done.
            state: of numpy arrays, not changed afterwards.
            history: anything JSON can hold.
        """
        import orbax.checkpoint as ocp

        if self._manager is None:
            return
        about = {"run": self.run, "history": history}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_flat(state)), about=ocp.args.JsonSave(about)
        )
        self._manager.save(epoch, args=args)

    def restore(self, state: State) -> tuple[int, State, list[Any]] | None:
        """The newest checkpoint: epochs done, state, history; None where there is none.

        Args:
            state: of arrays, or their shapes, as expected.

        Raises:
            ConfigError: it belongs to another run.
        """
        found = from_first(self._newest)
        if found is None:
            return None
        epoch, history = found
        wanted = {name: np.zeros(x.shape, x.dtype) for name, x in _flat(state).items()}
        flat = broadcast(wanted if self._manager is None else self._arrays(epoch, wanted))
        leaves = [np.asarray(flat[name]) for name in wanted]
        return epoch, jax.tree.unflatten(jax.tree.structure(state), leaves), history

    def _newest(self) -> tuple[int, list[Any]] | None:
        """Its epoch and history."""
        import orbax.checkpoint as ocp

        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        only_about = ocp.args.Composite(about=ocp.args.JsonRestore())
        about = self._manager.restore(epoch, args=only_about)["about"]
        if about["run"] != self.run:
            raise ConfigError(
                f"{self.folder} holds checkpoints of another run: other shots, seeds or recipe",
                "resume with what that run was started with, or give another folder",
            )
        return epoch, about["history"]

    def _arrays(self, epoch: int, wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        return self._manager.restore(epoch, args=args)["state"]

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()


def _flat(tree: State) -> dict[str, Any]:
    """Leaves by path: readable names on disk, whatever the tree is made of."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
