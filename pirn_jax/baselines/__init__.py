"""The other systems of the paper's tables, and the simplest that must be beaten; one file each.

Each is a frozen dataclass with what a detector needs of a method (`pirn_jax.judging.methods`):
`learn`, `distances` and `skeleton`.
Encoder, pixels, smoothing, fusion and metrics are the same for all.
"""

from pirn_jax.baselines.inp_former import InpFormer
from pirn_jax.baselines.memory import Memory
from pirn_jax.baselines.subspace import Subspace

__all__ = ["InpFormer", "Memory", "Subspace"]
