"""The protocol that every detection method follows, PIRN among them.

A method learns from tokens of shots, and gives new tokens distances; what lies before (pictures →
tokens) and after (distances → maps → scores) is the same for all. Methods are frozen and compare
equal when they judge alike, so that programs compiled for one serve the other.

Dimension letters: M modalities, B images, N tokens, C channels, K prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict, Unpack, runtime_checkable

from jax import Array
from jaxtyping import Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.training import HistoryLine, Trained, TrainingJob

Told = Callable[[int, int, dict[str, HistoryLine]], None]
"""Called with the epochs done and to do of all jobs, and the last history lines, by job."""


class LearnOptions(TypedDict, total=False):
    """How `Method.learn` goes about it; see `pirn_jax.training.train`.

    What a method has no use for (a memory keeps no checkpoints) it does not look at.
    """

    parallel: str
    checkpoints: Path | None
    resume: bool
    save_seconds: float
    progress: Told | None


@runtime_checkable
class Method(Protocol):
    """What a detector needs of a method."""

    def learn(self, jobs: Sequence[TrainingJob], **options: Unpack[LearnOptions]) -> list[Trained]:
        """Learn every job, each by itself.

        Parameters and statistics of what was learned are trees of dicts of arrays.
        """
        ...

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"] | None]:
        """How odd each token is, >= 0, and the share of the tokens each prototype answers for.

        Pure, and each image by itself. Distances of tokens that are not valid are not looked at.
        """
        ...

    def abstract_params(self) -> tuple[Params, Params]:
        """Parameters and statistics as shapes, in which -1 is any size."""
        ...
