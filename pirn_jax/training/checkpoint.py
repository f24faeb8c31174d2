"""Checkpoints of training, by orbax: written whole or not at all, the newest few kept.

A checkpoint holds the jobs' state as it is on the host, without a trace of the devices it was
computed on, so that a run may go on with more or fewer of them. Beside it lie the loss history and
what the run was (jobs, seeds, recipe, a digest of the tokens): a checkpoint of another run is
refused, not loaded. Both are sealed by their SHA-256: a checkpoint that is not what was written is
named and put aside, and the one before it is gone on from. One that only could not be read, for
want of permission, memory or a disk that answers, ends the run, and stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pirn_jax.decoder import Tokens
from pirn_jax.errors import ConfigError, MachineError, PirnError
from pirn_jax.manifest import digest_of
from pirn_jax.training.processes import broadcast, from_first
from pirn_jax.training.recipe import TrainingRecipe
from pirn_jax.training.step import State

_log = logging.getLogger("pirn_jax")


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
        self._arrays: dict[str, np.ndarray] | None = None  # of the one that is gone on from
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
        flat = _flat(state)
        about = {"run": self.run, "history": history, "state": _digest(flat)}
        about["seal"] = digest_of([epoch, about])
        args = ocp.args.Composite(state=ocp.args.StandardSave(flat), about=ocp.args.JsonSave(about))
        self._manager.save(epoch, args=args)

    def restore(self, state: State) -> tuple[int, State, list[Any]] | None:
        """The newest whole checkpoint: epochs done, state, history; None where there is none.

        Damaged ones are named in the log, and put aside as `<epoch>.damaged`.

        Args:
            state: of arrays, or their shapes, as expected.

        Raises:
            ConfigError: it belongs to another run.
            MachineError: it is there, and cannot be read.
        """
        wanted = {name: np.zeros(x.shape, x.dtype) for name, x in _flat(state).items()}
        found = from_first(lambda: self._newest(wanted))
        if found is None:
            return None
        epoch, history = found
        flat = broadcast(wanted if self._arrays is None else self._arrays)
        self._arrays = None
        leaves = [np.asarray(flat[name]) for name in wanted]
        return epoch, jax.tree.unflatten(jax.tree.structure(state), leaves), history

    def _newest(self, wanted: dict[str, np.ndarray]) -> tuple[int, list[Any]] | None:
        """Epoch and history of the newest whole one, its arrays kept."""
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                history = self._read(epoch, wanted)
            except PirnError:
                raise
            except Exception as error:  # orbax raises dozens of kinds on damaged bytes
                reason = str(error).partition("\n")[0][:200] or type(error).__name__
                if _is_the_machines(error):
                    raise MachineError(
                        f"checkpoint {epoch} cannot be read: {reason}",
                        "mend that, and give --resume again; or remove the checkpoint to go on "
                        "from the one before it",
                        self.folder,
                    ) from error
                _log.warning(
                    "checkpoint %s/%d is damaged (%s): put aside, and training goes on from the "
                    "one before it",
                    self.folder,
                    epoch,
                    reason,
                )
                self._put_aside(epoch)
            else:
                return epoch, history
        return None

    def _put_aside(self, epoch: int) -> None:
        """Out of orbax's sight, which saves nothing that is older than the newest it sees."""
        place = self.folder / str(epoch)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place.with_suffix(".damaged"))  # of an earlier try
        place.rename(place.with_suffix(".damaged"))
        self._manager.reload()

    def _read(self, epoch: int, wanted: dict[str, np.ndarray]) -> list[Any]:
        """The history of a checkpoint, its arrays kept.

        Raises:
            ConfigError: it belongs to another run.
            Exception: of any kind, where it is not what was written.
        """
        import orbax.checkpoint as ocp

        only_about = ocp.args.Composite(about=ocp.args.JsonRestore())
        about = dict(self._manager.restore(epoch, args=only_about)["about"])
        if about.pop("seal") != digest_of([epoch, about]):
            raise ValueError("its description is not what was written")
        if about["run"] != self.run:
            raise ConfigError(
                f"{self.folder} holds checkpoints of another run: other shots, seeds or recipe",
                "resume with what that run was started with, or give another folder",
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        flat = {
            n: np.asarray(x) for n, x in self._manager.restore(epoch, args=args)["state"].items()
        }
        if _digest(flat) != about["state"]:
            raise ValueError("its arrays are not what was written")
        self._arrays = flat
        return about["history"]

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.wait_until_finished()
            self._manager.close()


def _is_the_machines(error: BaseException) -> bool:
    """Whether what could not be read may yet be what was written; a missing file may not."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return False
    return isinstance(error, OSError | MemoryError) or bool(_TENSORSTORE.search(str(error)))


# Whatever goes wrong there is a ValueError, but for its first words.
_TENSORSTORE = re.compile("PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED")


def _flat(tree: State) -> dict[str, Any]:
    """Leaves by path: readable names on disk, whatever the tree is made of."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _digest(flat: dict[str, Any]) -> str:
    """SHA-256 of arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(flat):
        array = np.ascontiguousarray(flat[name])
        digest.update(f"|{name} {array.dtype.str} {array.shape}|".encode())
        digest.update(array.data)
    return digest.hexdigest()
